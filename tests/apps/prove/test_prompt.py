"""The prompt, and the first tactic of a model's answer."""

import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monge.apps.prove.lm import prompt as module
from monge.apps.prove.lm.prompt import Style, fingerprint, parse_tactic, prompt, tactic_of
from monge.apps.prove.state import Goal, Hypothesis, State

STATE = State((Goal("n = n", (Hypothesis("n", "Nat", False),), "zero"), Goal("True")))
CASES = "cases h with\n| inl a =>\n  simp\n\n| inr b => rfl"
COMPLETE = [
    "simp",
    "rw [← h]",
    "by_cases h : p",
    CASES,
    "constructor\n· simp\n· rfl",
    "simp [\n  a,\n  b\n]",
    "intro x\n<;> rfl",
]
words = st.text(alphabet="ab·|<;>-/`{}() \n\r\t\u2028by", max_size=40)
tactics = st.sampled_from(COMPLETE)


def test_the_prompt_has_a_fixed_format():
    assert prompt(STATE) == (
        "Complete the following Lean 4 code:\n\n```lean4\n/- tactic state:\n"
        "case zero\nn : Nat\n⊢ n = n\n\n⊢ True\n-/\n```\n"
    )


def test_the_fingerprint_identifies_the_template(monkeypatch):
    """A golden value: a changed template invalidates all models trained with the old one."""
    assert fingerprint() == "85ea5485f2a5"
    monkeypatch.setattr(module, "TEMPLATE", module.TEMPLATE + " ")
    assert fingerprint() != "85ea5485f2a5"


@given(st.text(max_size=30))
def test_any_state_appears_unchanged_in_its_prompt(target):
    state = State((Goal(target),))
    assert f"tactic state:\n{state}\n-/" in prompt(state)


@given(words | st.text(max_size=40))
def test_reading_a_tactic_again_returns_it_unchanged(text):
    tactic = tactic_of(text)
    assert tactic == tactic.strip()
    assert tactic_of(tactic) == tactic
    assert not tactic.startswith(("```", "--", "/-", "by "))
    parsed = parse_tactic(text)
    assert [line.strip() for line in text[parsed.start : parsed.end].split("\n")] == [
        line.strip() for line in tactic.split("\n")
    ]


@given(
    tactics,
    st.sampled_from(["", "by\n", "```lean4\n", "```lean4\nby\n", "\n\n-- why\n", "/- two\nlines -/\n", "by -- so\n"]),
    st.integers(0, 6),
    st.sampled_from(["", "\n", "\nomega", "\n```\nThat is all.", "\n-- done", "\n\nexact h\n  foo", "\nby_contra h"]),
)
def test_text_around_a_tactic_and_its_indentation_do_not_change_it(tactic, before, columns, after):
    assert tactic_of(before + textwrap.indent(tactic + after, " " * columns)) == tactic


@pytest.mark.parametrize("tactic", COMPLETE)
def test_a_tactic_is_closed_only_if_no_further_text_can_extend_it(tactic):
    """A text that is cut where it is closed has the same tactic as the complete text."""
    text = f"  {textwrap.indent(tactic, '  ').strip()}\n  omega"
    for length in range(len(text)):
        if parse_tactic(text[:length]).closed:
            assert tactic_of(text[:length]) == tactic
    assert parse_tactic(text).closed


def test_a_by_on_the_line_sets_the_column():
    assert tactic_of("by intro x\n   simp") == "intro x"
    assert tactic_of("by simp only [a,\n  b]") == "simp only [a,\n  b]"
    assert tactic_of("by rfl") == "rfl"
    assert tactic_of("by_cases h : a") == "by_cases h : a"


@pytest.mark.parametrize("text", ["", " \n", "```", "```lean4\n```", "by", "by\n  ", "-- nothing", "/- no end"])
def test_without_a_tactic_the_result_is_empty(text):
    assert tactic_of(text) == ""
    assert not parse_tactic(text).closed


@given(st.lists(st.sampled_from(["a", "h", "ih", "x✝", "v1", "n'"]), unique=True, min_size=1), st.integers(0, 5))
def test_numbered_tactics_get_their_names_back(names, k):
    state = "\n".join([*(f"{name} : N" for name in names), f"⊢ P {' '.join(names)}"])
    tactic = f"rw [{names[k % len(names)]}, foo.{names[0]}, y]; exact h2 {' '.join(names)}"
    style = Style("first", "numbered")
    written = style.tactic(state, tactic)
    assert style.original(state, written) == tactic
    assert Style().tactic(state, tactic) == Style().original(state, tactic) == tactic
    words = re.findall(r"(?<![.\w])v\d+✝?", style.state(state).split("⊢")[1])
    assert sorted(words) == sorted(f"v{len(names) - j}" + "✝" * ("✝" in name) for j, name in enumerate(names))
