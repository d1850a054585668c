"""A run directory: one recipe, one process, and weights that other tools can open."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from monge import files
from monge.math.types import Pair
from monge.objective.base import Loss, Objective
from monge.run import Interrupted, fit, same_constant
from monge.runs import check_same, reopen
from monge.training import checkpoint
from monge.training.config import TrainConfig
from monge.training.log import read_records
from monge.training.loop import Run

TRAIN = Path(__file__).parent / "training"
sys.path.insert(0, str(TRAIN))
from regression import Network, Regression  # noqa: E402

RECIPE = Regression(TrainConfig(steps=6, warmup_steps=0, save_every=2, device="cpu", milestones=(2,)))


def with_train(**changes) -> Regression:
    return replace(RECIPE, train=replace(RECIPE.train, **changes))


def everything(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_run_directory_holds_the_complete_run(tmp_path: Path) -> None:
    state = fit(RECIPE, tmp_path / "deep" / "run")
    run = tmp_path / "deep" / "run"
    stored = json.loads((run / "recipe.json").read_text())
    assert stored["app"] == "regression"
    assert stored["recipe"]["train"]["milestones"] == [2]
    assert [checkpoint.step_of(path) for path in checkpoint.steps(run / "checkpoints")] == [2, 4, 6]
    assert [record["step"] for record in read_records(run / "metrics.jsonl")] == [2, 4, 6]
    opened = reopen(run, app="regression")
    assert_close(opened.constants["test"], Regression(size=64).batch(10_000).x_0)
    last = opened.weights(Network(), averaged=False)
    assert_close(last.state_dict(), state.model.state_dict(), rtol=0, atol=0)
    assert not last.training
    assert state.ema is not None
    assert_close(dict(opened.weights(Network()).named_parameters()), state.ema.weights, rtol=0, atol=0)


def test_checkpoints_are_named_last_best_or_by_their_step(tmp_path: Path) -> None:
    fit(RECIPE, tmp_path)
    opened = reopen(tmp_path, app="regression")
    records = {record["step"]: record["held-out loss"] for record in read_records(tmp_path / "metrics.jsonl")}
    assert checkpoint.step_of(opened.checkpoint("best")) == min(records, key=records.__getitem__)
    assert checkpoint.step_of(opened.checkpoint("last")) == 6
    assert checkpoint.step_of(opened.checkpoint("2")) == 2
    with pytest.raises(ValueError, match="no checkpoint '5'; available: last, best and steps 2, 4, 6"):
        opened.checkpoint("5")


def test_evaluation_uses_the_averaged_weights_and_does_not_affect_the_run(tmp_path: Path) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    fit(with_train(save_every=1, keep_last=9), often)
    fit(with_train(save_every=6), seldom)
    for name in ("model", "ema", "resume"):
        one, two = (files.read_tensors(d / f"checkpoints/step-00000006/{name}.safetensors") for d in (often, seldom))
        assert_close(one, two, rtol=0, atol=0)
    held_out = Regression(size=64).batch(10_000)
    for record in read_records(often / "metrics.jsonl"):
        model = reopen(often, app="regression").weights(Network(), which=str(record["step"]))
        with torch.no_grad():
            error = (model(held_out.x_0) - held_out.x_1).square().mean().item()
        assert_close(record["held-out loss"], error, check_dtype=False)


def test_an_existing_run_is_not_touched_without_resume(tmp_path: Path) -> None:
    fit(RECIPE, tmp_path)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="already holds a run; choose another directory, or add --resume to continue"):
        fit(RECIPE, tmp_path)
    assert everything(tmp_path) == before


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    fit(RECIPE, tmp_path)
    before = everything(tmp_path)
    assert fit(RECIPE, tmp_path, resume=True).step == 6
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (with_train(lr=0.5), "recipe.train.lr = 0.001, not 0.5"),
        (with_train(warmup_steps=3), "recipe.train.warmup_steps = 0, not 3"),
        (replace(RECIPE, size=9), "recipe.size = 8, not 9"),
        (replace(with_train(lr=0.5, warmup_steps=7), size=9), "recipe.size = 8, not 9"),
    ],
)
def test_another_recipe_is_rejected_with_its_first_difference(
    tmp_path: Path, other: Regression, difference: str
) -> None:
    fit(RECIPE, tmp_path)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"made with {difference}")) as error:
        fit(other, tmp_path, resume=True)
    assert str(tmp_path / "recipe.json") in str(error.value)
    assert everything(tmp_path) == before


def test_versions_may_differ_and_missing_fields_are_differences() -> None:
    one = {"monge": "0.1", "app": "a", "recipe": {"x": 1}}
    check_same(Path("p"), one, {**one, "monge": "0.2"})
    with pytest.raises(ValueError, match="made with app = 'a', not 'b'"):
        check_same(Path("p"), one, {**one, "app": "b"})
    with pytest.raises(ValueError, match=r"recipe\.y = None, not 2"):
        check_same(Path("p"), one, {**one, "recipe": {"x": 1, "y": 2}})


def test_a_recipe_that_cannot_be_built_leaves_the_directory_free(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ema: width 0\.9"):
        fit(with_train(ema_width=0.9), tmp_path)
    assert not (tmp_path / "recipe.json").exists()
    assert fit(RECIPE, tmp_path).step == 6


class Unbatchable(Regression):
    """An experiment that can be built, but whose first batch raises an error."""

    def batch(self, number: int) -> Pair:
        if number == 0:
            raise ArithmeticError("batch: no plan; raise epsilon")
        return super().batch(number)


def test_a_run_whose_first_batch_cannot_be_made_leaves_the_directory_free(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError, match="no plan"):
        fit(Unbatchable(RECIPE.train), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "rejected"),
    [
        (lambda x: x + 1e-6, False),
        (lambda x: x + 0.1, True),
        (lambda x: x[:-1], True),
        (lambda x: x.double(), True),
        (lambda x: x.long(), True),
    ],
)
def test_constants_may_differ_only_by_rounding(tmp_path: Path, change, rejected: bool) -> None:
    fit(RECIPE, tmp_path)
    path = tmp_path / "constants.safetensors"
    files.write_tensors(path, {"test": change(files.read_tensors(path)["test"])})
    if rejected:
        with pytest.raises(ValueError, match="test does not match the current data, teacher or encoder"):
            fit(RECIPE, tmp_path, resume=True)
    else:
        assert fit(RECIPE, tmp_path, resume=True).step == 6


def test_integer_constants_must_be_equal_and_floats_are_compared_by_relative_difference() -> None:
    number = torch.tensor(2**62)
    assert same_constant(number, number.clone())
    assert not same_constant(number, number + 1)
    assert not same_constant(torch.tensor([1e-6]), torch.tensor([1e-5]))


def test_resuming_without_a_run_is_logged(tmp_path: Path, caplog) -> None:
    assert fit(RECIPE, tmp_path / "run", resume=True).step == 6
    assert f"{tmp_path / 'run'}: no run to resume; starting a new one" in caplog.text
    caplog.clear()
    fit(RECIPE, tmp_path / "run", resume=True)
    assert not caplog.text


@pytest.mark.slow
def test_a_directory_in_use_is_rejected(tmp_path: Path) -> None:
    script = (
        "import sys, itertools; from pathlib import Path; from regression import Regression; from monge.run import claim\n"
        "from monge.training.distributed import ranks\n"
        "with ranks('cpu') as here, claim(Path(sys.argv[1]), Regression(), resume=False, where=here):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=TRAIN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match="another process is using it; wait for it to finish or choose another directory"
        ):
            fit(RECIPE, tmp_path)
        other.stdin.close()
    assert fit(RECIPE, tmp_path).step == 6  # the lock ended with the process


@pytest.mark.parametrize("name", ["model.safetensors", "resume.safetensors", "ema.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named_and_the_one_before_it_resumes(tmp_path: Path, name: str) -> None:
    intact, cut = tmp_path / "intact", tmp_path / "cut"
    fit(RECIPE, intact)
    fit(RECIPE, cut)
    last = cut / "checkpoints/step-00000006"
    (last / name).write_bytes((last / name).read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a complete") as error:
        fit(RECIPE, cut, resume=True)
    assert str(error.value).startswith(str(last / name))
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    fit(RECIPE, cut, resume=True)
    one, two = everything(intact), everything(cut)
    assert one == two


def test_partial_files_left_by_a_crash_are_removed_when_the_run_resumes(tmp_path: Path) -> None:
    fit(RECIPE, tmp_path)
    before = everything(tmp_path)
    for name in (".writing-step-00000008", ".writing-.writing-step-00000002", ".writing-step-00000003"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 0.1}\n{"step": 8, "lo')
    fit(RECIPE, tmp_path, resume=True)
    assert everything(tmp_path) == before


def test_a_run_without_an_ema_has_no_file_for_it_and_reopens(tmp_path: Path) -> None:
    fit(with_train(ema_width=0.0), tmp_path)
    assert not list(tmp_path.rglob("ema.safetensors"))
    assert reopen(tmp_path, app="regression").weights(Network()) is not None


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run here \(no recipe.json\)"):
        reopen(tmp_path / "nowhere", app="regression")
    fit(RECIPE, tmp_path / "run")
    with pytest.raises(ValueError, match="a run of regression, not of generate"):
        reopen(tmp_path / "run", app="generate")
    with pytest.raises(ValueError, match="the weights belong to another network"):
        reopen(tmp_path / "run", app="regression").weights(torch.nn.Linear(2, 2))
    (tmp_path / "early").mkdir()
    for name in ("recipe.json", "constants.safetensors"):
        (tmp_path / "early" / name).write_bytes((tmp_path / "run" / name).read_bytes())
    with pytest.raises(ValueError, match="no checkpoint yet; train longer"):
        reopen(tmp_path / "early", app="regression").checkpoint()


def test_only_a_directory_created_for_a_failed_run_is_removed(tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing" / "notes").write_text("text")
    for name in ("new", "existing"):
        with pytest.raises(ValueError, match="width"):
            fit(with_train(ema_width=0.9), tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "existing" / "notes").read_text() == "text"


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    fit(RECIPE, tmp_path / "run")
    (tmp_path / "run" / "constants.safetensors").unlink()
    with pytest.raises(ValueError, match=r"constants\.safetensors"):
        reopen(tmp_path / "run", app="regression")
    (tmp_path / "run" / "recipe.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"recipe\.json: not an object with app, recipe"):
        reopen(tmp_path / "run", app="regression")


def test_a_resumed_run_may_train_for_longer_but_not_for_less(tmp_path: Path) -> None:
    fit(with_train(steps=4), tmp_path)
    assert fit(with_train(steps=8, keep_last=5), tmp_path, resume=True).step == 8
    assert json.loads((tmp_path / "recipe.json").read_text())["recipe"]["train"]["steps"] == 8
    assert [record["step"] for record in read_records(tmp_path / "metrics.jsonl")] == [2, 4, 6, 8]
    with pytest.raises(ValueError, match=r"train.steps is 6, but the run is at step 8; use at least that many"):
        fit(with_train(steps=6), tmp_path, resume=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_resuming_ends_in_the_same_weights(
    tmp_path: Path, number: int, code: int
) -> None:
    @dataclass(frozen=True)
    class Signalled(Regression):
        sent: ClassVar[list[int]] = []

        def batch(self, number_: int) -> Pair:
            if number_ == 3 and not self.sent:
                self.sent.append(number)
                signal.raise_signal(number)
            return super().batch(number_)

    recipe = Signalled(with_train(loader_threads=0, milestones=(), save_every=100).train)
    before = signal.getsignal(number)
    Signalled.sent.clear()
    with pytest.raises(
        Interrupted, match=r"interrupted at step 4; .*run the command again to continue, with --resume"
    ) as stop:
        fit(recipe, tmp_path / "stopped")
    assert stop.value.code == code
    assert signal.getsignal(number) is before
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path / "stopped" / "checkpoints")] == [4]
    resumed = fit(recipe, tmp_path / "stopped", resume=True)
    uninterrupted = fit(recipe, tmp_path / "uninterrupted")
    assert_close(resumed.model.state_dict(), uninterrupted.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("mode", "choose"), [("min", min), ("max", max)])
def test_the_run_names_the_metric_of_its_best_checkpoint(tmp_path: Path, mode, choose) -> None:
    @dataclass(frozen=True)
    class Scored(Regression):
        def build(self) -> Run[Pair]:
            run = super().build()
            values = iter([0.5, 0.9, 0.1, 0.7])

            def evaluate(model: torch.nn.Module) -> dict[str, float]:
                return {"held-out loss": 1.0, "recall": next(values)}

            return replace(run, evaluate=evaluate, best_by="recall", best_mode=mode)

    fit(Scored(with_train(steps=8).train), tmp_path)
    recalls = {record["recall"]: record["step"] for record in read_records(tmp_path / "metrics.jsonl")}
    opened = reopen(tmp_path, app="regression")
    assert checkpoint.step_of(opened.checkpoint("best")) == recalls[choose(recalls)]


def test_training_restores_the_threads_and_the_random_state_of_its_caller(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        torch.manual_seed(1)
        fit(RECIPE, tmp_path)
        assert torch.get_num_threads() == 2
        drawn = torch.rand(1)
        torch.manual_seed(1)
        assert torch.equal(drawn, torch.rand(1))
    finally:
        torch.set_num_threads(1)


class Sometimes(Objective):
    """A loss of 1 with a metric that only every third batch has."""

    def forward(self, model: torch.nn.Module, batch: Pair) -> Loss:
        value = (model(batch.x_0) * 0).sum() + 1
        extra = {"rare": torch.tensor(5.0)} if batch.x_1[0, 0] % 3 == 0 else {}
        return Loss(value, {"loss": value.detach(), **extra})


@dataclass(frozen=True)
class Rare:
    """A recipe whose batches are numbered by their targets."""

    app: ClassVar[str] = "rare"
    train: TrainConfig

    def build(self) -> Run[Pair]:
        def batch(number: int) -> Pair:
            return Pair(torch.zeros(1, 8), torch.full((1, 8), float(number)))

        return Run(Network(), Sometimes(), batch, self.train)


def test_a_metric_is_averaged_over_the_steps_that_have_it(tmp_path: Path) -> None:
    fit(Rare(replace(RECIPE.train, steps=8, save_every=8, log_every=4, milestones=())), tmp_path)
    assert [record["rare"] for record in read_records(tmp_path / "metrics.jsonl")] == [5.0, 5.0]


def test_ranks_that_see_different_checkpoints_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monge.run.max_over_ranks", lambda value, world: max(value, 0.0))  # the other rank is at step 0
    fit(RECIPE, tmp_path)
    with pytest.raises(
        ValueError, match="ranks see checkpoints of steps 0 and 6; put the run directory on a shared file system"
    ):
        fit(with_train(steps=8), tmp_path, resume=True)
