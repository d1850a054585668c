"""How to train, in scalars."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every application's recipe has one of these under `train`."""

    steps: int = 10_000
    """Optimizer steps."""
    lr: float = 1e-3
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon takes the matrices inside blocks; the rest stays with AdamW."""
    warmup: int = 200
    """Steps of linear warm-up; a cosine takes the rate to `final` of its peak afterwards."""
    final: float = 0.0
    """What is left of the learning rate at the last step."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest gradient norm; 0 for none."""
    accumulate: int = 1
    """Batches per optimizer step."""
    ema: float = 0.05
    """Width of the EMA's power-function profile, relative to the steps so far; 0 for none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    """torch.compile the model: pays on a GPU, costs up to a minute at start."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How ranks share the work under torchrun."""
    seed: int = 0
    save_every: int = 1000
    """Steps between checkpoints; each is evaluated."""
    keep: int = 2
    """How many of the last checkpoints stay; the best and the milestones stay besides."""
    milestones: tuple[int, ...] = ()
    """Steps whose checkpoints stay: autoguidance wants an early one."""
    log_every: int = 50
    workers: int = 1
    """Threads that make and couple the next batches while the step runs; 0 for none."""
    threads: int = 1
    """Torch's threads per operation on the CPU: one is fastest for small networks. 0 leaves torch's own choice."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        for name, low in {"steps": 1, "accumulate": 1, "save_every": 1, "log_every": 1, "keep": 1}.items():
            if getattr(self, name) < low:
                raise ValueError(f"train.{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("warmup", "final", "weight_decay", "clip", "ema", "workers", "threads"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("workers", "threads"):
            if getattr(self, name) > 1024:
                raise ValueError(f"train.{name} must be at most 1024, got {getattr(self, name)}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"train.seed must fit in 64 bits, got {self.seed}")
        if any(step < 1 for step in self.milestones):
            raise ValueError(f"train.milestones are steps from 1 on, got {self.milestones}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"train.lr must be positive and finite, got {self.lr}")
