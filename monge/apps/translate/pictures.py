"""Figures of a translation: couplings of tokens, losses of a run, and predicted lengths."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.lm.load import Encoder
from monge.math.container import Container
from monge.math.types import Pair

COLOURS = {"match": "#1f5fbf", "deletion": "#d55e00", "creation": "#00876c"}  # safe for the colour-blind
GREY = "#8a8f98"
ROW, LETTER, MIDDLE, BENCH = 0.15, 0.06, 1.9, 0.13  # inches: row height, letter width, width of arcs, inset of voids
WORD, OPACITY = 16, (0.2, 1.0)  # maximum letters per token; opacity of the worst and the best match
SIGNS = str.maketrans(" Ġ▁\nĊ\t\r", "␣␣␣↵↵⇥␍")


@dataclass(frozen=True)
class Arcs:
    """A coupled pair: slot i of the source is matched to slot match[i] of the target. Tokens fill existing slots in order.

    ValueError if a side has unequal numbers of tokens and existing slots.
    """

    id: str
    source: list[str]
    target: list[str]
    position: Float[Tensor, "2 N"]
    exists: Bool[Tensor, "2 N"]
    match: Int[Tensor, "N"]
    similarity: Float[Tensor, "N"]  # cosine of the contents of slots i and match[i]; valid where both exist

    def __post_init__(self) -> None:
        tokens, vectors = [len(self.source), len(self.target)], self.exists.sum(1).tolist()
        if tokens != vectors:
            raise ValueError(
                f"{self.id}: {tokens} tokens for {vectors} vectors; pass the texts that the vectors were computed from"
            )

    @staticmethod
    def of(key: str, pair: Pair, container: Container, match: Int[Tensor, "N"], texts: Sequence[list[str]]) -> "Arcs":
        """The arcs of a packed pair of one row, in calibrated units. Tokens beyond the capacity are cut."""
        a, b = container.split(pair.x_0), container.split(pair.x_1)
        position, existence = torch.cat([a.position, b.position]), torch.cat([a.existence, b.existence])
        similarity = torch.nn.functional.cosine_similarity(a.content[0], b.content[0, match], dim=-1)
        source, target = (tokens[: container.capacity] for tokens in texts)
        return Arcs(key, source, target, position, existence > 0.5, match, similarity)

    def moves(self) -> list[tuple[str, int, int]]:
        """(kind: match, deletion or creation; source slot; target slot). Voids that stay void are left out."""
        kinds = {(True, True): "match", (True, False): "deletion", (False, True): "creation"}
        ends = zip(self.exists[0].tolist(), self.exists[1][self.match].tolist(), strict=True)
        return [(kinds[exist], i, int(self.match[i])) for i, exist in enumerate(ends) if any(exist)]


def token_texts(encoder: Encoder, text: str, max_length: int) -> list[str]:
    """The tokens whose vectors `hidden_states` returns, as the tokenizer writes them; byte-level ones are decoded."""
    row = encoder.tokenizer(text, truncation=True, max_length=max_length, return_special_tokens_mask=True)
    ordinary = [k for k, special in zip(row["input_ids"], row["special_tokens_mask"], strict=True) if not special]
    tokens, decode = encoder.tokenizer.convert_ids_to_tokens(ordinary), encoder.tokenizer.convert_tokens_to_string
    return [decode([token]) for token in tokens] if decode(["Ġ"]) == " " else tokens


def readable(tokens: Sequence[str]) -> list[str]:
    """The tokens of a text without the tokenizer's marks: "·x" continues the previous word, "␣" is a space by itself."""
    words = [re.sub("^[Ġ▁]", " ", token) for token in tokens]
    spaced, labels = any(word.startswith(" ") for word in words), list[str]()  # without spaces, ## continues a word
    for word in words:
        begins, pieced = word.startswith(" "), not spaced and re.match("##.", word) is not None
        joined = pieced or (spaced and bool(labels) and not begins)
        body = (word[begins + 2 * pieced :] or "␣").translate(SIGNS)
        shown = "·" * (joined and body[0].isalnum()) + body
        labels.append(shown if len(shown) <= WORD else shown[: WORD - 1] + "…")
    return labels


def plan(path: Path, rows: Sequence[Arcs], *, columns: int = 4, max_tokens: int = 40) -> Path:
    """Save a PNG of the couplings of a few pairs, in `columns` columns, each side cut after about `max_tokens`."""
    figure(rows, columns=columns, max_tokens=max_tokens).savefig(path, dpi=150)
    return path


def figure(rows: Sequence[Arcs], *, columns: int = 4, max_tokens: int = 40) -> Any:
    """The figure of `plan`: tokens at their positions, with the source on the left, and voids next to them."""
    from matplotlib.figure import Figure

    words = [[readable(tokens) for tokens in (row.source, row.target)] for row in rows]
    left, right = (0.25 + LETTER * max(len(word) for pair in words for word in pair[end]) for end in (0, 1))
    width, columns = left + MIDDLE + right, min(columns, len(rows))
    longest = [max(8, *map(len, pair)) for pair in words]  # fewer tokens are spread out, to leave space for their voids
    sizes = [min(max_tokens, length) + 1 for length in longest]
    heights = [0.7 + ROW * max(sizes[k : k + columns]) for k in range(0, len(rows), columns)]
    cosines = [float(row.similarity[i]) for row in rows for kind, i, _ in row.moves() if kind == "match"]
    handles = _handles(cosine_range := (min(cosines), max(cosines)) if cosines else ())
    legend_lines = -(-len(handles) // max(1, int(columns * width / 1.75)))
    total_height = sum(heights) + 0.15 + 0.18 * legend_lines
    figure = Figure(figsize=(columns * width, total_height))
    for k, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        bottom = total_height - sum(heights[: k // columns]) - 0.45 - ROW * size
        box = (k % columns / columns, bottom / total_height, 1 / columns, ROW * size / total_height)
        axis = figure.add_axes(box, xlim=(-left, MIDDLE + right), ylim=(size - 0.5, -0.5))
        axis.axis("off")
        axis.set_title(row.id, x=(left + MIDDLE / 2) / width, pad=15, fontsize=9, fontweight="bold", parse_math=False)
        axis.text(MIDDLE / 2, -1, f"{len(row.source)} → {len(row.target)}", ha="center", fontsize=7.5, color=GREY)
        y = (row.position * longest[k]).tolist()
        _slots(axis, row, y, words[k], size - 0.5)
        _arcs(axis, row, y, cosine_range)
    style = {"ncols": -(-len(handles) // legend_lines), "frameon": False, "fontsize": 7.5, "handlelength": 1.6}
    figure.legend(handles=handles, loc="lower center", **style)
    return figure


def _slots(axis: Any, row: Arcs, heights: list[list[float]], words: list[list[str]], bottom: float) -> None:
    """Draw tokens with their texts, hollow voids, and the number of tokens that are not shown."""
    style = {"fontsize": 7, "family": ["DejaVu Sans Mono", "DejaVu Sans", "STIXGeneral"], "parse_math": False}
    colours = [[GREY] * len(row.match) for _ in words]
    for kind, i, j in row.moves():
        colours[0][i] = colours[1][j] = COLOURS[kind]
    for end, (sign, align) in enumerate(((-1, "right"), (1, "left"))):
        y, exists, colour, x = heights[end], row.exists[end].tolist(), colours[end], MIDDLE * end
        columns, fill = np.where(exists, x, x - sign * BENCH), np.where(exists, colour, "white")
        areas = np.where(exists, 6, min(6, (72 * ROW * max(y) / len(y)) ** 2))  # in points^2: voids must not touch
        axis.scatter(columns, y, s=areas, c=fill, edgecolors=colour, linewidths=0.5, zorder=3)
        shown = [(word, k) for word, k in zip(words[end], np.flatnonzero(exists), strict=True) if y[k] < bottom]
        for word, k in shown:
            text_colour = "black" if colour[k] == COLOURS["match"] else colour[k]
            axis.text(x + 0.07 * sign, y[k] + 0.22, word, ha=align, color=text_colour, **style)
        if more := len(words[end]) - len(shown):
            axis.text(x + 0.07 * sign, bottom + 0.8, f"… {more} more", ha=align, color=GREY, fontsize=7, style="italic")


def _arcs(axis: Any, row: Arcs, heights: list[list[float]], cosine_range: Sequence[float]) -> None:
    """Draw a Bezier curve from each slot to its match; the gid of a curve is match, deletion or creation."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    for kind, i, j in row.moves():
        start, end = BENCH * (kind == "creation"), MIDDLE - BENCH * (kind == "deletion")
        bends = [(start + MIDDLE * 0.45, heights[0][i]), (end - MIDDLE * 0.45, heights[1][j])]
        curve = Curve([(start, heights[0][i]), *bends, (end, heights[1][j])], [1, 4, 4, 4])  # move, then a cubic
        alpha = np.interp(float(row.similarity[i]), cosine_range, OPACITY) if kind == "match" else 0.55
        patch = PathPatch(curve, fill=False, edgecolor=COLOURS[kind], alpha=alpha, linewidth=1.1, gid=kind)
        axis.add_patch(patch).set_snap(False)  # snapping makes straight curves darker


def _handles(cosine_range: Sequence[float]) -> list[Any]:
    """The entries of the legend; matches have two, for the lowest and the highest cosine."""
    from matplotlib.lines import Line2D

    alphas = dict(zip(cosine_range, OPACITY, strict=False))  # empty without matches
    lines = [("match", f"match, cosine {cosine:.2f}", alpha) for cosine, alpha in alphas.items()]
    lines += [("deletion", "deletion: token to void", 0.7), ("creation", "creation: void to token", 0.7)]
    handles = [Line2D([], [], color=COLOURS[kind], alpha=alpha, label=label) for kind, label, alpha in lines]
    handles.append(Line2D([], [], linestyle="none", marker="o", markersize=3, mfc="white", mec=GREY, label="void slot"))
    return [*handles, Line2D([], [], linestyle="none", label="·x continues the previous word")]


def curves(path: Path, metrics_rows: Sequence[Mapping[str, float]], lengths: Mapping[str, Sequence[Tensor]]) -> Path:
    """Save a PNG of the losses in the rows of metrics.jsonl and, for each direction, of its (true, predicted) lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9 * (1 + len(lengths)), 3.3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(lengths), squeeze=False)[0]
    _losses(first, metrics_rows)
    for axis, (name, (true, predicted)) in zip(others, lengths.items(), strict=True):
        _lengths(axis, name, true.cpu().numpy(), predicted.cpu().numpy())
    figure.savefig(path, dpi=150)
    return path


def _losses(axis: Any, records: Sequence[Mapping[str, float]]) -> None:
    from matplotlib.ticker import LogLocator

    axis.set(xscale="log", yscale="log", xlabel="step", ylabel="loss")
    for name, colour, style in (("loss", GREY, "-"), ("held-out loss", COLOURS["match"], ".-")):
        points = [(record["step"], record[name]) for record in records if name in record]
        axis.plot(*np.reshape(points, (-1, 2)).T, style, color=colour, linewidth=1.2, label=name)
    for ticks, subs in ((axis.xaxis, (3,)), (axis.yaxis, (1.5, 2, 3, 5, 7))):
        ticks.set(minor_locator=LogLocator(subs=subs), major_formatter="{x:g}", minor_formatter="{x:g}")
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False)


def _lengths(axis: Any, name: str, true: np.ndarray, predicted: np.ndarray) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    edges = np.arange(max(true.max(), predicted.max()) + 2) - 0.5
    blues = LinearSegmentedColormap.from_list("", ["#c3d5f0", "#08204a"])
    *_, counts = axis.hist2d(true, predicted, edges, cmap=blues, cmin=1, vmin=0)
    axis.figure.colorbar(counts, ax=axis, label="pairs", ticks=MaxNLocator(6, integer=True))
    axis.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle="--")
    error = np.abs(predicted - true)
    axis.set_title(f"{name}\nexact {np.mean(error == 0):.0%}, mean error {error.mean():.1f}", fontsize=9)
    axis.set(xlabel="true length", ylabel="predicted length", aspect="equal")
