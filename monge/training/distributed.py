"""Ranks under torchrun: the rank and device of this process, sharding of the model, and reductions over ranks."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monge.lm.blocks import block_lists

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def _leak(group: object) -> None:
    """Leak a reference to `group`, so that it is never freed.

    Otherwise DDP may drop the last reference while holding the GIL (torch 2.13). If gloo's thread needs the GIL at that moment,
    the two deadlock. A global of this module does not help either: it is released during interpreter shutdown, when gloo's
    threads can no longer be joined ("terminate called").
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, number of ranks, and device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True for rank zero, the process that writes files."""
        return self.rank == 0


def is_first() -> bool:
    """True if this process is rank zero or the only one: the one that prints and writes pictures."""
    return int(os.environ.get("RANK", 0)) == 0


def device_named(name: str) -> torch.device:
    """The device called `name`: cpu, cuda (the GPU of the local rank), cuda:N, or auto (cuda if available, else cpu).

    ValueError if torch cannot use it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name}: unknown to torch; give cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no GPU; give cpu or auto")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name}: torch cannot use it on this machine; give cpu or auto") from error
    return device


def world_size() -> int:
    """The number of ranks that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join torchrun's process group, if there is one, and leave it at the end; yields this process's rank and device.

    `device` is a name as in `device_named`.
    """
    rank, world = int(os.environ.get("RANK", 0)), world_size()
    local_device = device_named(device)
    if local_device.type == "cuda":
        torch.cuda.set_device(local_device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if local_device.type == "cuda" else "gloo")
        _leak(dist.group.WORLD)
    try:
        yield Ranks(rank, world, local_device)
    finally:
        if world > 1:
            dist.destroy_process_group()


def parallelize(step: nn.Module, model: nn.Module, strategy: str, world: int) -> nn.Module:
    """`step`, whose forward returns the loss of `model` on a batch, prepared to run on all ranks.

    "ddp" wraps it. "fsdp" shards it in place: first each block of the model (see lm.blocks.block_lists), then the rest.
    """
    if world == 1:
        return step
    if strategy == "ddp":
        return DistributedDataParallel(step)
    from torch.distributed.fsdp import fully_shard  # takes a second to import, and only torchrun needs it

    for blocks in block_lists(model):
        for block in blocks:
            fully_shard(block)
    fully_shard(step)
    return step


@contextmanager
def without_sync(step: nn.Module) -> Iterator[None]:
    """Accumulate gradients on each rank without exchanging them."""
    if sharded := _sharded(step):
        sharded.set_requires_gradient_sync(False)
        yield
        sharded.set_requires_gradient_sync(True)
    else:
        with step.no_sync() if isinstance(step, DistributedDataParallel) else nullcontext():
            yield


@contextmanager
def gathered(step: nn.Module) -> Iterator[None]:
    """Gather the parameters that FSDP2 shards, so that the model inside `step` can be called directly."""
    if sharded := _sharded(step):
        sharded.unshard()
        yield
        sharded.reshard()
    else:
        yield


# sharded modules and tensors are recognised by their attributes, since importing their classes takes a second


def _sharded(step: nn.Module) -> "FSDPModule | None":
    return cast("FSDPModule", step) if hasattr(step, "set_requires_gradient_sync") else None


def is_sharded(tensor: Tensor) -> bool:
    """True for the shard of a tensor (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def full(tensor: Tensor) -> Tensor:
    """The full tensor of a shard; other tensors are returned unchanged. Every rank must call this."""
    return cast("DTensor", tensor).full_tensor() if is_sharded(tensor) else tensor


def on_cpu(tensor: Tensor) -> Tensor:
    """The full tensor, detached and on the CPU; every rank must call this."""
    return full(tensor.detach()).cpu()


def place_like(value: Tensor, like: Tensor) -> Tensor:
    """`value`, a full tensor, on the device of `like`, and sharded like it if the shapes are equal."""
    value = value.to(like.device)
    if not is_sharded(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    shard = cast("DTensor", like)
    return distribute_tensor(value, shard.device_mesh, shard.placements)


def mean_over_ranks(value: float, world: int) -> float:
    """The mean of `value` over the ranks; every rank must call this."""
    return value if world == 1 else _reduce(value, dist.ReduceOp.SUM) / world


def max_over_ranks(value: float, world: int) -> float:
    """The maximum of `value` over the ranks; every rank must call this."""
    return value if world == 1 else _reduce(value, dist.ReduceOp.MAX)


def peak_memory(device: torch.device) -> float | None:
    """Peak memory allocated on a GPU by this process, in GB; None on other devices."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def _reduce(value: float, operation: Any) -> float:
    tensor = torch.tensor(value, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        tensor = tensor.float().cuda()
    dist.all_reduce(tensor, operation)
    return float(tensor)
