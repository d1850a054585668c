"""The grammar of a Metamath database accepts the formulas that its syntax axioms produce, and no others."""

import random
from itertools import product
from pathlib import Path

import pytest

from monge.apps.translate.grammar import Grammar
from monge.apps.translate.metamath import INSTALLED, theorems

SMALL = """$c wff class setvar |- ( ) -> -. = + ' $.
$v ph ps A B x $.
wph $f wff ph $.
wps $f wff ps $.
cA $f class A $.
cB $f class B $.
vx $f setvar x $.
$( A comment with $a wff -> $. in it. $)
wn $a wff -. ph $.
wi $a wff ( ph -> ps ) $.
wceq $a wff A = B $.
cv $a class x $.
cplus $a class A + B $.
cprime $a class A ' $.
ax-1 $a |- ( ph -> ph ) $.
${
  h $e |- ph $.
  $( The same again. $)
  idi $p |- ph $= h $.
$}
"""
TOKENS = ("ph", "A", "x", "(", ")", "->", "-.", "=", "+", "'")


@pytest.fixture(scope="module")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Grammar:
    path = tmp_path_factory.mktemp("grammar") / "small.mm"
    path.write_text(SMALL)
    return Grammar.of(path)


def expressions(length: int) -> dict[str, set[tuple[str, ...]]]:
    """All expressions of at most this length, by applying the axioms until nothing new is found."""
    found: dict[str, set[tuple[str, ...]]] = {"wff": {("ph",)}, "class": {("A",), ("x",)}}
    before = 0
    while before != (before := sum(map(len, found.values()))):
        classes, formulas = list(found["class"]), list(found["wff"])
        new = {(*a, "'") for a in classes} | {(*a, "+", *b) for a, b in product(classes, classes)}
        found["class"] |= {one for one in new if len(one) <= length}
        new = {("-.", *p) for p in formulas} | {(*a, "=", *b) for a, b in product(classes, classes)}
        new |= {("(", *p, "->", *q, ")") for p, q in product(formulas, formulas)}
        found["wff"] |= {one for one in new if len(one) <= length}
    return found


def test_exactly_the_expressions_of_the_axioms_are_accepted(grammar: Grammar):
    """Left recursion and ambiguity (A + A + A) included: all sequences of up to four symbols, and all expressions of five."""
    found = expressions(5)
    assert ("(", "ph", "->", "ph", ")") in found["wff"]
    for length in range(5):
        for tokens in product(TOKENS, repeat=length):
            for kind, accepted in found.items():
                assert grammar.derives(kind, tokens) == (tokens in accepted), (kind, tokens)
    for kind, accepted in found.items():
        assert all(grammar.derives(kind, tokens) for tokens in accepted)


@pytest.mark.parametrize(
    ("statement", "accepted"),
    [
        ("( ph -> ph )", True),
        ("ph & ( ph -> ps ) => ps", True),
        ("A = B & ph => -. -. ph", True),
        ("ph ps", False),
        ("ph & => ps", False),
        ("ph => ps => ph", False),
        ("A", False),
        ("", False),
    ],
)
def test_statements_are_made_of_formulas(statement: str, accepted: bool, grammar: Grammar):
    assert grammar.well_formed(statement) == accepted


def test_a_file_without_syntax_axioms_is_an_error(tmp_path: Path):
    (tmp_path / "other.mm").write_text("$c a $.")
    with pytest.raises(ValueError, match="no syntax axiom of type wff"):
        Grammar.of(tmp_path / "other.mm")
    with pytest.raises(ValueError, match="cannot read the database"):
        Grammar.of(tmp_path / "missing.mm")


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED.exists(), reason="needs set.mm: apt install metamath-databases")
def test_the_theorems_of_set_mm_are_well_formed_and_shuffled_ones_are_not():
    grammar, draws = Grammar.of(INSTALLED), random.Random(0)
    sample = draws.sample(list(theorems(INSTALLED)), 200)
    assert all(grammar.well_formed(" ".join(one.statement)) for one in sample)
    shuffled = [" ".join(draws.sample(one.statement, len(one.statement))) for one in sample]
    assert sum(map(grammar.well_formed, shuffled)) < 10
