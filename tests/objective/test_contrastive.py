"""InfoNCE and the margin loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.objective.contrastive import Candidates, InfoNCE, Margin, info_nce


def energy(x):
    """The only entry of each candidate."""
    return x.flatten(1).sum(1)


def contrast(*rows, mask=None):
    return Candidates(torch.tensor(rows, dtype=torch.float64)[..., None], mask)


@pytest.mark.parametrize("candidates", [2, 5, 100])
def test_equal_energies_cost_log_k(candidates):
    loss = InfoNCE()(energy, Candidates(torch.zeros(3, candidates, 2, dtype=torch.float64)))
    assert float(loss.value) == pytest.approx(math.log(candidates))
    assert float(loss.metrics["accuracy"]) == 0


@given(seed=st.integers(0, 2**31))
def test_infonce_is_the_cross_entropy_of_the_first(draw, seed):
    x = draw(seed, 4, 6, 3)
    expected = torch.nn.functional.cross_entropy(-x.sum(-1) / 0.3, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(InfoNCE(temperature=0.3)(energy, Candidates(x)).value, expected)


@pytest.mark.parametrize("objective", [InfoNCE(), Margin()], ids=["infonce", "margin"])
@given(seed=st.integers(0, 2**31))
def test_masked_candidates_change_nothing(draw, objective, seed):
    x = draw(seed, 3, 5, 2)
    mask = torch.tensor([[True, True, False, True, False]]).expand(3, 5)
    with_absent, without = objective(energy, Candidates(x, mask)), objective(energy, Candidates(x[:, [0, 1, 3]]))
    torch.testing.assert_close(with_absent.value, without.value)
    assert with_absent.metrics["accuracy"] == without.metrics["accuracy"]


def test_a_row_with_one_candidate_costs_nothing():
    alone = contrast([3.0, 0.0], mask=torch.tensor([[True, False]]))
    for objective in (InfoNCE(), Margin()):
        loss = objective(energy, alone)
        assert (float(loss.value), float(loss.metrics["accuracy"])) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [([0.0, 1.0, 5.0], 0.0), ([0.0, 0.0, 0.0], 1.0), ([0.0, 0.4, 3.0], 0.3), ([2.0, 0.0, 0.0], 3.0)],
)
def test_the_margin_loss_is_the_mean_shortfall(row, expected):
    assert float(Margin()(energy, contrast(row)).value) == pytest.approx(expected)


def test_the_margin_loss_is_a_mean_over_candidates_of_all_rows():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    batch = contrast([0.0, 0.0, 0.0], [0.0, 5.0, 0.0], mask=mask)
    assert float(Margin(margin=3.0)(energy, batch).value) == pytest.approx(2.0)


def test_accuracy_is_the_share_of_rows_whose_correct_candidate_is_lowest():
    batch = contrast([0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [1.0, 1.0, 2.0], [-1.0, 3.0, 0.0])
    assert float(InfoNCE()(energy, batch).metrics["accuracy"]) == 0.5


@pytest.mark.parametrize("objective", [InfoNCE(), Margin()], ids=["infonce", "margin"])
def test_a_step_lowers_the_correct_energy_and_raises_the_others(objective):
    x = torch.zeros(2, 3, 1, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    objective(energy, Candidates(x, mask)).value.backward()
    assert (x.grad[:, 0] > 0).all()
    assert (x.grad[:, 1] < 0).all()
    assert x.grad[0, 2] < 0
    assert x.grad[1, 2] == 0


def test_the_error_names_a_row_without_a_correct_candidate():
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    with pytest.raises(ValueError, match="row 2 has no correct candidate"):
        Candidates(torch.zeros(3, 2, 1), mask)


@given(seed=st.integers(0, 2**31))
def test_infonce_of_vectors_is_that_of_the_energies_of_all_pairs(draw, seed):
    """With the energy 1 - cos, and with each query's own key as the first candidate."""
    q, k = draw(seed, 5, 3), draw(seed + 1, 5, 3)
    turned = torch.stack([k.roll(-row, 0) for row in range(5)])
    energy = 1 - torch.nn.functional.cosine_similarity(q[:, None], turned, dim=-1)
    expected = InfoNCE(temperature=0.2)(lambda x: x.flatten(), Candidates(energy[..., None])).value
    torch.testing.assert_close(info_nce(q, k, temperature=0.2), expected)
    torch.testing.assert_close(info_nce(7 * q, 0.1 * k, temperature=0.2), expected)


@given(seed=st.integers(0, 2**31))
def test_infonce_counts_other_keys_but_masks_copies_of_its_own_key(draw, seed):
    q, k, others = draw(seed, 4, 3), draw(seed + 1, 4, 3), draw(seed + 2, 6, 3)
    reference = info_nce(q, k, others)
    torch.testing.assert_close(info_nce(q, k, torch.cat([others, 2 * k[:1]])) > reference, torch.tensor(True))
    alone = info_nce(q[:1], k[:1], others)
    torch.testing.assert_close(info_nce(q[:1], k[:1], torch.cat([others, 2 * k[:1]])), alone)
    assert alone > info_nce(q[:1], k[:1], others[:3])


def test_infonce_recognises_its_own_key_under_autocast(draw):
    k = draw(0, 16, 64).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert float(info_nce(k, k, k)) < 0.01


def test_conditions_and_token_masks_follow_their_candidates(draw):
    """With an energy that counts existing tokens of its kind, the result equals that of each candidate alone."""
    x, mask = draw(0, 3, 4, 5, 2), draw(1, 3, 4, 5) > 0
    kind = torch.arange(12).reshape(3, 4)

    def model(x, cond):
        return (x.sum(-1) * cond["mask"]).sum(-1) * cond["kind"]

    energies = Candidates(x, cond={"mask": mask, "kind": kind}).energies(model)
    for row in range(3):
        for k in range(4):
            expected = x[row, k][mask[row, k]].sum() * kind[row, k]
            torch.testing.assert_close(energies[row, k], expected)


def test_all_parts_of_the_candidates_move_to_the_device(draw):
    batch = Candidates(draw(0, 3, 4, 2), torch.ones(3, 4, dtype=torch.bool), {"kind": torch.zeros(3, 4)}).to("cpu")
    assert len(batch) == 3
    assert set(batch.cond) == {"kind"}
    assert batch.to("cpu").mask is not None


def test_candidates_of_inconsistent_shapes_are_rejected(draw):
    with pytest.raises(ValueError, match=r"cond\['kind'\] has shape \(3,\) for \(3, 4\) candidates"):
        Candidates(draw(0, 3, 4, 2), cond={"kind": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"returned \(12, 2\) for 12 candidates"):
        Candidates(draw(0, 3, 4, 2)).energies(lambda x: x)
