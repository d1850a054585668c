"""Untrusted text is escaped for the terminal and shortened for file names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monge.text import file_name, one_line, printable


@given(st.text(alphabet=st.characters(), max_size=80))
def test_no_control_characters_are_left(text):
    shown = printable(text)
    assert all(c == "\n" or c.isprintable() or c == "\u3000" or c.isspace() for c in shown)
    assert not set(shown) & set(map(chr, [*range(10), *range(11, 32), 127, 0x9B, 0x202E, 0x2066, 0x200B]))
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("a\rb\tc\u202ed\u200be\udc80", r"a\rb\tc\u202ed\u200be\udc80"),
        ("∀ x : ℕ, x ≠ y ∧ «a b» ✝ 𝒜", "∀ x : ℕ, x ≠ y ∧ «a b» ✝ 𝒜"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_control_characters_are_escaped_and_others_unchanged(text, shown):
    assert printable(text) == shown


def test_one_line_joins_lines_and_escapes():
    assert one_line("a\n  b\r\nc\u2028d") == r"a b\r c\u2028d"


@given(st.text(alphabet=st.characters(), max_size=300))
def test_a_file_name_is_short_and_safe(text):
    name = file_name(text)
    assert len(name.encode()) <= 120
    assert not set(name) & set("/\\\0\n :*?\"<>|'")


def test_long_names_stay_distinct():
    names = [file_name("a" * 400 + end) for end in ("", "b", "c")]
    assert len(set(names)) == 3
    assert file_name("Nat.add_comm") == "Nat.add_comm"
    assert len({file_name(text) for text in ("", ".", "..", "...")} - {"", ".", ".."}) == 4
    assert file_name("ν" * 100).startswith("ν")
