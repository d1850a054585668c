"""Flow matching with the source as a condition, from the source or from noise, and with a contrastive loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monge.apps.translate.conditional import ConditionalField, ConditionalMethod
from monge.apps.translate.contrast import EndpointInfoNCE, MeanInfoNCE
from monge.apps.translate.evaluate import evaluate
from monge.apps.translate.field import Field, FieldShape
from monge.apps.translate.metrics import matched_cosine
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate, translator_of
from monge.apps.translate.space import Packed
from monge.cli import main
from monge.lm.store import Vectors
from monge.math.container import Container
from monge.math.steps import euler
from monge.math.types import Pair
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)
SHAPE = FieldShape(64, 1)


def conditioned(pairs: Pairs, **options: object) -> Translate:
    base = Translate(pairs=str(pairs.directory), method="flow-matching", sigma=0.3, source_condition=True)
    return replace(base, shape=SHAPE, batch_size=32, train=TINY, **options)  # pyright: ignore[reportArgumentType]


def test_each_row_sees_the_start_of_its_direction(pairs: Pairs):
    batch = conditioned(pairs).build().batches(0)
    reverse, start = batch.condition["reverse"], batch.condition["start"]
    assert 0.2 < reverse.float().mean() < 0.8
    assert torch.equal(start[reverse], batch.x_1[reverse])
    assert torch.equal(start[~reverse], batch.x_0[~reverse])


def test_the_field_depends_on_the_start_and_on_the_direction(packed: Packed):
    torch.manual_seed(0)
    field = Field(16 + 3, SHAPE, span=1.0, start=True)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = packed(range(4)).x_0, torch.full((4,), 0.5)
    forward = torch.zeros(4, dtype=torch.bool)
    v = field(x, t, {"reverse": forward, "start": x})
    assert not torch.allclose(v, field(x, t, {"reverse": ~forward, "start": x}))
    assert not torch.allclose(v, field(x, t, {"reverse": forward, "start": x.roll(1, 0)}))
    order = torch.randperm(x.shape[1])
    permuted = field(x[:, order], t, {"reverse": forward, "start": x[:, order]})
    torch.testing.assert_close(permuted, v[:, order], atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match='cond lacks "reverse" or "start"'):
        field(x, t, {"reverse": forward})


def test_a_translation_holds_its_start_fixed(pairs: Pairs):
    recipe = conditioned(pairs)
    run = recipe.build()
    x = run.batches(0).x_0[:3]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def field(x_t: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append((cond["reverse"], cond["start"]))
        return torch.ones_like(x_t)

    container = Container(pairs.capacity, recipe.aux_scale)
    recipe.trainer.transport(field, container, x, reverse=True, steps=4, step=euler)
    assert len(seen) == 4
    assert all(reverse.all() and torch.equal(start, x) for reverse, start in seen)


def test_contrast_of_flow_matching_rewards_the_right_endpoint(pairs: Pairs):
    """The endpoint that the velocity predicts is compared in the direction of each row."""
    plain = Translate(pairs=str(pairs.directory), method="flow-matching", shape=SHAPE, train=TINY)
    run, without = plain.build(), replace(plain, contrast=0.0).build()
    batch = run.batches(0)

    def leading(x_1: torch.Tensor):
        return lambda x, t, cond: x_1 - batch.x_0

    for target, low, high in ((batch.x_1, 0, 0.05), (batch.x_1.roll(1, 0), 0.1, float("inf"))):
        values = []
        for objective in (run.objective, without.objective):
            torch.manual_seed(0)
            values.append(float(objective(leading(target), batch).value))
        assert low <= values[0] - values[1] < high


def test_rows_count_in_their_direction_only(packed: Packed):
    torch.manual_seed(0)
    pair = packed.space.transport(packed(range(6)))
    reverse = torch.tensor([True, True, False, False, False, False])
    negatives = torch.randn(4, 16)
    term = EndpointInfoNCE(MeanInfoNCE(negatives, 1.0), MeanInfoNCE(negatives, 1.0))
    given = Pair(pair.x_0, pair.x_1, None, {"reverse": reverse})
    v, t = torch.randn_like(pair.x_0), torch.full((6,), 0.25)
    x_t = torch.lerp(pair.x_0, pair.x_1, 0.25)
    ends = x_t + 0.75 * v, x_t - 0.25 * v
    to_target = term.to_target(ends[0][~reverse], pair.x_1[~reverse])
    to_source = term.to_source(ends[1][reverse], pair.x_0[reverse])
    torch.testing.assert_close(term(v, x_t, t, given), 4 / 6 * to_target + 2 / 6 * to_source)
    both = term(v, x_t, t, Pair(pair.x_0, pair.x_1))
    torch.testing.assert_close(both, 0.5 * (term.to_target(ends[0], pair.x_1) + term.to_source(ends[1], pair.x_0)))
    only = {"reverse": torch.ones(6, dtype=torch.bool)}
    assert torch.isfinite(term(v, x_t, t, Pair(pair.x_0, pair.x_1, None, only)))


def test_a_conditional_batch_goes_from_noise_to_the_end_of_its_direction(pairs: Pairs):
    base = Translate(pairs=str(pairs.directory), method="conditional", shape=SHAPE, batch_size=32, train=TINY)
    batch = base.build().batches(0)
    plain = replace(base, method="flow-walking").build().batches(0)
    reverse = batch.condition["reverse"]
    assert 0.2 < reverse.float().mean() < 0.8
    for rows, start, end in ((reverse, plain.x_1, plain.x_0), (~reverse, plain.x_0, plain.x_1)):
        assert torch.equal(batch.condition["source"][rows], start[rows])
        assert torch.equal(batch.x_1[rows], end[rows])
    assert batch.x_0.mean().abs() < 0.05
    assert batch.x_0.std() == pytest.approx(1, abs=0.05)


def test_a_conditional_field_sees_the_source_and_its_mean(packed: Packed):
    torch.manual_seed(0)
    field = ConditionalField(16 + 3, SHAPE, span=1.0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, source, t = torch.randn(4, 12, 19), packed(range(4)).x_0, torch.full((4,), 0.5)
    forward = torch.zeros(4, dtype=torch.bool)
    v = field(x, t, {"reverse": forward, "source": source})
    assert v.shape == x.shape
    assert not torch.allclose(v, field(x, t, {"reverse": ~forward, "source": source}))
    assert not torch.allclose(v, field(x, t, {"reverse": forward, "source": source.roll(1, 0)}))
    order = torch.randperm(12)  # the source is a set of slots
    torch.testing.assert_close(field(x, t, {"reverse": forward, "source": source[:, order]}), v, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match='cond lacks "reverse" or "source"'):
        field(x, t)


def test_translations_of_a_conditional_flow_depend_on_the_seed_but_not_on_the_batch(packed: Packed):
    torch.manual_seed(0)
    method, x = ConditionalMethod(SHAPE), packed(range(4)).x_0
    container = Container(packed.pairs.capacity, 12.0)
    field = method.network(container, 16)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.05)

    def translated(method: ConditionalMethod, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return method.transport(field, container, x, reverse=False, steps=3, step=euler)

    ends = translated(method, x)
    torch.testing.assert_close(translated(method, x[1:2]), ends[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(translated(replace(method, seed=1), x), ends)
    assert set(container.split(ends).existence.round(decimals=4).unique().tolist()) <= {0.0, 1.0}


def test_each_source_of_a_conditional_flow_has_noise_of_its_own(packed: Packed):
    def still(x_t: torch.Tensor, _t: torch.Tensor, *, cond: object) -> torch.Tensor:
        return torch.zeros_like(x_t)

    x, container = packed(range(4)).x_0, Container(packed.pairs.capacity, 12.0)
    ends = ConditionalMethod(SHAPE).transport(still, container, x, reverse=False, steps=1, step=euler)
    noise = container.split(ends).content.flatten(1)
    assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.3


def test_contrast_of_swapped_rows_compares_the_end_of_the_path(packed: Packed):
    torch.manual_seed(0)
    pair = packed(range(4))
    negatives = torch.randn(4, 16)
    term = EndpointInfoNCE(MeanInfoNCE(negatives, 1.0), MeanInfoNCE(negatives, 1.0), swapped=True)
    reverse = torch.ones(4, dtype=torch.bool)
    given = Pair(torch.randn_like(pair.x_0), pair.x_0, None, {"reverse": reverse})
    exact = (given.x_1 - given.x_0, given.x_0, torch.zeros(4), given)
    torch.testing.assert_close(term(*exact), term.to_source(given.x_1, given.x_1))


@pytest.mark.long
def test_a_conditional_flow_learns_planted_translations(pairs: Pairs, tmp_path):
    config = replace(TINY, steps=3000, save_every=3000, warmup_steps=50, lr=3e-3, optimizer="muon")
    recipe = Translate(
        pairs=str(pairs.directory), method="conditional", shape=FieldShape(64, 2), batch_size=16, train=config
    )
    fit(recipe, tmp_path / "run")
    translator, numbers = translator_of(reopen(tmp_path / "run", app="translate")), pairs.split("test")
    predicted = translator.translate([pairs.sequence("source", n) for n in numbers])
    true = [pairs.sequence("target", n) for n in numbers]
    similarity, other = (
        torch.tensor([matched_cosine(x, y) for x, y in zip(predicted, targets, strict=True)])
        for targets in (true, true[1:] + true[:1])
    )
    assert (similarity - other).mean() > 0.2


def test_the_seed_of_run_changes_the_translations_of_a_conditional_flow(
    pairs: Pairs, files: tuple[Path, Path], tmp_path: Path, capsys
):
    for method in ("conditional", "flow-matching"):
        recipe = Translate(
            pairs=str(pairs.directory), method=method, aux_scale=1.0, shape=SHAPE, batch_size=8, train=TINY
        )
        fit(recipe, tmp_path / method)
    read = {}
    for seed in ("0", "0", "1"):
        out = tmp_path / f"{len(read)}-{seed}.parquet"
        words = ["translate", "run", str(tmp_path / "conditional"), str(files[0]), "--seed", seed, "--out", str(out)]
        assert main(words) == 0
        read[out.name] = [row[1] for _, part in Vectors(out).portions() for row in part]
    first, again, other = read.values()
    translator, size = translator_of(reopen(tmp_path / "conditional", app="translate")), len(pairs.split("test"))
    table = evaluate(pairs, translator, reverse=False, limit=size, steps=2, baselines=False, pool=size).rows
    one, best = table["flow, 2 steps"], table["flow, 2 steps, best of 8 samples"]
    assert set(best) == {f"R@1 of {size}"}
    assert one[f"R@1 of {size}"].value < best[f"R@1 of {size}"].value
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert any(x.shape != y.shape or not torch.equal(x, y) for x, y in zip(first, other, strict=False))
    words[2] = str(tmp_path / "flow-matching")
    assert main([*words[:-1], str(tmp_path / "no.parquet")]) == 2
    assert "--seed 1 has no effect" in capsys.readouterr().err
