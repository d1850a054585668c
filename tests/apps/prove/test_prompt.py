"""One prompt, and the first tactic of whatever a model wrote after it."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monge.apps.prove.lm import prompt as module
from monge.apps.prove.lm.prompt import fingerprint, found_in, prompt, tactic_of
from monge.apps.prove.state import Goal, Hypothesis, State

STATE = State((Goal("n = n", (Hypothesis("n", "Nat", False),), "zero"), Goal("True")))
CASES = "cases h with\n| inl a =>\n  simp\n\n| inr b => rfl"
WHOLE = [
    "simp",
    "rw [← h]",
    "by_cases h : p",
    CASES,
    "constructor\n· simp\n· rfl",
    "simp [\n  a,\n  b\n]",
    "intro x\n<;> rfl",
]
words = st.text(alphabet="ab·|<;>-/`{}() \n\r\t\u2028by", max_size=40)
tactics = st.sampled_from(WHOLE)


def test_the_prompt_is_the_seed_s():
    assert prompt(STATE) == (
        "Complete the following Lean 4 code:\n\n```lean4\n/- tactic state:\n"
        "case zero\nn : Nat\n⊢ n = n\n\n⊢ True\n-/\n```\n"
    )


def test_the_fingerprint_is_the_template_s(monkeypatch):
    """A golden value: who changes the template makes all that was learnt from it useless, and must say so here."""
    assert fingerprint() == "85ea5485f2a5"
    monkeypatch.setattr(module, "TEMPLATE", module.TEMPLATE + " ")
    assert fingerprint() != "85ea5485f2a5"


@given(st.text(max_size=30))
def test_a_state_stands_in_its_prompt_whatever_is_written_in_it(target):
    state = State((Goal(target),))
    assert f"tactic state:\n{state}\n-/" in prompt(state)


@given(words | st.text(max_size=40))
def test_what_is_read_is_read_again_as_itself(text):
    tactic = tactic_of(text)
    assert tactic == tactic.strip()
    assert tactic_of(tactic) == tactic
    assert not tactic.startswith(("```", "--", "/-", "by "))
    found = found_in(text)
    assert [line.strip() for line in text[found.start : found.end].split("\n")] == [
        line.strip() for line in tactic.split("\n")
    ]


@given(
    tactics,
    st.sampled_from(["", "by\n", "```lean4\n", "```lean4\nby\n", "\n\n-- why\n", "/- two\nlines -/\n", "by -- so\n"]),
    st.integers(0, 6),
    st.sampled_from(["", "\n", "\nomega", "\n```\nThat is all.", "\n-- done", "\n\nexact h\n  foo", "\nby_contra h"]),
)
def test_fences_comments_by_indentation_and_what_follows_change_nothing(tactic, before, columns, after):
    assert tactic_of(before + textwrap.indent(tactic + after, " " * columns)) == tactic


@pytest.mark.parametrize("tactic", WHOLE)
def test_while_it_is_written_it_is_closed_only_when_nothing_more_can_come(tactic):
    """What is cut where it is closed has the tactic that the whole text has."""
    text = f"  {textwrap.indent(tactic, '  ').strip()}\n  omega"
    for length in range(len(text)):
        if found_in(text[:length]).closed:
            assert tactic_of(text[:length]) == tactic
    assert found_in(text).closed


def test_a_by_on_the_line_sets_the_column():
    assert tactic_of("by intro x\n   simp") == "intro x"
    assert tactic_of("by simp only [a,\n  b]") == "simp only [a,\n  b]"
    assert tactic_of("by rfl") == "rfl"
    assert tactic_of("by_cases h : a") == "by_cases h : a"


@pytest.mark.parametrize("text", ["", " \n", "```", "```lean4\n```", "by", "by\n  ", "-- nothing", "/- no end"])
def test_no_tactic_is_an_empty_one(text):
    assert tactic_of(text) == ""
    assert not found_in(text).closed
