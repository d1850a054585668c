"""Letters that look Latin but are not are reported; those of ordinary mathematics are not."""

import pytest

from monge.apps.prove.letters import look_alikes


@pytest.mark.parametrize(
    ("statement", "letter"),
    [
        ("∀ (n : Νat), n = n", "Νat: Ν is U+039D GREEK CAPITAL LETTER NU, not N"),
        ("«Nаt».succ", "Nаt: а is U+0430 CYRILLIC SMALL LETTER A, not a"),
        ("zerο", "zerο: ο is U+03BF GREEK SMALL LETTER OMICRON, not o"),
        ("vaνt", "vaνt: ν is U+03BD GREEK SMALL LETTER NU, not v"),
        ("Ｎat", "Ｎat: Ｎ is U+FF2E FULLWIDTH LATIN CAPITAL LETTER N, not N"),
        ("ℕat", "ℕat: ℕ is U+2115 DOUBLE-STRUCK CAPITAL N, not N"),
        ("fıx", "fıx: ı is U+0131 LATIN SMALL LETTER DOTLESS I, not i"),
    ],
)
def test_a_letter_that_looks_like_another_is_reported(statement, letter):
    assert look_alikes(statement) == (letter,)


@pytest.mark.parametrize(
    "statement",
    ["∀ {ι κ : Type u} (ν ρ : ι → ℝ) (α β : Type), hα γ ∧ ‖x₁ - y'‖ ≤ ε", "∀ n : ℕ, ∑ i, φ i = Ω", "naïve Erdős"],
)
def test_letters_of_ordinary_statements_are_not_reported(statement):
    assert look_alikes(statement) == ()
