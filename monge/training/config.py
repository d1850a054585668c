"""The training hyperparameters that all recipes share."""

from dataclasses import dataclass
from typing import Literal


def check_at_least(settings: object, **minimums: float) -> None:
    """ValueError if a field of `settings` is below its minimum.

    >>> check_at_least(TrainConfig(keep_last=1), keep_last=2)
    Traceback (most recent call last):
    ValueError: keep_last must be at least 2, got 1
    """
    for name, minimum in minimums.items():
        if not (value := getattr(settings, name)) >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


@dataclass(frozen=True)
class TrainConfig:
    """Training hyperparameters, the field `train` of every recipe. ValueError if one is out of range.

    The upper limit of `ema_width` is checked when training starts.
    """

    steps: int = 10_000
    """Number of optimizer steps."""
    lr: float = 1e-3
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimizer; muon updates the matrices inside blocks and leaves all other parameters to AdamW."""
    warmup_steps: int = 200
    """Steps of linear learning-rate warm-up; cosine decay follows."""
    final_lr_fraction: float = 0.0
    """Learning rate of the last step as a fraction of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices; vectors such as biases have none."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it. 0 disables clipping."""
    gradient_accumulation: int = 1
    """Number of batches per optimizer step on each rank; their gradients are averaged."""
    ema_width: float = 0.05
    """Width of the power-function EMA of the weights, as a fraction of the steps so far; below 0.289. 0 disables the EMA."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the forward pass: float32, or bfloat16 by autocast. Weights stay in float32."""
    compile: bool = False
    """Compile the model with torch.compile: faster on a GPU, but starts up to a minute later."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Data parallelism under torchrun: replicated weights (ddp) or sharded ones (fsdp)."""
    seed: int = 0
    """Seed of the weights, the batches and the noise."""
    save_every: int = 1000
    """Number of steps between checkpoints, each with an evaluation."""
    keep_last: int = 2
    """Number of recent checkpoints to keep, in addition to the best one and the milestones."""
    milestones: tuple[int, ...] = ()
    """Steps at which a checkpoint is saved and always kept, such as an early one for autoguidance."""
    patience: int = 0
    """Stop early after this many times `save_every` steps without a better evaluation; 0 never stops early."""
    log_every: int = 50
    """Number of steps between log entries."""
    loader_threads: int = 1
    """Threads that load and couple the next batches during a step; 0 disables prefetching."""
    threads: int = 1
    """Torch threads per operation on the CPU; small networks run fastest with one. 0 keeps torch's default."""
    device: str = "auto"
    """Device to train on: cpu, cuda, cuda:N, or auto, which takes a GPU if there is one."""

    def saves(self, number: int) -> bool:
        """True if this step ends with an evaluation and a checkpoint."""
        return number % self.save_every == 0 or number in self.milestones or number == self.steps

    def __post_init__(self) -> None:
        check_at_least(self, steps=1, gradient_accumulation=1, save_every=1, log_every=1, keep_last=1)
        for name in ("warmup_steps", "final_lr_fraction", "weight_decay", "max_grad_norm", "ema_width", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("loader_threads", "threads"):
            if not 0 <= getattr(self, name) <= 1024:
                raise ValueError(f"{name} must be between 0 and 1024, got {getattr(self, name)}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit in 64 bits, got {self.seed}")
        if any(step < 1 for step in self.milestones):
            raise ValueError(f"milestones must be at least 1, got {self.milestones}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
