"""Measures of an energy over proof states on held-out theorems."""

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from monge.apps.prove.contrast import ContrastBatch


def quality(model: Any, batches: Sequence[ContrastBatch]) -> dict[str, float]:
    """Measures of an energy on at least one batch.

    The share of positive states that rank first and that of a random energy (chance), the standard deviation of the energies,
    the mean error of the remaining depth in steps and, where they are defined, the share of negatives above their positive one,
    the mean gap between them, and Spearman's correlation of predicted and true remaining depth.
    """
    energy, mask, depth = _outputs(model, batches)
    gap, exists = energy[:, 1:] - energy[:, :1], mask[:, 1:]
    defined = all(len(set(part.tolist())) > 1 for part in depth)
    pairs = {"pairwise": (gap[exists] > 0).double().mean(), "gap": gap[exists].double().mean()}
    correlation: Any = spearmanr(*depth.numpy()) if defined else None
    return {
        "top-1": ((gap > 0) | ~exists).all(1).double().mean().item(),
        "chance": (1 / mask.sum(1)).double().mean().item(),
        **({name: value.item() for name, value in pairs.items()} if exists.any() else {}),
        "spread": energy[mask].double().std().item(),
        "depth error (steps)": (depth[0] - depth[1]).abs().double().mean().item(),
        **({"depth correlation": float(correlation.statistic)} if defined else {}),
    }


def alarms(measures: dict[str, float], losses: Sequence[float]) -> list[str]:
    """Sentences about an energy that has collapsed, has the wrong sign, or overfits; `losses` are held-out, in order."""
    found: list[str] = []
    if measures["spread"] < 1e-3:
        found.append(f"The energy has collapsed: its standard deviation is {measures['spread']:.2g}.")
    if measures.get("gap", 0.0) < 0:
        found.append(f"The energy has the wrong sign: states on proofs are {-measures['gap']:.2g} higher than others.")
    if losses and losses[-1] > 1.05 * min(losses):
        found.append(
            f"Overfitting: the held-out loss rose from {min(losses):.3f} to {losses[-1]:.3f}; the best checkpoint is used."
        )
    return found


def calibration(model: Any, batches: Sequence[ContrastBatch]) -> list[dict[str, float]]:
    """For each true remaining depth, in steps: the number of draws of positive states, and the mean and the standard deviation
    of their predicted depth."""
    predicted, true = _outputs(model, batches)[2]
    rows: list[dict[str, float]] = []
    for steps in true.unique().tolist():
        part = predicted[true == steps].double()
        spread = part.std(correction=0).item()
        rows.append({"remaining": int(steps), "draws": len(part), "predicted": part.mean().item(), "spread": spread})
    return rows


@torch.no_grad()
def _outputs(model: Any, batches: Sequence[ContrastBatch]) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of candidates, (B, 1 + K), the positive one first; their mask; predicted and true remaining depths, (2, B)."""
    energies: list[Tensor] = []
    masks: list[Tensor] = []
    depths: list[Tensor] = []
    for batch in batches:
        part = batch.to(next(model.parameters()).device)
        energy, depth = model.both(part.candidates.x)
        energies.append(energy[part.candidates.index].cpu())
        assert batch.candidates.mask is not None
        masks.append(batch.candidates.mask)
        depths.append(torch.stack([depth[part.candidates.index[:, 0]].expm1().cpu(), batch.remaining]))
    return torch.cat(energies), torch.cat(masks), torch.cat(depths, 1)
