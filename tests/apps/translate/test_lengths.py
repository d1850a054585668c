"""Lengths of translations from a regression on the sum of a sequence's vectors."""

from pathlib import Path

import pytest
import torch

from monge.apps.translate.field import FieldShape
from monge.apps.translate.lengths import LengthRidge, of_constants, tensors
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate, translator_of
from monge.cli import main
from monge.math.container import Container
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=2, warmup_steps=0, save_every=2, device="cpu", loader_threads=0)


def test_a_weighted_count_of_token_types_is_learned(draw):
    """Each type of token stands for 0, 1 or 2 tokens on the other side. With more entries
    than types, the regression is nearly exact."""
    torch.manual_seed(0)
    vectors, worth = draw(0, 30, 16), torch.arange(30) % 3
    tokens = [torch.randint(30, (int(n),)) for n in torch.randint(2, 40, (600,))]
    tokens = [row for row in tokens if worth[row].sum() > 0]
    sequences, targets = [vectors[row] for row in tokens], torch.tensor([int(worth[row].sum()) for row in tokens])
    means, counts = torch.stack([x.mean(0) for x in sequences]), torch.tensor(list(map(len, sequences)))
    known = draw(1, 30, 30)  # with a vector per type and more entries than types, the count is a linear function
    wide = [known[row] for row in tokens]
    ridge = LengthRidge.fit(torch.stack([x.mean(0) for x in wide[:500]]), counts[:500], targets[:500])
    assert (ridge.of_sequences(wide[500:]) == targets[500:]).double().mean() > 0.98
    narrow = LengthRidge.fit(means[:500], counts[:500], targets[:500])
    error = (narrow.of_sequences(sequences[500:]) - targets[500:]).abs().double().mean()
    baseline = (targets[500:] - targets[:500].double().mean()).abs().mean()
    assert error < baseline / 2


def test_a_length_is_at_least_one():
    ridge = LengthRidge(torch.zeros(4), torch.tensor(-3.0))
    assert ridge.of_sequences([torch.ones(2, 3), torch.zeros(0, 3)]).tolist() == [1, 1]


def test_the_slots_with_the_highest_existence_are_kept(draw):
    container = Container(5)
    slots = container.split(container.pack([draw(0, 5, 3)]))
    state = container.join(slots._replace(existence=torch.tensor([[0.9, 0.1, 0.4, 0.3, 0.8]], dtype=torch.float64)))
    for count, kept in ((1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])):
        (result,) = container.unpack(state, torch.tensor([count]))
        assert torch.equal(result, slots.content[0, kept])
    assert len(container.unpack(state)[0]) == 2


def test_regressions_are_constants_of_a_run(draw):
    both = LengthRidge(draw(0, 4), draw(1, 1)[0]), LengthRidge(draw(2, 4), draw(3, 1)[0])
    again = of_constants(tensors(both))
    assert again is not None
    for one, other in zip(both, again, strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.bias, other.bias)
    assert of_constants({}) is None


@pytest.mark.slow
def test_a_run_with_regressed_lengths_translates_to_the_predicted_number_of_tokens(pairs: Pairs, tmp_path: Path):
    recipe = Translate(pairs=str(pairs.directory), shape=FieldShape(64, 1), batch_size=8, lengths="ridge", train=TINY)
    fit(recipe, tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    assert translator.lengths is not None
    for reverse, end in enumerate(("source", "target")):
        sources = [translator.space.calibration.side(end).apply(pairs.sequence(end, k)) for k in range(20)]
        predicted = translator.lengths[reverse].of_sequences(sources).clamp_max(pairs.capacity)
        assert [len(x) for x in translator.carry(sources, reverse=bool(reverse))] == predicted.tolist()
    assert main(["translate", "evaluate", str(tmp_path / "run"), "--limit", "40"]) == 0


def test_a_method_that_creates_tokens_itself_rejects_a_regression():
    with pytest.raises(ValueError, match="--lengths ridge has no effect with --method branching-flows"):
        Translate(method="branching-flows", lengths="ridge")


def test_dropout_of_the_field_is_that_of_its_blocks():
    shape = FieldShape(64, 1, dropout=0.25)
    assert [module.p for module in shape.dit(8).modules() if isinstance(module, torch.nn.Dropout)] == [0.25]
    with pytest.raises(ValueError, match="dropout must be at least 0"):
        FieldShape(dropout=1.0)
