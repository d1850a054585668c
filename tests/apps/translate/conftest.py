"""Small files of vectors with known targets: the source rotated, without every third token."""

from pathlib import Path

import pytest
import torch

from monge.apps.translate.pair import Pairs, pair
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed, Space
from monge.lm.store import Row, write

WIDTH = 16


def rotated(rows: list[Row]) -> list[Row]:
    """Each sequence, rotated by the same matrix, without every third token."""
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(5)))
    return [(key, (x @ q)[torch.arange(len(x)) % 3 != 2]) for key, x in rows]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source, target): 240 sequences of 3 to 12 vectors; the target's rows are in reverse order."""
    path, draws = tmp_path_factory.mktemp("vectors"), torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 13, (240,), generator=draws).tolist()
    rows = [(f"row-{k}", torch.randn(n, WIDTH, generator=draws)) for k, n in enumerate(lengths)]
    write(path / "a.parquet", [rows[:100], rows[100:]], dtype="float16", fingerprint={"model": "a"})
    target = rotated(rows)[::-1]
    write(path / "b.parquet", [target[:50], target[50:]], dtype="bfloat16", fingerprint={"model": "b"})
    return path / "a.parquet", path / "b.parquet"


@pytest.fixture(scope="session")
def pairs(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    out = tmp_path_factory.mktemp("pairs") / "pairs"
    pair(*files, out, capacity=12)
    return Pairs(out)


@pytest.fixture(scope="session")
def packed(pairs: Pairs) -> Packed:
    return Packed(pairs, Space.measured(pairs, Prices()))
