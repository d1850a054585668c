"""The layers of the package, read from the imports: each module imports only from layers below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "monge").rglob("*.py"))

CORE = {"kernels", "math"}
GROUND = CORE | {"files", "fleet", "flags", "text"}
MAY_USE = {
    "files": set(),
    "fleet": set(),
    "flags": set(),
    "text": set(),
    "near_duplicates": set(),
    "kernels": set(),
    "math": {"kernels"},
    "nets": CORE,
    "objective": CORE,
    "lm": GROUND,
    "training": GROUND | {"nets", "objective", "lm"},
    "runs": GROUND | {"nets", "objective", "lm", "training"},
    "run": GROUND | {"nets", "objective", "lm", "training", "runs"},
    "pretrain": GROUND | {"nets", "objective", "lm", "training", "runs", "run"},
    "apps": GROUND | {"near_duplicates", "nets", "objective", "lm", "training", "runs", "run", "pretrain"},
    "viewer": GROUND | {"training", "apps"},
    "completion": {"apps", "viewer", "cli"},
    "cli": {"apps", "viewer", "completion", "runs", "flags", "text"},
    "__main__": {"cli"},
}
OUTSIDE_OF_MATH = {"torch", "numpy", "scipy", "jaxtyping"}


def name(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Dotted names of the imports of a file, `from a import b` as a.b, except those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(name(path)))
def test_a_module_imports_only_from_layers_below_it(path):
    _, *parts = name(path)
    if not parts:
        return
    layer = parts[0]
    assert layer in MAY_USE, f"{layer} has no layer; add it to MAY_USE"
    for used in imports(path):
        package, *rest = used.split(".")
        if package == "monge" and rest and rest[0] != "__version__":
            assert rest[0] in MAY_USE[layer] | {layer}, f"{layer} may not use {used}"
            if layer == rest[0] == "apps" and len(parts) > 1 and len(rest) > 1:
                assert parts[1] == rest[1], f"the app {parts[1]} imports the app {rest[1]}"


@pytest.mark.parametrize("path", [p for p in FILES if name(p)[1:2] == ["math"]], ids=lambda path: path.stem)
def test_math_has_no_networks_and_few_dependencies(path):
    for used in imports(path):
        package = used.split(".")[0]
        assert package in OUTSIDE_OF_MATH | {"monge"} | sys.stdlib_module_names, used
        assert used not in {"torch.nn", "torch.nn.Module", "torch.nn.Parameter"}
    attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not attributes & {"Module", "Parameter", "parameters"}


def test_kernels_do_not_import_torch():
    used = {name.split(".")[0] for path in FILES if "kernels" in path.parts for name in imports(path)}
    assert "torch" not in used


def test_the_command_line_imports_apps_and_torch_only_inside_a_verb():
    heavy = {"torch", "tyro", "numpy"}
    top = {used.split(".")[0] for used in imports(ROOT / "monge" / "cli.py", top_only=True)}
    assert not top & (heavy | {"monge"})
    help_ = f"import sys, monge.cli; monge.cli.main(['--help']); assert not set(sys.modules) & {heavy}"
    subprocess.run([sys.executable, "-c", help_], check=True, capture_output=True, cwd=ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(name(path)))
def test_a_file_stays_under_300_lines(path):
    assert len(path.read_text().splitlines()) < 300
