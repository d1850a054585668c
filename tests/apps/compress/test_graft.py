"""The grafted model equals the least-squares student or the layer at step 0, caches correctly, and survives a new process."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from teachers import FAMILIES, IDS, teacher
from torch.testing import assert_close

from monge.apps.compress.affine import AffineMap, Moments, least_squares
from monge.apps.compress.estimator import estimator_of, randomise
from monge.apps.compress.graft import FlowSolver, graft
from monge.lm.blocks import blocks_of, replace_blocks
from monge.lm.hidden import hidden_at


def student(family: str, *, steps: int = 1, solver: str = "euler", start: int = 1, **options: Any) -> Any:
    """The teacher with layers [start, 4) replaced by a flow with random modulation, map and gate."""
    model = teacher(family)
    estimator = estimator_of(model, start, 4, rank=4, **options)
    parts = [estimator.map, *(block.modulation for block in estimator.blocks), estimator.gates]
    for parameter in (parameter for part in parts if part is not None for parameter in part.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    graft(model, estimator, start, 4, steps=steps, solver=solver)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_with_the_gate_closed_step_0_is_the_least_squares_map(family: str) -> None:
    model = teacher(family)
    x_0, x_1 = hidden_at(model, IDS, [1, 4])
    affine = least_squares([(x_0, x_1)])
    estimator = estimator_of(model, 1, 4).start_from(affine)
    graft(model, estimator, 1, 4)
    assert_close(hidden_at(model, IDS, [2])[0], affine.apply(x_0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_with_the_map_at_zero_and_the_gate_open_step_0_is_the_layer(family: str) -> None:
    model, expected = teacher(family), teacher(family)
    replace_blocks(expected, 1, 4, *[copy.deepcopy(blocks_of(expected)[1])])
    graft(model, estimator_of(model, 1, 4), 1, 4)
    assert_close(model(input_ids=IDS).logits, expected(input_ids=IDS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_start_keeps_no_weight_of_the_teacher(family: str) -> None:
    model = teacher(family)
    (block,) = estimator_of(model, 1, 4).blocks
    torch.nn.init.normal_(block.layer.get_parameter(next(name for name, _ in block.layer.named_parameters())))
    before = {name: parameter.clone() for name, parameter in block.layer.named_parameters()}
    randomise(block.layer)
    for name, parameter in block.layer.named_parameters():
        if parameter.ndim > 1:
            assert not torch.equal(parameter, before[name])
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.2)
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
    assert all(module.p == 0 for module in block.layer.modules() if isinstance(module, torch.nn.Dropout))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_affine_map_of_state_and_branches_is_merged_into_the_layer(family: str) -> None:
    model = teacher(family)
    x_0, x_1 = hidden_at(model, IDS, [1, 4])
    estimator, moments = estimator_of(model, 1, 4, parallel=True), Moments()
    features = estimator.features(x_0)
    moments.add(features, x_1 - x_0)
    affine, alone = moments.solve(ridge=1e-6), least_squares([(x_0, x_1)], ridge=1e-6)
    expected = x_0 + features @ affine.matrix.mT + affine.bias
    graft(model, estimator.start_from_features(affine), 1, 4)
    assert_close(hidden_at(model, IDS, [2])[0], expected, rtol=0, atol=1e-4)
    assert (expected - x_1).square().mean() < (alone.apply(x_0) - x_1).square().mean()


def test_a_map_of_branches_needs_one_layer_with_parallel_branches() -> None:
    affine = AffineMap(torch.zeros(32, 96), torch.zeros(32))
    for options in ({}, {"parallel": True, "layers": [1, 2]}, {"parallel": True, "affine": False}):
        with pytest.raises(ValueError, match="give affine=True, one layer and parallel=True"):
            estimator_of(teacher("llama"), 1, 4, **options).start_from_features(affine)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_velocity_in_training_is_that_of_the_grafted_model(family: str) -> None:
    """Training has states without a model around them."""
    model = student(family)
    layer = blocks_of(model)[1].module
    (x,) = hidden_at(model, IDS, [1])
    expected = hidden_at(model, IDS, [2])[0] - x
    assert_close(layer.estimator(x, torch.zeros(2), {"start": x}), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("steps", "solver"), [(1, "euler"), (3, "euler"), (2, "midpoint")])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_with_a_cache_equal_those_without(family: str, steps: int, solver: str) -> None:
    model = student(family, steps=steps, solver=solver)
    expected = model(input_ids=IDS).logits
    cache, parts = None, []
    for ids in (IDS[:, :5], IDS[:, 5:6], IDS[:, 6:]):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    assert_close(torch.cat(parts, 1), expected, rtol=0, atol=1e-4)
    evaluations = steps * (2 if solver == "midpoint" else 1)
    assert len(cache.layers) == 4 - 1 + evaluations


@pytest.mark.parametrize("solver", get_args(FlowSolver))
@torch.no_grad()
def test_every_solver_has_its_own_keys_and_values_per_evaluation(solver: str) -> None:
    model = student("llama", steps=3, solver=solver)
    first = model(input_ids=IDS[:, :5], use_cache=True)
    second = model(input_ids=IDS[:, 5:], past_key_values=first.past_key_values, use_cache=True)
    assert_close(torch.cat([first.logits, second.logits], 1), model(input_ids=IDS).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["dopri5", "dpm2m", "x"])
def test_a_solver_without_a_fixed_number_of_evaluations_is_an_error(solver: str) -> None:
    with pytest.raises(ValueError, match=f"solver '{solver}': use one of euler, midpoint"):
        student("llama", solver=solver)(input_ids=IDS)


@pytest.mark.parametrize("options", [{"layers": []}, {"layers": [1, 2, 3]}, {"affine": False}], ids=str)
@pytest.mark.parametrize("start", [0, 1])
@torch.no_grad()
def test_parts_of_a_flow_cache_and_generate_correctly(start: int, options: dict[str, Any]) -> None:
    model = student("llama", steps=3, start=start, **options)
    expected = model(input_ids=IDS).logits
    first = model(input_ids=IDS[:, :7], use_cache=True)
    second = model(input_ids=IDS[:, 7:], past_key_values=first.past_key_values, use_cache=True)
    assert_close(torch.cat([first.logits, second.logits], 1), expected, rtol=0, atol=1e-4)
    cached, uncached = (model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
@torch.no_grad()
def test_with_the_gates_closed_every_solver_gives_the_map(solver: str) -> None:
    model = teacher("llama")
    x_0, x_1 = hidden_at(model, IDS, [1, 4])
    affine = least_squares([(x_0, x_1)])
    graft(model, estimator_of(model, 1, 4, layers=[1, 3]).start_from(affine), 1, 4, steps=4, solver=solver)
    assert_close(hidden_at(model, IDS, [2])[0], affine.apply(x_0), rtol=0, atol=1e-5)


@torch.no_grad()
def test_three_layers_in_three_euler_steps_are_the_three_layers() -> None:
    model, expected = teacher("llama"), teacher("llama")
    replace_blocks(expected, 1, 4, *[copy.deepcopy(blocks_of(expected)[number]) for number in (1, 3, 2)])
    graft(model, estimator_of(model, 1, 4, layers=[1, 3, 2]), 1, 4, steps=3)
    assert_close(model(input_ids=IDS).logits, expected(input_ids=IDS).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_on_the_left_does_not_change_the_logits(family: str) -> None:
    model = student(family, steps=2)
    padded = torch.nn.functional.pad(IDS, (3, 0))
    mask = (torch.arange(15) >= 3).long().expand(2, -1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    logits = model(input_ids=padded, attention_mask=mask, position_ids=positions).logits
    assert_close(logits[:, 3:], model(input_ids=IDS).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"parallel": True}, {"durations": True}, {"layers": [1, 2, 3], "steps": 3}], ids=str
)
@torch.no_grad()
def test_a_merged_flow_has_the_same_logits_and_fewer_parameters(family: str, options: dict[str, Any]) -> None:
    model = student(family, **options)
    estimator = blocks_of(model)[1].module.estimator
    expected, before = model(input_ids=IDS).logits, sum(part.numel() for part in estimator.parameters())
    estimator.merge()
    assert_close(model(input_ids=IDS).logits, expected, rtol=0, atol=1e-4)
    assert sum(part.numel() for part in estimator.parameters()) < before


SCRIPT = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from monge.apps.compress.modeling import load

folders = sorted(Path(sys.argv[1]).iterdir())
for folder in folders:
    model, expected = load(folder / "model"), load_file(folder / "expected")
    with torch.no_grad():
        assert torch.equal(model(input_ids=expected["ids"]).logits, expected["logits"]), folder
    assert torch.equal(model.generate(expected["ids"]), expected["text"]), folder
    assert (model.flow.steps, model.flow.solver) == (2, "euler")
print(len(folders))
"""


@pytest.mark.slow
def test_a_saved_model_has_the_same_logits_in_a_new_process(tmp_path: Path) -> None:
    from monge.apps.compress.modeling import wrapped

    variants: dict[str, dict[str, Any]] = {family: {"family": family} for family in FAMILIES}
    variants |= {"map": {"family": "llama", "layers": []}, "two": {"family": "llama", "layers": [1, 2]}}
    variants |= {"layer": {"family": "gpt2", "affine": False}}
    variants |= {"durations": {"family": "llama", "durations": True}}
    variants |= {"merged": {"family": "qwen3", "parallel": True}}
    for name, options in variants.items():
        grafted: Any = student(steps=2, **options)
        grafted.generation_config.update(max_new_tokens=4, repetition_penalty=1.5)
        if name == "merged":
            blocks_of(grafted)[1].module.estimator.merge()
        with torch.no_grad():
            expected = grafted(input_ids=IDS).logits
            model = wrapped(grafted, 1, 3)
            assert torch.equal(model(input_ids=IDS).logits, expected)
            text = model.generate(IDS)
        assert text.shape[1] == IDS.shape[1] + 4
        model.save_pretrained(tmp_path / name / "model")
        save_file({"ids": IDS, "logits": expected, "text": text}, tmp_path / name / "expected")
    loaded = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], check=True, capture_output=True, text=True)
    assert int(loaded.stdout) == len(variants)
