"""Detection of the side that a file of vectors belongs to, by fingerprint or by the statistics of the run's calibration."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.calibrate import Calibration
from monge.apps.translate.pair import ENDS, origin
from monge.lm.store import Vectors
from monge.runs import Opened

AGREE, NATS, FAR = 0.9, 5.0, 3.0
"""Thresholds for a clear decision: minimum share of sequences in favour, minimum nats per vector, maximum distance."""


class Similarity(NamedTuple):
    """Fit of a sample of sequences to the Gaussians of the source's and the target's calibration."""

    source: float  # share of the sequences that are likelier under the source's Gaussian
    nats: float  # mean of |log-likelihood ratio| per vector
    # mean squared whitened distance per entry from the likelier side's centre; about 1 for vectors of that side
    distance: float

    @property
    def end(self) -> str | None:
        """The side that the sample clearly belongs to; None if unclear."""
        if self.nats < NATS or self.distance > FAR or 1 - AGREE < self.source < AGREE:
            return None
        return ENDS[self.source <= 1 - AGREE]

    @property
    def reason(self) -> str:
        """The reason why the side is unclear."""
        if self.nats < NATS or self.distance <= FAR:
            return "the statistics fit either side"
        return "the statistics fit neither side"


def similarity(sequences: Sequence[Float[Tensor, "_ D"]], calibration: Calibration) -> Similarity:
    """The fit of uncalibrated sequences to both sides."""
    logs, squares = [], []
    for end in ENDS:
        side = calibration.side(end)
        square = torch.stack([side.apply(x).double().square().sum(-1).mean() for x in sequences])
        logs.append(torch.linalg.slogdet(side.matrix.double()).logabsdet - square / 2)
        squares.append(square / len(side.centre))
    ratio = logs[0] - logs[1]
    share = float((ratio > 0).double().mean() + (ratio == 0).double().mean() / 2)
    nearer = squares[0] if share >= 0.5 else squares[1]
    return Similarity(share, float(ratio.abs().mean()), float(nearer.mean()))


def direction(vectors: Vectors, opened: Opened, *, reverse: bool, forward: bool, sample: int = 256) -> tuple[bool, str]:
    """(True to translate from the target side, a note for the user).

    If the fingerprints of the run's sides differ, that of the file must be that of the requested side. If they do not, the
    file must have the same one, and a flag decides, with a note if the statistics of the first `sample` usable sequences
    contradict it; without a flag, the statistics must clearly point to the source. ValueError if a condition is not met.
    """
    if reverse and forward:
        raise ValueError("--forward and --reverse are mutually exclusive; pass only one")
    file_origin, origins = origin(vectors.fingerprint), [int(opened.constants[f"{end}_origin"]) for end in ENDS]
    start, end = ENDS[reverse], ENDS[not reverse]
    if file_origin not in origins:
        expected = f"the run's {start}" if origins[0] != origins[1] else "the run's two sides"
        raise ValueError(f"{vectors.path}: not embedded like {expected}; use the same model, layer and settings")
    if origins[0] != origins[1]:
        if file_origin != origins[reverse]:
            raise ValueError(
                f"{vectors.path}: these are {end} vectors; " + ("omit --reverse" if reverse else "pass --reverse")
            )
        return reverse, ""
    rows = (row.float() for _, portion in vectors.portions([]) for _, row in portion)
    if not (sequences := list(islice(rows, sample))):
        raise ValueError(f"{vectors.path}: no usable rows; fix the file")
    fit = similarity(sequences, Calibration.of(opened.constants))
    if reverse or forward:
        contradicts = fit.end not in (None, start)
        return reverse, f"note: these look like {end} vectors" if contradicts else ""
    if fit.end is None:
        raise ValueError(
            f"{vectors.path}: cannot tell the side of these vectors: the run's sides share a fingerprint, and {fit.reason}; "
            "pass --forward or --reverse"
        )
    if fit.end == "target":
        raise ValueError(
            f"{vectors.path}: these look like target vectors; pass --reverse, or --forward if they are source vectors"
        )
    return False, ""
