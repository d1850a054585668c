"""Names that users of torchcfm, flow_matching, diffusers, OTT and POT would guess, and everything an extension needs."""

import re
from pathlib import Path

import pytest
import torch

import monge

GUESSES = [
    *("FlowMatching", "MinibatchOT", "Coupling", "Path", "Affine", "Pair", "Velocity", "Objective", "Loss", "EMA"),
    *("MLP", "DiT", "UNet", "integrate", "euler", "midpoint", "dopri5", "solver", "log_likelihood", "divergence"),
    *("sample", "sinkhorn", "squared_euclidean", "cosine", "Whitening", "squared_w2", "mmd", "straightness"),
    *("train", "TrainConfig", "State", "reopen"),
]
MISSING = {
    "UNet",  # networks for large images are out of scope
    "solver",  # pass a solver's name to integrate
    "sample",  # use integrate
}


def test_guessed_names_exist():
    assert len(GUESSES) == len(set(GUESSES)) == 32
    assert {name for name in GUESSES if not hasattr(monge, name)} == MISSING


def test_every_public_name_imports_and_is_listed():
    for name in monge.__all__:
        assert getattr(monge, name) is not None
    assert set(monge.__all__) <= set(dir(monge))


@pytest.mark.slow
def test_the_extensions_of_the_docs_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/concepts.md").read_text()
    (code,) = re.findall(r"## Write your own.*?```python\n(.*?)```", page, re.DOTALL)
    names = set(re.findall(r"^from monge import (.*)$", code, re.MULTILINE)[0].split(", "))
    assert names <= set(monge.__all__)
    scope: dict = {"__name__": "extension"}
    exec(code, scope)
    records = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    assert len(records) > 1
    assert scope["samples"].shape == (100, 2)
    assert torch.isfinite(scope["samples"]).all()


def test_every_public_name_is_on_an_api_page():
    pages = "".join(page.read_text() for page in (Path(__file__).parents[1] / "docs/api").glob("*.md"))
    modules = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    objects = [getattr(monge, name) for name in monge.__all__]
    assert {kind.__module__ for kind in objects if getattr(kind, "__module__", "").startswith("monge.")} <= modules
