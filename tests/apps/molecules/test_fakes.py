"""Fake atoms: added in training, removed from samples; and the parametrisations of the positions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from monge.apps.molecules.atoms import FAKE, NUMBERS, AtomType
from monge.apps.molecules.fakes import num_fakes, with_fakes
from monge.apps.molecules.generator import Drawn, Generator
from monge.apps.molecules.network import MoleculeNet, Shape, centred
from monge.math.random import seeded
from monge.math.types import Pair
from monge.objective.alignment import Alignment, CachedTargets


def batch(sizes: list[int], types: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Molecules with random positions and with types that number their atoms: 1, 2, 3, ..."""
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    x = torch.zeros(*mask.shape, 3 + types)
    x[..., :3] = torch.randn(*mask.shape, 3, generator=seeded(0))
    x[..., 3] = torch.arange(1, max(sizes) + 1)
    return x * mask[..., None], mask


def test_real_atoms_keep_their_order_distances_and_targets():
    x, mask = batch([9, 4, 6])
    target = torch.randn(*mask.shape, 5, generator=seeded(1))
    seen = set()
    for seed in range(80):
        new, exists, aligned = with_fakes(x, mask, target, share=0.5, spread=0.1, generator=seeded(seed))
        assert aligned is not None
        for row, size in enumerate(mask.sum(1).tolist()):
            atoms, features = new[row][exists[row]], aligned[row][exists[row]]
            fake = atoms[:, -1] == 1
            assert len(atoms) - fake.sum() == size
            seen.add((size, int(fake.sum())))
            assert torch.equal(atoms[~fake, 3], x[row, :size, 3])
            torch.testing.assert_close(torch.cdist(*[atoms[~fake, :3]] * 2), torch.cdist(*[x[row, :size, :3]] * 2))
            assert torch.equal(features[~fake], target[row, :size])
            assert (features[fake] == 0).all()
            if fake.any():  # near an atom
                assert torch.cdist(atoms[fake, :3], atoms[~fake, :3]).min(1).values.max() < 0.6
        assert (new[~exists] == 0).all()
        assert new[..., :3].sum(1).abs().max() < 1e-5
    assert {count for size, count in seen if size == 9} == {0, 1, 2, 3, 4}
    assert {count for size, count in seen if size == 4} == {0, 1, 2}


def test_fake_atoms_are_anywhere_in_the_order():
    x, mask = batch([9] * 200)
    new, _, _ = with_fakes(x, mask, None, share=0.5, spread=0.1, generator=seeded(0))
    place = (new[..., -1] == 1).float()
    share = (place * torch.linspace(0, 1, place.shape[1])).sum() / place.sum()
    assert 0.3 < share < 0.6
    assert place[:, 0].mean() > 0.05


def test_sampled_sizes_include_fake_atoms():
    sizes = torch.zeros(11)
    sizes[10] = 1
    counts = {
        fakes: Generator(torch.nn.Identity(), [0, FAKE], 1.0, sizes, fakes).mask(400).sum(1) for fakes in (0.0, 0.3)
    }
    assert set(counts[0.0].tolist()) == {10}
    draws = seeded(0)
    num_fakes(torch.full((5,), 10), 0.0, generator=draws)  # without fake atoms, samples do not change
    assert torch.equal(torch.rand(3, generator=draws), torch.rand(3, generator=seeded(0)))
    assert set(counts[0.3].tolist()) == {10, 11, 12, 13}


def test_zero_targets_do_not_count_in_the_alignment():
    """Fake atoms have no targets: with them, the alignment of the real atoms stays the same."""
    x, mask = batch([5, 4])
    target = torch.randn(*mask.shape, 6, generator=seeded(1))
    torch.manual_seed(0)
    hidden = torch.randn(*mask.shape, 4)

    class Shows:
        def __call__(self, x_t, t, cond=None):
            return x_t

        def with_features(self, x_t, t, cond, layer):
            return x_t, cond["hidden"]

    for spatial in (False, True):
        torch.manual_seed(0)
        targets = CachedTargets(lambda x: x, key="target")
        align = Alignment(targets, layer=1, width=4, features=6, hidden=8, spatial=spatial)
        values = []
        for extra in (0, 2):
            pads = [torch.nn.functional.pad(part, (0, 0, 0, extra)) for part in (x, target, hidden)]
            exists = torch.nn.functional.pad(mask, (0, extra), value=True)
            pads[1] = torch.where(exists[..., None], pads[1], torch.nan)
            pair = Pair(pads[0], pads[0], exists, {"target": pads[1], "hidden": pads[2] + 1.0 * (pads[2] == 0)})
            values.append(align(Shows(), pads[0], torch.zeros(2), pair)[1])
        torch.testing.assert_close(*values)


def test_numbers_of_fake_atoms_are_uniform_up_to_the_share():
    counts = num_fakes(torch.full((6000,), 10), 0.3, generator=seeded(0)).bincount()
    assert len(counts) == 4
    assert (counts - 1500).abs().max() < 150
    assert num_fakes(torch.full((10,), 3), 0.0).sum() == 0


def test_fake_atoms_are_removed_from_a_sample():
    methyl, oxygen = NUMBERS[AtomType("C", 3, 4)], NUMBERS[AtomType("O", 1, 2)]
    probability = np.array([[0.9, 0.05, 0.05], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
    positions = np.array([[0.0, 0, 0], [0.7, 0.5, 0], [1.43, 0, 0]])
    result = Drawn(probability, [methyl, oxygen, FAKE], positions).molecule()
    assert result.types == (methyl, oxygen)
    assert result.valid
    np.testing.assert_array_equal(result.positions, positions[[0, 2]])
    only_fakes = Drawn(np.eye(3)[[2, 2]], [methyl, oxygen, FAKE], positions[:2]).molecule()
    assert only_fakes.reason == "no atoms"


@pytest.mark.parametrize(("kind", "scales"), [("velocity", [1.0, 0.25, 0.0]), ("residual", [1.0, 0.957826, 0.0])])
def test_a_correction_is_scaled_by_the_noise_that_is_left(kind: Any, scales: list[float]):
    """With the same weights, x_1 = x_t + c d, where d is the displacement that `--prediction x_1` computes."""
    shape = Shape(width=16, depth=1, heads=2, architecture="transformer")
    x, mask = batch([4, 3, 4])
    nets = [MoleculeNet(3, replace(shape, prediction=name), scale=1.0) for name in ("x_1", kind)]
    nets[1].load_state_dict(nets[0].state_dict())
    t = torch.tensor([0.0, 0.75, 1.0])
    x = torch.cat([centred(x[..., :3], mask), x[..., 3:]], -1)
    end, other = (net(x, t, {"mask": mask}) for net in nets)
    expected = x[..., :3] + torch.tensor(scales)[:, None, None] * (end[..., :3] - x[..., :3])
    torch.testing.assert_close(other[..., :3], expected)
    torch.testing.assert_close(other[..., 3:], end[..., 3:])
