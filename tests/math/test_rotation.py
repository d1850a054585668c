"""Optimal rotations, and the coupling that turns targets onto their sources."""

import pytest
import torch
from torch import Tensor

from monge import Pair
from monge.math.rotation import RotationOT, kabsch, random_rotations, rotated


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def rotations(count: int) -> Tensor:
    q, _ = torch.linalg.qr(draws(count, 3, 3))
    return q * torch.linalg.det(q)[:, None, None]


def centred(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


def test_a_rotation_is_recovered_and_padding_does_not_count():
    x, turn = centred(draws(6, 9, 3)), rotations(6)
    mask = torch.arange(9) < torch.tensor([9, 8, 7, 5, 4, 4])[:, None]
    y = torch.where(mask[..., None], x @ turn.mT, draws(6, 9, 3))
    torch.testing.assert_close(kabsch(x, y, mask), turn, atol=1e-4, rtol=0)


@pytest.mark.parametrize("permute", [False, True])
def test_autocast_does_not_change_the_coupling(permute: bool):
    pair = Pair(centred(draws(3, 7, 3)), centred(draws(4, 7, 3)[1:]))
    expected = RotationOT(permute=permute)(pair)
    with torch.autocast("cpu", torch.bfloat16):
        coupled = RotationOT(permute=permute)(pair)
    assert torch.equal(coupled.x_0, expected.x_0)
    assert torch.equal(coupled.x_1, expected.x_1)


def test_no_other_rotation_is_nearer_and_none_is_a_reflection():
    x, y = centred(draws(20, 5, 3)), centred(draws(21, 5, 3)[1:])
    best = kabsch(x, y)
    torch.testing.assert_close(torch.linalg.det(best), torch.ones(20), atol=1e-4, rtol=0)
    distance = (x @ best.mT - y).square().sum((1, 2))
    for other in rotations(50):
        assert (distance <= (x @ other.mT - y).square().sum((1, 2)) + 1e-4).all()
    mirrored = torch.linalg.det(kabsch(x, -x))
    torch.testing.assert_close(mirrored, torch.ones(20), atol=1e-4, rtol=0)


@pytest.mark.parametrize("permute", [False, True])
def test_the_coupling_keeps_shapes_and_other_entries_and_shortens_the_distance(permute: bool):
    mask = torch.arange(7) < torch.tensor([7, 5, 4])[:, None]
    x_0, x_1 = (draws(2, 3, 7, 5) * mask[..., None]).unbind()
    pair = Pair(x_0, x_1, mask, {"label": torch.arange(3)})
    coupled = RotationOT(permute=permute)(pair)
    torch.testing.assert_close(coupled.x_1[..., 3:], x_1[..., 3:])
    torch.testing.assert_close(coupled.x_1.square().sum((1, 2)), x_1.square().sum((1, 2)))
    before, after = ((p.x_1 - p.x_0)[..., :3].square().sum((1, 2)) for p in (pair, coupled))
    assert (after < before).all()
    assert (coupled.x_0[~mask] == 0).all()
    assert coupled.cond["label"].tolist() == [0, 1, 2]
    if permute:
        assert (after < (RotationOT()(pair).x_1 - x_0)[..., :3].square().sum((1, 2))).all()
        for row in range(3):
            assert sorted(map(tuple, coupled.x_0[row].tolist())) == sorted(map(tuple, x_0[row].tolist()))
    else:
        assert torch.equal(coupled.x_0, x_0)


def test_the_coupling_does_not_depend_on_the_orientation_of_the_target():
    x_0, x_1 = centred(draws(4, 6, 3)), centred(draws(5, 6, 3)[1:])
    turned = rotated(x_1, rotations(4))
    expected, result = (RotationOT()(Pair(x_0, x)).x_1 for x in (x_1, turned))
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_random_rotations_are_uniform():
    r = random_rotations(20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(r)))
    torch.testing.assert_close(r.mean(0), torch.zeros(3, 3), atol=0.02, rtol=0)
    torch.testing.assert_close(r.square().mean(0), torch.full((3, 3), 1 / 3), atol=0.01, rtol=0)
    assert (r[:, 0, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.02)
