"""Figures of translations show every move of a coupling, and texts verbatim."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monge.apps.translate import pictures
from monge.apps.translate.calibrate import token_cost
from monge.apps.translate.pictures import Arcs, figure, readable, token_texts
from monge.lm.hidden import hidden_states
from monge.lm.load import encoder
from monge.math.container import Container
from monge.math.cost import FourBlock, cosine
from monge.math.ot import assignment
from monge.math.types import Pair

TEXTS = ["( ph -> ps )", "A e. B", "∀ x ∈ A", "(ph->ps) & -. ch"]


def arcs(n: int, m: int, *, capacity: int = 64, texts: tuple[list[str], list[str]] | None = None) -> Arcs:
    """n random tokens, coupled with m by the four-block transport at prices that leave some unmatched."""
    draws, container = torch.Generator().manual_seed(n + 100 * m), Container(capacity, aux_scale=4.0)
    pair = Pair(*(container.pack([torch.randn(k, 8, generator=draws)]) for k in (n, m)))
    match = assignment(token_cost(container, FourBlock(delete=0.25, create=0.25, content=cosine), pair))[0]
    names = texts or ([f"s{k}" for k in range(n)], [f"t{k}" for k in range(m)])
    return Arcs.of(f"pair-{n}-{m}", pair, container, match, names)


def words(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_every_token_moves_once_and_unused_voids_do_not_move() -> None:
    row = arcs(9, 14)
    kinds, sources, targets = zip(*row.moves(), strict=True)
    count = {kind: kinds.count(kind) for kind in pictures.COLOURS}
    assert count["match"] + count["deletion"] == 9
    assert count["match"] + count["creation"] == 14
    assert min(count.values()) > 0
    assert len(set(sources)) == len(sources)
    assert len(set(targets)) == len(targets)
    assert {i for i in sources if row.exists[0, i]} == set(range(9))


def test_cosines_are_those_of_matched_slots() -> None:
    x, container = torch.eye(4)[:3], Container(6)
    pair = Pair(container.pack([x]), container.pack([torch.stack([x[1], x[0], x[0] + x[2]])]))
    row = Arcs.of("k", pair, container, torch.tensor([1, 0, 2, 3, 4, 5]), (list("abc"), list("def")))
    torch.testing.assert_close(row.similarity[:3], torch.tensor([1, 1, 0.5**0.5]))


def test_an_arc_connects_each_slot_to_its_match() -> None:
    """Curves end at the drawn slots: tokens at the edges, voids inset from them."""
    row = arcs(9, 14)
    (axis,) = figure([row]).axes
    assert [arc.get_gid() for arc in axis.patches] == [kind for kind, *_ in row.moves()]
    slots = [dots.get_offsets() for dots in axis.collections]
    for arc, (kind, i, j) in zip(axis.patches, row.moves(), strict=True):
        ends = arc.get_path().vertices[[0, -1]]
        np.testing.assert_allclose(ends, [slots[0][i], slots[1][j]], atol=1e-6)
        assert (ends[0, 0] == 0) == (kind != "creation")
        assert (ends[1, 0] == pictures.MIDDLE) == (kind != "deletion")
    for dots, exists in zip(axis.collections, row.exists, strict=True):
        hollow = (dots.get_facecolor() == 1).all(1)
        assert hollow.tolist() == (~exists).tolist()


def test_better_matches_are_darker() -> None:
    rows = [arcs(9, 14), arcs(12, 6)]
    matches = [
        (float(row.similarity[i]), arc.get_alpha())
        for row, axis in zip(rows, figure(rows).axes, strict=True)
        for arc, (kind, i, _) in zip(axis.patches, row.moves(), strict=True)
        if kind == "match"
    ]
    alphas = [alpha for _, alpha in sorted(matches)]
    assert alphas == sorted(alphas)
    assert (alphas[0], alphas[-1]) == (pytest.approx(0.2), pytest.approx(1))


def test_texts_are_shown_next_to_their_tokens_and_never_as_mathematics(tmp_path: Path) -> None:
    texts = [r"$\frac{$", "x_1^2", "\\alpha", "$a$", "{"], ["##ing", "_", "a very long token indeed"]
    row = arcs(5, 3, texts=texts)
    drawing = figure([row])
    (axis,) = drawing.axes
    shown = {text.get_text(): text for text in axis.texts}
    assert shown.keys() == {*texts[0], "·ing", "_", "a␣very␣long␣tok…", "5 → 3"}
    assert not any(text.get_parse_math() for word, text in shown.items() if word != "5 → 3")
    assert axis.get_title() == "pair-5-3"
    dots = axis.collections[0].get_offsets()
    for k, word in enumerate(texts[0]):
        assert shown[word].get_position()[1] == pytest.approx(dots[k, 1], abs=0.3)
    drawing.savefig(tmp_path / "odd.png")  # mathtext rejects the first one


def test_hidden_tokens_are_counted() -> None:
    row = arcs(50, 20)
    (axis,) = figure([row], max_tokens=30).axes
    left = [word for word in words(axis) if word.startswith("s")]
    right = [word for word in words(axis) if word.startswith("t")]
    assert left == [f"s{k}" for k in range(30)]
    assert right == [f"t{k}" for k in range(12)]  # both sides share a scale: 12 of 20 is 30 of 50
    assert {"… 20 more", "… 8 more"} <= set(words(axis))
    (full,) = figure([row], max_tokens=50).axes
    assert not [word for word in words(full) if "more" in word]


def test_a_coupling_without_matches_has_none_in_its_legend() -> None:
    exists, position = torch.tensor([[True, False]] * 2), torch.ones(2, 2)
    row = Arcs("none", ["a"], ["b"], position, exists, torch.tensor([1, 0]), torch.zeros(2))
    drawing = figure([row])
    assert [kind for kind, *_ in row.moves()] == ["deletion", "creation"]
    assert not [text for text in drawing.legends[0].get_texts() if "match" in text.get_text()]


def test_pairs_are_in_reading_order_without_overlap() -> None:
    drawing = figure([arcs(5, 3), arcs(30, 12), arcs(4, 9)], columns=2)
    boxes = [axis.get_position() for axis in drawing.axes]
    assert boxes[0].y1 == pytest.approx(boxes[1].y1)
    assert boxes[0].x1 <= boxes[1].x0 + 1e-9
    assert boxes[2].y1 < boxes[1].y0
    legend = drawing.legends[0].get_window_extent()
    assert legend.y1 <= boxes[2].y0 * drawing.bbox.height
    assert legend.width <= drawing.bbox.width


def test_texts_that_do_not_match_the_vectors_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"pair-3-2: \[4, 2\] tokens for \[3, 2\] vectors; pass the texts"):
        arcs(3, 2, texts=(["a"] * 4, ["b"] * 2))
    assert len(arcs(6, 6, capacity=6, texts=(["a"] * 9, ["b"] * 6)).source) == 6  # `pair` may have truncated it


def test_marks_of_tokenizers_become_readable() -> None:
    assert readable(["ant", "##ece", "##dent", ".", "#"]) == ["ant", "·ece", "·dent", ".", "#"]
    assert readable(["Ġ(", "Ġph", "i", "Ġe", "."]) == ["(", "ph", "·i", "e", "."]
    assert readable(["▁The", "orem", "▁", "\n"]) == ["The", "·orem", "␣", "↵"]
    assert readable([" ##", "ĊĊ", "Ġ"]) == ["##", "↵↵", "␣"]


def test_token_texts_are_those_of_the_hidden_states(language_model: Path) -> None:
    model = encoder(str(language_model))
    for length in (512, 3):
        tokens = [token_texts(model, text, length) for text in TEXTS]
        states = hidden_states(model, TEXTS, layer=1, max_length=length)
        assert list(map(len, tokens)) == list(map(len, states))
    assert "".join(token_texts(model, TEXTS[0], 512)).strip() == TEXTS[0]


def test_word_pieces_leave_special_tokens_out(tmp_path: Path) -> None:
    """A tokenizer that adds [CLS] and [SEP], like BERT's; truncation counts them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from monge.lm.load import Encoder

    names = ["[UNK]", "[CLS]", "[SEP]", "ant", "##ece", "##dent", "a"]
    tokenizer = Tokenizer(models.WordPiece({name: k for k, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    bert = Encoder("bert", torch.nn.Identity(), fast)
    assert token_texts(bert, "a antecedent", 512) == ["a", "ant", "##ece", "##dent"]
    assert token_texts(bert, "a antecedent", 4) == ["a", "ant"]


def test_a_plan_is_written(tmp_path: Path) -> None:
    path = pictures.plan(tmp_path / "plan.png", [arcs(9, 14), arcs(40, 38)])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for colour in pictures.COLOURS.values():
        ink = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        assert (np.abs(pixels - ink).sum(-1) < 12).sum() > 20


def test_curves_show_the_losses_and_every_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    records = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.4, "held-out loss": 0.45}]
    true, guess = torch.tensor([3, 3, 7, 5]), torch.tensor([3, 4, 7, 0])
    path = pictures.curves(tmp_path / "curves.png", records, {"forward": (true, guess), "reverse": (guess, true)})
    assert Image.open(path).width > 1000
    losses, forward, reverse = (axis for axis in figures[0].axes if axis.get_xlabel())
    assert [line.get_xydata().tolist() for line in losses.lines] == [[[10, 0.5], [20, 0.4]], [[20, 0.45]]]
    for axis, (x, y) in ((forward, (true, guess)), (reverse, (guess, true))):
        counts = np.ma.filled(axis.collections[0].get_array().astype(float), np.nan)
        cells = {(int(a), int(b)): counts[b, a] for b, a in zip(*np.nonzero(counts > 0), strict=True)}
        assert cells == {(int(a), int(b)): 1 for a, b in zip(x, y, strict=True)}
        assert "exact 50%, mean error 1.5" in axis.get_title()


def test_curves_of_a_run_without_records_are_empty(tmp_path: Path) -> None:
    assert Image.open(pictures.curves(tmp_path / "curves.png", [], {})).width > 100
