"""Theorems of the training split that state nearly the same as a test theorem."""

import pytest

from monge.apps.prove import searching
from monge.apps.prove.contamination import normalised, overlaps
from monge.apps.prove.families import DATA, Entry
from monge.apps.prove.sources import Reading, entries_of
from monge.apps.prove.state import Theorem


def entry(name: str, signature: str, split: str) -> Entry:
    return Entry(Theorem(name, signature), "", "rfl", split=split, source="f")


TRAIN = [
    entry("renamed", "(x y : N) (k : x = y) : y + x = x + y", "train"),
    entry("commented", "(a b : N) -- two numbers\n    (h : a = b) :\n  b + a = a + b", "train"),
    entry("other", "(a b : N) (h : a = b) : b * a = a * b * a * b + a", "train"),
    entry("quantified", "∀ (u v : N), u = v → v + u = u + v", "train"),
]
TEST = [
    entry("asked", "(a b : N) (h : a = b) : b + a = a + b", "test"),
    entry("second", "∀ (a b : N), a = b → b + a = a + b", "test"),
]


def test_renamed_and_commented_statements_are_found_and_others_are_not():
    found = {(pair.train, pair.test) for pair in overlaps(TRAIN, TEST)}
    assert found == {("f.renamed", "f.asked"), ("f.commented", "f.asked"), ("f.quantified", "f.second")}
    assert all(pair.similarity == 1 for pair in overlaps(TRAIN, TEST))


def test_theorems_with_the_same_name_are_compared_one_by_one():
    other = entry("asked", "(n : N) : n * n * n = n", "train")
    copied = entry("asked", TEST[0].theorem.signature, "train")
    assert list(overlaps([other], TEST[:1])) == []
    assert [pair.similarity for pair in overlaps([copied, other], TEST[:1])] == [1.0]


def test_constants_are_not_renamed():
    assert normalised(Theorem("t", "(a : N) : P a")) != normalised(Theorem("t", "(a : N) : Q a"))


def test_the_benchmark_has_no_overlap():
    train, test = (entries_of(DATA, split) for split in ("train", "test"))
    assert list(overlaps(train, test)) == []


def test_a_replay_leaves_overlaps_out(capsys):
    reading, everything = Reading(list(TRAIN), []), Reading([*TRAIN, *TEST], [])
    searching._leave_out_overlaps(reading, everything)
    assert [one.key for one in reading.entries] == ["f.other"]
    assert "f.renamed is nearly the same as the test theorem f.asked (similarity 1.00)" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ValueError, match="every training theorem is nearly the same as a test theorem"):
        searching._leave_out_overlaps(Reading(TRAIN[:1], []), everything)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("(f : N → N) : ∀ x > 0, f x + x = x * f x", "(f : N → N) : ∀ y > 0, f y + y = y * f y"),
        (": (fun x ↦ x + x*x) = g", ": (fun t ↦ t + t*t) = g"),
        (": ∑ i ∈ s, i * i = ∑ j ∈ s, j * j", ": ∑ k ∈ s, k * k = ∑ l ∈ s, l * l"),
        ("⦃a b : N⦄ : a + b = b + a", "⦃x y : N⦄ : x + y = y + x"),
        (": ∃! x, x + 0 = x", ": ∃! y, y + 0 = y"),
    ],
)
def test_renamed_variables_of_every_binder_are_the_same(first: str, second: str) -> None:
    assert normalised(Theorem("t", first)) == normalised(Theorem("u", second))


def test_a_long_name_takes_no_longer() -> None:
    """Splitting the name into words in all ways would take 2^60 steps."""
    assert normalised(Theorem("t", f": ∀ {'a' * 60} ∈ S, True"))[2] == "#0"
