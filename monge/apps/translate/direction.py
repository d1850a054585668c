"""The side of a run that a file of vectors belongs to: by fingerprint, or by the statistics of the run's calibration."""

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
"""A side is clear if this share of sequences is likelier there, by this many nats a vector, at most this far out."""


class Likeness(NamedTuple):
    """Agreement of a sample of sequences with the Gaussians that both calibrations describe."""

    source: float  # share of the sequences that are likelier under the source's Gaussian
    nats: float  # mean of |log-likelihood ratio| per vector
    distance: (
        float  # mean squared distance from the likelier side's centre, whitened, per entry: about 1 for its own vectors
    )

    @property
    def end(self) -> str | None:
        """The side that the sample clearly comes from; None if that is unclear."""
        if self.nats < NATS or self.distance > FAR or 1 - AGREE < self.source < AGREE:
            return None
        return ENDS[self.source <= 1 - AGREE]

    @property
    def reason(self) -> str:
        """The reason why the side is unclear."""
        if self.nats < NATS or self.distance <= FAR:
            return "by their statistics they could be of either side"
        return "by their statistics they are like neither side"


def likeness(sequences: Sequence[Float[Tensor, "_ D"]], calibration: Calibration) -> Likeness:
    """The likeness of uncalibrated sequences to both sides."""
    logs, squares = [], []
    for end in ENDS:
        side = calibration.side(end)
        square = torch.stack([side.apply(x).double().square().sum(-1).mean() for x in sequences])
        logs.append(torch.linalg.slogdet(side.matrix.double()).logabsdet - square / 2)
        squares.append(square / len(side.centre))
    ratio = logs[0] - logs[1]
    share = float((ratio > 0).double().mean() + (ratio == 0).double().mean() / 2)
    nearer = squares[0] if share >= 0.5 else squares[1]
    return Likeness(share, float(ratio.abs().mean()), float(nearer.mean()))


def direction(vectors: Vectors, opened: Opened, *, reverse: bool, forward: bool, sample: int = 256) -> tuple[bool, str]:
    """(True to translate from the target's side, a note for the user). ValueError if the file is not of the side asked for.

    Fingerprints decide where those of the run's sides differ. Elsewhere a flag decides, and without one the statistics of the
    first `sample` usable sequences must be clear.
    """
    if reverse and forward:
        raise ValueError("--forward and --reverse exclude each other; give one")
    made, origins = origin(vectors.fingerprint), [int(opened.constants[f"{end}_origin"]) for end in ENDS]
    start, end = ENDS[reverse], ENDS[not reverse]
    if made not in origins:
        named = f"the run's {start} was" if origins[0] != origins[1] else "the run's sides were"
        raise ValueError(f"{vectors.path}: not made as {named}; embed by the same model and layer, in the same way")
    if origins[0] != origins[1]:
        if made != origins[reverse]:
            raise ValueError(
                f"{vectors.path}: these are vectors of the {end}; "
                + ("leave out --reverse" if reverse else "give --reverse")
            )
        return reverse, ""
    rows = (row.float() for _, portion in vectors.portions([]) for _, row in portion)
    if not (sequences := list(islice(rows, sample))):
        raise ValueError(f"{vectors.path}: no row can be used")
    seen = likeness(sequences, Calibration.of(opened.constants))
    if reverse or forward:
        doubt = seen.end not in (None, start)
        return reverse, f"note: these look like vectors of the {end}" if doubt else ""
    if seen.end is None:
        raise ValueError(
            f"{vectors.path}: no fingerprint tells the side of these vectors, and {seen.reason}; give --forward or --reverse"
        )
    if seen.end == "target":
        raise ValueError(
            f"{vectors.path}: these look like vectors of the target; give --reverse, or --forward if they are of the source"
        )
    return False, ""
