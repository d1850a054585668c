"""Sampling from a trained run: guidance, solvers, trajectories, likelihood."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.generate.dataset import POINTS, Layout
from monge.math.cost import Units
from monge.math.density import Density, bits_per_dimension, log_likelihood
from monge.math.path import Affine
from monge.math.solve import integrate, time_grid, trajectory
from monge.math.solvers import SOLVERS
from monge.math.types import Pair, Velocity, pad_like


@dataclass(frozen=True)
class Guidance:
    """v = weak + weight (strong - weak) inside the interval of t, the strong velocity outside it.

    The weak velocity is that of the same network without the class (Ho & Salimans 2207.12598), or of an early checkpoint
    (autoguidance, Karras et al. 2406.02507). The interval follows Kynkaanniemi et al. 2404.07724. Weight 1 is no guidance.
    """

    weight: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)

    def apply(self, strong: Velocity, weak: Velocity) -> Velocity:
        """The guided velocity. The weak one is evaluated only if a t of the batch is inside the interval."""
        low, high = self.interval

        def guided(x: Tensor, t: Tensor) -> Tensor:
            v = strong(x, t)
            inside = (t >= low) & (t <= high)
            if self.weight == 1 or not bool(inside.any()):
                return v
            weak_v = weak(x, t)
            return torch.where(pad_like(inside, x), weak_v + self.weight * (v - weak_v), v)

        return guided


@dataclass(frozen=True)
class Sampling:
    """The integration from noise to data: the number of steps, the solver by name, and the guidance of the velocity."""

    steps: int = 25
    solver: str = "euler"
    guidance: Guidance | None = None


SAMPLING = Sampling()


@dataclass(frozen=True)
class Generator:
    """A trained network with the units, path and layout that sampling needs. Computes on `device` and returns CPU tensors."""

    model: nn.Module
    path: Affine
    units: Units
    shape: tuple[int, ...]
    classes: int
    levels: float  # maximum of images with integer values 0 .. levels; 0 for other data
    weak: nn.Module | None = None  # for autoguidance
    device: torch.device | str = "cpu"
    layout: Layout = POINTS

    def noise(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n *s"]:
        """Gaussian noise, the start of the flow."""
        return torch.randn(n, *self.shape, generator=generator)

    def labels(self, n: int) -> Int[Tensor, "n"] | None:
        """n labels that cycle through the classes; None if there are no classes."""
        return torch.arange(n) % self.classes if self.classes else None

    def velocity(self, labels: Int[Tensor, "B"] | None, guidance: Guidance | None = None) -> Velocity:
        """The velocity for these labels, guided. ValueError for guidance without labels or a weak network."""
        cond = {} if labels is None else {"label": labels.to(self.device)}

        def strong(x: Tensor, t: Tensor) -> Tensor:
            return self.model(x, t, cond)

        def weak(x: Tensor, t: Tensor) -> Tensor:
            return self.weak(x, t, cond) if self.weak is not None else self.model(x, t, {})

        if guidance is None or guidance.weight == 1:
            return strong
        if self.weak is None and labels is None:
            raise ValueError(
                "guidance: the run has no classes; give an early checkpoint for autoguidance (--weak STEP)"
            )
        return guidance.apply(strong, weak)

    def states(
        self, x_0: Float[Tensor, "B *s"], labels: Int[Tensor, "B"] | None, sampling: Sampling = SAMPLING
    ) -> Iterator[Float[Tensor, "B *s"]]:
        """The states along the flow, starting with x_0, in the network's units."""
        v, x_0 = self.velocity(labels, sampling.guidance), x_0.to(self.device)
        with torch.no_grad():
            for x in trajectory(v, x_0, sampling.steps, step=SOLVERS[sampling.solver][0](self.path)):
                yield x.cpu()

    def sample(
        self,
        n: int,
        sampling: Sampling = SAMPLING,
        *,
        labels: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "n *s"], Int[Tensor, "n"] | None]:
        """(n samples in the data's units, their labels). By default, labels cycle through the classes."""
        labels = self.labels(n) if labels is None else labels
        x_0 = self.noise(n, generator=generator)
        return self.restore(self.end(x_0, labels, sampling)), labels

    def end(
        self,
        x_0: Float[Tensor, "B *s"],
        labels: Int[Tensor, "B"] | None,
        sampling: Sampling = SAMPLING,
        *,
        size: int = 512,
    ) -> Float[Tensor, "B *s"]:
        """The end of the flow from x_0, in the network's units, computed in batches of `size`."""
        parts: list[Tensor] = []
        for start in range(0, len(x_0), size):
            rows = slice(start, start + size)
            x, v = x_0[rows].to(self.device), self.velocity(None if labels is None else labels[rows], sampling.guidance)
            with torch.no_grad():
                x = integrate(v, x, sampling.steps, step=SOLVERS[sampling.solver][0](self.path))
            parts.append(x.cpu())
        return torch.cat(parts)

    def pairs(self, labels: Int[Tensor, "n"] | None, n: int, *, generator: torch.Generator) -> Pair:
        """n pairs of noise and the samples it flows to, by 50 midpoint steps, in the network's units. For reflow."""
        x_0 = self.noise(n, generator=generator)
        x_1 = self.end(x_0, labels, Sampling(50, "midpoint"))
        return Pair(x_0, x_1, cond={} if labels is None else {"label": labels})

    def restore(self, x: Float[Tensor, "B *s"]) -> Float[Tensor, "B *s"]:
        """Convert from the network's units to the data's; images are clipped to their range."""
        x = self.units.undo(x.flatten(1)).reshape(x.shape)
        bounds = self.bounds
        return x if bounds is None else x.clamp(*bounds)

    def normalise(self, x: Float[Tensor, "B *s"]) -> Float[Tensor, "B *s"]:
        """Convert from the data's units to the network's."""
        return self.units.apply(x.flatten(1)).reshape(x.shape).float()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range to which samples are clipped; None if the data have no range."""
        return (0.0, self.levels) if self.levels else self.layout.bounds

    def label_number(self, name: str) -> int:
        """The label of the class with this name or, unless all names are numbers, this number. ValueError if none matches."""
        names = self.layout.classes or tuple(str(k) for k in range(self.classes))
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(names) and not all(n.lstrip("-").isdecimal() for n in names):
            return int(name)
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"label {name}: the run has {self.classes} classes" + (f": {shown}" if names else ""))

    def log_likelihood(
        self,
        x: Float[Tensor, "B *s"],
        labels: Int[Tensor, "B"] | None,
        *,
        steps: int = 50,
        solver: str = "midpoint",
        probes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Density, Float[Tensor, "B"]]:
        """(density, bits per dimension), both in the data's units. Pixels are dequantised by uniform noise one level wide.

        `probes` is the number of Hutchinson probes for the divergence; None computes it exactly.
        """
        if self.levels:
            x = x + torch.rand(x.shape, generator=generator) - 0.5
        normalised = self.normalise(x)
        times = time_grid(steps, normalised, start=1.0, end=0.0).to(self.device)
        step, v = SOLVERS[solver][0](self.path), self.velocity(labels)
        with torch.no_grad():
            flow = log_likelihood(v, normalised.to(self.device), times, step=step, probes=probes, generator=generator)
        log_prob = flow.log_prob.cpu() - self.units.scale.log().sum().float()
        density = Density(log_prob, flow.standard_error.cpu(), flow.x_0.cpu(), flow.evaluations)
        return density, bits_per_dimension(log_prob, math.prod(self.shape))
