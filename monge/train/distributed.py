"""Ranks under torchrun: who am I, how is the model shared, what does rank zero do alone."""

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


def _never_freed(group: object) -> None:
    """Leak `group`, one for the life of the process.

    The last reference would otherwise be DDP's, which it drops with the interpreter locked (torch 2.13): gloo's thread may
    want the interpreter just then, and the two wait for each other forever. A global of this module does not do either: it is
    dropped while the interpreter ends, when gloo's threads can no longer be joined ("terminate called").
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


@dataclass(frozen=True)
class Ranks:
    """This process among its fellows."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


def is_first() -> bool:
    """Whether this process is rank zero, or alone: the one that prints and draws."""
    return int(os.environ.get("RANK", 0)) == 0


def device_called(name: str) -> torch.device:
    """The device of this process: cpu, cuda (the GPU of its local rank), cuda:1, or auto, a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name}: torch knows no such device; give cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch sees no GPU here; give cpu or auto")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name}: torch cannot use it on this machine; give cpu or auto") from error
    return device


@contextmanager
def ranks(device: str = "auto") -> Iterator[Ranks]:
    """The ranks that torchrun set up, or this process alone, on the device of this name (see `device_called`)."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    here = device_called(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
        _never_freed(dist.group.WORLD)
    try:
        yield Ranks(rank, world, here)
    finally:
        if world > 1:
            dist.destroy_process_group()


def share(step: nn.Module, model: nn.Module, how: str, world: int) -> nn.Module:
    """`step`, whose forward is one training step of `model`, made to run on all ranks.

    DDP wraps it. FSDP2 shards each block of the model (see lm.blocks.block_lists), then the rest, in place.
    """
    if world == 1:
        return step
    if how == "ddp":
        return DistributedDataParallel(step)
    from torch.distributed.fsdp import fully_shard  # a second to import, for torchrun alone

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
    """The model inside `step` can be called by itself: FSDP2 gathers for it what otherwise only `step` would."""
    if sharded := _sharded(step):
        sharded.unshard()
        yield
        sharded.reshard()
    else:
        yield


# fully_shard makes the classes of what it returns, so they need not be imported, which takes a second, to be recognised


def _sharded(step: nn.Module) -> "FSDPModule | None":
    return cast("FSDPModule", step) if hasattr(step, "set_requires_gradient_sync") else None


def is_sharded(tensor: Tensor) -> bool:
    """True for the shard of a tensor (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def full(tensor: Tensor) -> Tensor:
    """The tensor behind a shard; every rank must call this."""
    return cast("DTensor", tensor).full_tensor() if is_sharded(tensor) else tensor


def on_cpu(tensor: Tensor) -> Tensor:
    """The tensor behind a shard, detached and on the CPU; every rank must call this."""
    return full(tensor.detach()).cpu()


def placed_as(value: Tensor, like: Tensor) -> Tensor:
    """A full tensor on the device of `like`, and sharded as `like` is if it has its shape."""
    value = value.to(like.device)
    if not is_sharded(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    shard = cast("DTensor", like)
    return distribute_tensor(value, shard.device_mesh, shard.placements)


def averaged(value: float, world: int) -> float:
    """The mean of `value` over the ranks."""
    return value if world == 1 else _reduced(value, dist.ReduceOp.SUM) / world


def largest(value: float, world: int) -> float:
    """The maximum of `value` over the ranks."""
    return value if world == 1 else _reduced(value, dist.ReduceOp.MAX)


def _reduced(value: float, operation: Any) -> float:
    tensor = torch.tensor(value, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        tensor = tensor.float().cuda()
    dist.all_reduce(tensor, operation)
    return float(tensor)
