"""Docstrings and help texts: examples run, openings are nouns or verbs, and every setting explains itself."""

import ast
import doctest
import importlib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch

from monge.apps.compress.recipes import Compress
from monge.apps.generate.options import DeviceOptions
from monge.apps.generate.recipes import Generate, Reflow
from monge.apps.molecules.recipes import Molecular
from monge.apps.prove.config import Local, SearchConfig
from monge.apps.prove.dpo import Prefer
from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.finetune import FineTune
from monge.apps.prove.iteration import Iteration
from monge.apps.prove.lm.causal import Sampling
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.state import Budget, Limits
from monge.apps.prove.tree import Search
from monge.apps.translate.field import FieldShape
from monge.apps.translate.prices import Prices
from monge.apps.translate.recipes import Translate
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiTShape
from monge.pretrain import Pretrain
from monge.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "monge").rglob("*.py"))
EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if ">>> " in path.read_text(encoding="utf-8")
]
RELATIVE = {"what", "who", "whom", "whose", "whether", "how", "where", "which", "when", "why", "whatever", "whoever"}
SETTINGS = [
    *(Generate, Reflow, Translate, Compress, Pretrain, TrainConfig, FieldShape, Prices, BlockShape, DiTShape),
    *(Search, SearchConfig, Budget, Limits, Endpoint, Local, Sampling),
    *(FineTune, Prefer, StateEnergy, Iteration, DeviceOptions, Molecular),
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_function_of_math_and_objective_has_an_example() -> None:
    without = [
        f"{path.parent.name}/{path.name}: {node.name}"
        for path in FILES
        if path.parent.name in ("math", "objective")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and ">>> " not in (ast.get_docstring(node) or "")
    ]
    assert without == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(path.relative_to(ROOT).with_suffix("").parts))
def test_a_docstring_opens_with_a_noun_or_a_verb(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            assert text.split()[0].strip(",.:;").lower() not in RELATIVE, text
        if isinstance(node, ast.ClassDef | ast.Module):  # docstrings of fields and constants
            for one in node.body:
                if (
                    isinstance(one, ast.Expr)
                    and isinstance(one.value, ast.Constant)
                    and isinstance(one.value.value, str)
                ):
                    assert one.value.value.split()[0].strip(",.:;").lower() not in RELATIVE, one.value.value


def documented(kind: type) -> set[str]:
    """Names of the fields of a dataclass that have a help text, own and inherited."""
    texts: set[str] = set()
    for base in kind.__mro__[:-1]:
        source = ast.parse(Path(importlib.import_module(base.__module__).__file__ or "").read_text(encoding="utf-8"))
        (body,) = (node.body for node in source.body if isinstance(node, ast.ClassDef) and node.name == base.__name__)
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                words = str(text.value.value)
                assert words[0].isupper() or words.split()[0].rstrip(",") in dir(kind) or words[0].isdigit(), words
                assert len(words.split()) >= 3, words
                texts.add(ast.unparse(field.target))
    return texts


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_has_a_help_text_that_stands_alone(kind: type) -> None:
    nested = {
        field.name for field in fields(kind) if is_dataclass(getattr(kind, field.name, None)) or field.name == "train"
    }
    nested |= {field.name for field in fields(kind) if is_dataclass(field.default_factory)}
    assert {field.name for field in fields(kind)} - nested - documented(kind) == set()
