"""One step of the two-dimensional OT-CFM tutorial, batch 256: coupling, forward, backward, Adam. monge and torchcfm alternate.

Target: at least three times as fast as torchcfm. Both train torchcfm's tutorial network with torch.optim.Adam.

    python benchmarks/train_step.py
"""

from collections.abc import Callable

from side_by_side import compare, interleave, print_table, write_result  # first: sets one thread

# isort: split
import torch
from torch import Tensor
from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher
from toy import Field

from monge.apps.generate.toys import gaussians, moons
from monge.math.coupling import Coupling, MinibatchOT, identity
from monge.math.random import seeded
from monge.math.types import Pair
from monge.objective.flow_matching import FlowMatching


def stepper(loss: Callable[[Field, Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """A function that trains its own network for one step per call, on batches drawn beforehand."""
    torch.manual_seed(0)
    field, draws, count = Field(), seeded(0), 0
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
    batches = [(gaussians(256, draws), moons(256, draws)) for _ in range(32)]

    def step() -> None:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        loss(field, *batches[count % len(batches)]).backward()
        optimizer.step()

    return step


def ours(coupling: Coupling) -> Callable[[], None]:
    objective = FlowMatching(coupling=coupling)
    return stepper(lambda field, x_0, x_1: objective(field, Pair(x_0, x_1)).value)


def theirs(matcher: ConditionalFlowMatcher) -> Callable[[], None]:
    def loss(field: Field, x_0: Tensor, x_1: Tensor) -> Tensor:
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(x_0, x_1)
        return (field(x_t, t) - u_t).square().mean()

    return stepper(loss)


def main() -> None:
    torch.set_num_threads(1)
    pairs = {
        "OT-CFM": (ours(MinibatchOT()), theirs(ExactOptimalTransportConditionalFlowMatcher(sigma=0.0))),
        "I-CFM": (ours(identity), theirs(ConditionalFlowMatcher(sigma=0.0))),
    }
    rows = []
    for name, (monge, torchcfm) in pairs.items():
        times = interleave({"monge": monge, "torchcfm": torchcfm}, rounds=500)
        rows.append({"step": name, "batch": 256, "rounds": 500, **compare(times)})
    print_table("One training step, medians", rows)
    write_result("train_step", rows, packages=["torch", "numba", "numpy", "torchcfm", "POT"])


if __name__ == "__main__":
    main()
