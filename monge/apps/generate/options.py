"""Parts shared by the verbs: the device, the console, checks of options, and the data of a run."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from monge.apps.generate.data import Dataset, absolute_source, load
from monge.apps.generate.prepared import data_fingerprint
from monge.apps.generate.recipes import generator_of, stored_recipe
from monge.apps.generate.sample import Generator
from monge.runs import Opened
from monge.training.distributed import device_named

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets


@dataclass(frozen=True)
class DeviceOptions:
    """Device and CPU threads of a computation."""

    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:N, or auto, which takes a GPU if there is one."""
    threads: int = 1
    """Torch threads per operation on the CPU; one is fastest for small networks. 0 keeps torch's default."""

    def generator_of(self, opened: Opened, *, which: str, weak: str | None = None) -> Generator:
        """The run's generator, on this device. Sets torch's number of threads."""
        if self.threads < 0:
            raise ValueError(f"--threads {self.threads}: give at least 1, or 0 for torch's default")
        if self.threads:
            torch.set_num_threads(self.threads)
        return generator_of(opened, which=which, weak=weak, device=device_named(self.device))


DeviceFlags = Annotated[DeviceOptions, tyro.conf.arg(name="")]
DEFAULT_DEVICE = DeviceOptions()


def check_guidance(weight: float, interval: tuple[float, float], weak: str | None) -> None:
    """ValueError for a weight that is not finite, an interval whose ends are not in order, or `weak` with weight 1."""
    if not math.isfinite(weight):
        raise ValueError(f"--guidance {weight}: give a finite number; 1 disables guidance")
    if not interval[0] < interval[1]:
        raise ValueError(f"--interval {interval[0]} {interval[1]}: give the lower end first")
    if weak is not None and weight == 1:
        raise ValueError(f"--weak {weak} has no effect with --guidance 1; give a larger weight")


def data_of(opened: Opened, moved: Path | None) -> Dataset:
    """The data of a run, read from their stored path or from `moved`.

    ValueError if they are missing or differ from the data that the run was trained on.
    """
    recipe, fingerprint = stored_recipe(opened), opened.constants.get("data")
    if moved is not None:
        if not moved.expanduser().exists():
            raise ValueError(f"--data {moved}: no such file or folder; give the current path of the run's data")
        recipe = replace(recipe, data=absolute_source(str(moved)))
    elif Path(recipe.data).is_absolute() and not Path(recipe.data).exists():
        raise ValueError(f"data: {recipe.data!r} is not a file or folder; if the data have moved, give --data NEWPATH")
    data = load(recipe.data, data_range=recipe.data_range)
    if fingerprint is None:
        raise ValueError(
            f"{opened.directory}: made by an earlier version of monge, without a fingerprint of its data; train it again"
        )
    if int(fingerprint) != int(data_fingerprint(data)):
        raise ValueError(
            f"{recipe.data}: not the data that {opened.directory} was trained on; restore them, or give --data NEWPATH"
        )
    return data
