"""Networks that predict a clean molecule from a noisy one: equivariant, or a transformer (TABASCO, 2507.00899)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.math.types import Condition
from monge.nets.blocks import AdaLN, SwiGLU, rms_norm
from monge.nets.embed import sinusoidal

COARSE, FINE = 16, 25
"""Numbers of radial basis functions: over all distances, and over those of bonded atoms and their neighbours."""
CHANNELS = 32
"""Number of channels of the messages between atoms."""
SPREAD = 0.1
"""Standard deviation of positions given their surroundings, in units of the data's scale; a round number."""


@dataclass(frozen=True)
class Shape:
    """Architecture of the network."""

    width: int = 128
    """Number of hidden channels per atom."""
    depth: int = 6
    """Number of blocks."""
    heads: int = 8
    """Number of attention heads."""
    architecture: Literal["equivariant", "transformer"] = "equivariant"
    """Update of the positions: weighted differences of positions in each block (equivariant), or a linear map of the
    hidden state of a transformer that reads the coordinates (transformer)."""
    atom_index: bool = True
    """Let the network see the index of each atom in the canonical SMILES."""
    self_conditioning: bool = True
    """Let the network see its previous prediction."""
    prediction: Literal["residual", "x_1", "velocity"] = "residual"
    """Parametrisation of the positions, where o is the output of the last block and x_1 the clean positions that it stands for:
    x_1 = x_t + c (o - x_t) with c as in `residual_scale` (residual), 1 (x_1) or 1 - t (velocity)."""
    pooled: int = 0
    """Number of entries of the pooled token; 0 for a network without one."""


class Prediction(NamedTuple):
    """Output of the network."""

    end: Float[Tensor, "B N D"]
    """x_1, with logits in the place of the types."""
    pooled: Float[Tensor, "B F"] | None
    """The clean pooled token; None for a network without one."""
    features: Float[Tensor, "B N width"]
    """Hidden state of the atoms after a block."""


class Radial(nn.Module):
    """Gaussian functions of distances in angstroms, as features of pairs: wide ones up to 10, narrow ones from 0.9 to 3.3."""

    centres: Tensor
    width: Tensor

    def __init__(self) -> None:
        super().__init__()
        coarse, fine = torch.linspace(0, 10, COARSE), torch.linspace(0.9, 3.3, FINE)
        width = torch.cat([torch.full_like(coarse, 10 / (COARSE - 1)), torch.full_like(fine, 0.1)])
        self.register_buffer("centres", torch.cat([coarse, fine]), persistent=False)
        self.register_buffer("width", width, persistent=False)

    def forward(self, distance: Float[Tensor, "*b"]) -> Float[Tensor, "*b R"]:
        deviation = (distance[..., None] - self.centres) / self.width
        return torch.exp(
            (-0.5 * deviation.square()).clamp_min(-30)
        )  # numbers too small for float32 take ten times as long


class MoleculeBlock(nn.Module):
    """Attention between atoms with a bias from pair features, feed-forward and, if `moving`, messages between atoms that update
    their hidden states and positions. The pair features are given in parts, (B, N, N, F) or (1, N, N, F), F of them `pairs` in
    total."""

    def __init__(self, shape: Shape, pairs: int, *, moving: bool) -> None:
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.norm_1, self.norm_2 = rms_norm(width), rms_norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Linear(pairs, shape.heads)
        self.feedforward = SwiGLU(width, 4 * width)
        self.modulation = AdaLN(width, 6, None)
        self.moving = moving
        if moving:
            self.left, self.right = nn.Linear(width, CHANNELS), nn.Linear(width, CHANNELS)
            self.near = nn.Linear(pairs, CHANNELS)
            self.weigh, self.message = nn.Linear(CHANNELS, 1), nn.Linear(CHANNELS, width)
            for layer in (self.weigh, self.message):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self, h: Tensor, c: Tensor, x: Tensor, pairs: Sequence[Tensor], allowed: Bool[Tensor, "B 1 N N"]
    ) -> tuple[Tensor, Tensor]:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulation(c)
        q, k, v = (
            self.qkv(self.norm_1(h) * (1 + scale_1) + shift_1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        bias, near = self._project(pairs)
        bias = bias.permute(0, 3, 1, 2).masked_fill(~allowed, -torch.inf)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        h = h + gate_1 * self.out(attended.transpose(1, 2).flatten(2))
        h = h + gate_2 * self.feedforward(self.norm_2(h) * (1 + scale_2) + shift_2)
        if self.moving:
            joined = nn.functional.silu(self.left(h)[:, :, None] + self.right(h)[:, None] + near)
            joined = joined * allowed[:, 0, ..., None]
            weight = self.weigh(joined)[..., 0] * allowed[:, 0]
            h = h + self.message(joined.sum(2))
            difference = x[:, :, None] - x[:, None]
            length = (difference.square().sum(-1, keepdim=True) + 1e-6).sqrt()
            x = x + (weight[..., None] * difference / (1 + length)).sum(2)
        return h, x

    def _project(self, pairs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The projections of the pair features by `bias` and by `near` (empty without it), in one product for each part: a part
        that is the same for all molecules or needs no gradient costs less than in a concatenation."""
        layers = [self.bias, self.near] if self.moving else [self.bias]
        weights = torch.cat([layer.weight for layer in layers]).split([part.shape[-1] for part in pairs], 1)
        first, *others = map(nn.functional.linear, pairs, weights)
        total = sum(others, first + torch.cat([layer.bias for layer in layers]))
        return total[..., : self.heads], total[..., self.heads :]


class MoleculeNet(nn.Module):
    """Predicts x_1 from (x_t, t). A state is (B, N, 3 + K): positions, then K type entries; in the output these are logits.

    `cond` holds the mask (B, N); for self-conditioning, an earlier prediction `previous` of x_1, of the shape of x_t, with
    probabilities of the types; and `type_time` (B,), the time of the types if it is not t. Positions are in units of `scale`
    angstroms. ValueError without a mask.

    With `shape.pooled`, an additional token at the centre of mass is denoised together with the atoms (REG, Wu et al.
    2507.01467): `cond` must hold its noisy value `pooled` (B, F).
    """

    def __init__(self, types: int, shape: Shape, *, scale: float) -> None:
        super().__init__()
        self.types, self.shape, self.scale = types, shape, scale
        width = shape.width
        coordinates = 0 if shape.architecture == "equivariant" else 3
        self.atoms = nn.Linear(2 * (types + coordinates), width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.radial = Radial()
        pairs = 2 * (COARSE + FINE) + (17 if shape.atom_index else 0)
        moving = shape.architecture == "equivariant"
        self.blocks = nn.ModuleList(MoleculeBlock(shape, pairs, moving=moving) for _ in range(shape.depth))
        self.logits = nn.Linear(width, types)
        self.move = None if moving else nn.Linear(width, 3)
        if shape.pooled:
            self.read_pooled, self.write_pooled = nn.Linear(shape.pooled, width), nn.Linear(width, shape.pooled)

    def forward(
        self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N D"]:
        """The prediction of x_1, with logits in the place of the types."""
        return self.with_features(x_t, t, cond, self.shape.depth)[0]

    def with_features(
        self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N width"]]:
        """The prediction, and the hidden state after the first `layer` blocks. ValueError unless 1 <= layer <= depth."""
        end, _, features = self.predict(x_t, t, cond, layer)
        return end, features

    def predict(
        self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> Prediction:
        """The prediction with that of the pooled token, and the hidden state as in `with_features`. Errors as there;
        also ValueError if the network has a pooled token and cond has none, or the reverse."""
        if not 1 <= layer <= len(self.blocks):
            raise ValueError(f"with_features: layer {layer} of {len(self.blocks)}; count blocks from 1")
        if cond is None or "mask" not in cond:
            raise ValueError('MoleculeNet: cond lacks "mask"; give a (B, N) mask that is True for the atoms that exist')
        if ("pooled" in cond) != bool(self.shape.pooled):
            raise ValueError('MoleculeNet: cond must have "pooled" if, and only if, the network has a pooled token')
        mask, previous, pooled = cond["mask"], cond.get("previous"), cond.get("pooled")
        previous = torch.zeros_like(x_t) if previous is None or not self.shape.self_conditioning else previous
        x, types = x_t.split([3, self.types], -1)
        inputs = [types, previous[..., 3:]]
        if self.move is not None:
            inputs += [x, previous[..., :3]]
        h = self.atoms(torch.cat(inputs, -1))
        times = torch.stack([t, cond.get("type_time", t)], -1)
        c = self.time(sinusoidal(1000 * times, 128).flatten(-2))
        if self.shape.atom_index:
            h = h + sinusoidal(torch.arange(x.shape[1], device=x.device).to(h.dtype), self.shape.width)
        previous, exists = previous[..., :3], mask
        if pooled is not None:  # the first token, at the centre of mass
            h = torch.cat([self.read_pooled(pooled)[:, None], h], 1)
            x, previous = (nn.functional.pad(part, (0, 0, 1, 0)) for part in (x, previous))
            exists = nn.functional.pad(mask, (1, 0), value=True)
        number = torch.arange(mask.shape[1], device=x.device)
        allowed = (exists[:, None, :] & exists[:, :, None])[:, None] | torch.eye(
            x.shape[1], dtype=torch.bool, device=x.device
        )
        earlier = self.radial(self.scale * distances(previous))
        steps = self._steps(number) if self.shape.atom_index else None
        if steps is not None and pooled is not None:  # the token has no place in the order of the atoms
            steps = nn.functional.pad(steps, (0, 0, 1, 0, 1, 0))
        features = h
        constant = [earlier] if steps is None else [earlier, steps]
        near = self.radial(self.scale * distances(x))
        for number, block in enumerate(self.blocks, 1):
            if self.move is None and number > 1:
                near = self.radial(self.scale * distances(x))
            h, x = block(h, c, x, [near, *constant], allowed)
            features = h if number == layer else features
        clean: Tensor | None = None
        if pooled is not None:
            clean = self.write_pooled(h[:, 0])
            h, x, features = h[:, 1:], x[:, 1:], features[:, 1:]
        if self.move is not None:
            x = x + self.move(h)
        if self.shape.prediction != "x_1":
            left = residual_scale(t) if self.shape.prediction == "residual" else 1 - t
            x = torch.lerp(x_t[..., :3], x, left[:, None, None])
        x = centred(x, mask)
        return Prediction(torch.cat([x, self.logits(h)], -1) * mask[..., None], clean, features)

    def _steps(self, number: Tensor) -> Tensor:
        """One-hot differences of the indices of the atoms, clipped to -8..8: (1, N, N, 17)."""
        return nn.functional.one_hot((number[:, None] - number).clamp(-8, 8) + 8, 17)[None].to(self.logits.weight.dtype)


def residual_scale(t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Scale of the correction of noisy positions: (1 - t) / sqrt((1 - t)^2 + (SPREAD t)^2).

    It falls with the noise once that is below the spread of the positions around what the network can know, so that atoms that
    are already right stay in place. Up to a constant, c_out of EDM (2206.00364, table 1), for the linear path.

    >>> residual_scale(torch.tensor([0.0, 0.9, 0.99, 1.0]))
    tensor([1.0000, 0.7433, 0.1005, 0.0000])
    """
    return (1 - t) / ((1 - t).square() + (SPREAD * t).square()).sqrt()


def distances(x: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N N"]:
    """Distances between all pairs of points."""
    return ((x[:, :, None] - x[:, None]).square().sum(-1) + 1e-6).sqrt()


def centred(x: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N 3"]:
    """The positions with the mean of the existing atoms at the origin; 0 for the others."""
    weight = mask[..., None].to(x.dtype)
    mean = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    return (x - mean) * weight
