"""A checkpoint is complete or absent, and errors name truncated files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from regression import Regression
from torch.testing import assert_close

from monge.training import checkpoint
from monge.training.checkpoint import prune, read, save, steps
from monge.training.distributed import Ranks
from monge.training.loop import prepare, train
from monge.training.state import State, load_weights

HERE = Ranks(0, 1, torch.device("cpu"))
MONGE = Path(checkpoint.__file__).parents[1]


def state_after(count: int) -> State:
    """The state after `count` steps."""
    run = Regression().build()
    state, step = prepare(run, HERE)
    for number, _ in train(run, state, step, HERE):
        if number == count:
            break
    return state


def saved(directory: Path, numbers: list[int]) -> None:
    state = state_after(1)
    for state.step in numbers:
        save(directory, state, HERE)


def stored_steps(directory: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in steps(directory)]


def test_a_saved_state_is_read_unchanged(tmp_path: Path) -> None:
    state = state_after(3)
    state.best = {"step": 2, "value": 0.5}
    path = save(tmp_path, state, HERE)
    assert sorted(p.name for p in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "resume.safetensors",
        "state.json",
    ]
    tensors, scalars = read(path, state.files())
    assert scalars == {"step": 3, "best": {"step": 2, "value": 0.5}, "ranks": 1, "frozen": ["", ""]}
    assert_close(tensors, state.tensors(HERE), rtol=0, atol=0)
    fresh = state_after(1)
    fresh.load(tensors, scalars, HERE)
    torch.set_rng_state(tensors["resume"]["rng/cpu/0"])
    assert_close(fresh.tensors(HERE), tensors, rtol=0, atol=0)


def test_pruning_keeps_the_last_checkpoints_and_the_chosen_steps(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2, 3, 4, 5, 6])
    prune(tmp_path, keep=2, keep_steps={1, 3, 99})
    assert stored_steps(tmp_path) == [1, 3, 5, 6]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_half_written_checkpoint_is_removed_and_never_listed(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2])
    (tmp_path / ".writing-step-00000003").mkdir()
    (tmp_path / ".writing-step-00000003" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".writing-.writing-step-00000001").mkdir()
    assert stored_steps(tmp_path) == [1, 2]
    saved(tmp_path, [3])
    prune(tmp_path, keep=5, keep_steps=set())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002", "step-00000003"]
    read(tmp_path / "step-00000003", ["model", "resume", "ema"])


@pytest.mark.parametrize("name", ["model", "resume", "ema"])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999, None])
def test_a_truncated_or_missing_file_is_named_in_one_sentence(
    tmp_path: Path, name: str, fraction: float | None
) -> None:
    saved(tmp_path, [7])
    file = tmp_path / "step-00000007" / f"{name}.safetensors"
    if fraction is None:
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match="not a complete safetensors file") as error:
        read(file.parent, ["model", "resume", "ema"])
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", '{"step": 7, "be', None])
def test_truncated_or_missing_scalars_are_named(tmp_path: Path, content: str | None) -> None:
    saved(tmp_path, [7])
    file = tmp_path / "step-00000007" / "state.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ValueError, match="not a complete JSON file") as error:
        read(file.parent, ["model"])
    assert str(error.value).startswith(f"{file}: ")


def test_weights_of_another_network_are_rejected_and_change_nothing() -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 4)
    before = {name: p.clone() for name, p in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"another network.*'weight'"):
        load_weights(module, other.state_dict())
    with pytest.raises(ValueError, match=r"another network.*'bias'"):
        load_weights(module, {"weight": before["weight"]})
    assert_close(module.state_dict(), before, rtol=0, atol=0)


# the limit simulates a full disk: writing fails in the middle of a file
FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from regression import Regression
from monge.training.checkpoint import save
from monge.training.distributed import Ranks
from monge.training.loop import prepare
HERE = Ranks(0, 1, torch.device("cpu"))
state, _ = prepare(Regression().build(), HERE)
state.step = 2
save(Path(sys.argv[1]), state, HERE)
state.step = 3
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    save(Path(sys.argv[1]), state, HERE)
except OSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 1000])
def test_a_full_disk_leaves_earlier_checkpoints_intact(tmp_path: Path, size: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(size)],
        cwd=Path(__file__).parent,
        text=True,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path / 'step-00000003'}: could not be written (")
    assert result.stdout.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    assert json.loads((tmp_path / "step-00000002" / "state.json").read_text())["step"] == 2
    read(tmp_path / "step-00000002", ["model", "resume", "ema"])


def test_nothing_in_the_package_reads_a_pickle_that_may_run_code() -> None:
    """`torch.load` of other packages' weights is allowed with weights_only=True, which reads tensors and nothing else."""
    pickles = [
        f"{path.relative_to(MONGE)}: {word}"
        for path in MONGE.rglob("*.py")
        for line in path.read_text().splitlines()
        for word in (
            "torch.load(",
            "torch.save(",
            "import pickle",
            "from pickle",
            "allow_pickle=True",
            "joblib",
            "dill",
        )
        if word in line and not (word == "torch.load(" and "weights_only=True" in line)
    ]
    assert pickles == []


def test_a_scalar_of_an_earlier_version_is_loaded_as_one_entry() -> None:
    module = torch.nn.Module()
    module.temperature = torch.nn.Parameter(torch.zeros(1))
    load_weights(module, {"temperature": torch.tensor(3.0)})
    assert module.temperature.tolist() == [3.0]
