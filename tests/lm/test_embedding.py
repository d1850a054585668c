"""Texts are embedded into one file, in parts that survive an interruption and can be shared by workers."""

from pathlib import Path

import pytest
import torch

from monge.fleet import processes, sequential
from monge.lm.embed import Embedding, embed, vectors_of
from monge.lm.store import Vectors

KEYS = [f"id-{k}" for k in range(10)]
TEXTS = ["( ph -> ps )", "A e. B", "-. ch ph ps", "A", "( A u. B ) = ( B u. A )"] * 2


def rows(path: Path) -> dict[str, torch.Tensor]:
    return {key: row for _, group in Vectors(path).portions() for key, row in group}


@pytest.mark.slow
def test_every_fleet_writes_the_same_file(language_model: Path, tmp_path: Path) -> None:
    for name, fleet in (("here", sequential), ("two", processes(2))):
        steps = list(embed(KEYS, TEXTS, Embedding(str(language_model), 2), tmp_path / name, fleet, size=3))
        assert steps == [(k, 4) for k in range(1, 5)]
    one, two = (rows(tmp_path / name) for name in ("here", "two"))
    assert list(one) == list(two) == KEYS
    assert all(torch.equal(one[key], two[key]) for key in KEYS)
    assert not list(tmp_path.glob("*.parts"))


def test_finished_parts_are_kept_and_another_embedding_is_rejected(language_model: Path, tmp_path: Path) -> None:
    out, embedding = tmp_path / "x.parquet", Embedding(str(language_model), 1)
    steps = embed(KEYS, TEXTS, embedding, out, sequential, size=3)
    assert [next(steps), next(steps)] == [(1, 4), (2, 4)]
    steps.close()  # the interruption
    with pytest.raises(ValueError, match=r"000000-\w+\.parquet: made with another model or other settings"):
        next(embed(KEYS, TEXTS, Embedding(str(language_model), 2), out, sequential, size=3))
    edited = [TEXTS[0] + " u", *TEXTS[1:]]  # the first part has to be made again, the second is kept
    assert list(embed(KEYS, edited, embedding, out, sequential, size=3)) == [(2, 4), (3, 4), (4, 4)]
    assert Vectors(out).ids() == KEYS
    torch.testing.assert_close(rows(out)[KEYS[0]], vectors_of(embedding, edited[:1])[0].half())
    assert Vectors(out).fingerprint["layer"] == "1"


@pytest.mark.parametrize(("layer", "length", "message"), [(4, 8, "layer 4: .* has 3 blocks"), (1, 0, "max_length 0: ")])
def test_settings_that_a_model_does_not_support_are_rejected_before_writing(
    language_model: Path, tmp_path: Path, layer: int, length: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(embed(KEYS, TEXTS, Embedding(str(language_model), layer, length), tmp_path / "x.parquet", sequential))
    assert not list(tmp_path.iterdir())


def test_a_pooled_embedding_is_one_vector_of_the_kept_part(language_model: Path) -> None:
    texts, name = ["A e. B", "( A u. B ) = ( B u. A )"], str(language_model)
    rows = vectors_of(Embedding(name, 2), texts)
    for pooling, expected in (("mean", [row.mean(0) for row in rows]), ("last", [row[-1] for row in rows])):
        pooled = vectors_of(Embedding(name, 2, pooling=pooling), texts)
        assert all(row.shape[0] == 1 for row in pooled)
        torch.testing.assert_close(torch.cat(pooled), torch.stack(expected))
    (end,) = vectors_of(Embedding(name, 0, 3, keep="end"), texts[1:])
    torch.testing.assert_close(end, vectors_of(Embedding(name, 0), texts[1:])[0][-3:])
    fingerprints = [Embedding(name, 2, pooling=pooling).fingerprint() for pooling in ("none", "mean", "last")]
    assert len({str(one) for one in fingerprints}) == 3
