"""Time of `integrate` compared with a hand-written loop and the peers, and accuracy of each solver at equal evaluations.

Target: at most 1.05 times the time of the hand-written loop.

    python benchmarks/sampling.py
"""

from collections.abc import Callable

from side_by_side import compare, interleave, print_table, write_result  # first: sets one thread

# isort: split
import torch
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import Tensor
from torchdiffeq import odeint
from toy import Field

from monge.apps.generate.toys import moons
from monge.math.dopri5 import dopri5
from monge.math.metrics import squared_w2
from monge.math.path import Affine
from monge.math.random import seeded
from monge.math.solve import integrate, solve, time_grid
from monge.math.steps import adams_bashforth_2, adams_bashforth_3, dpm_solver_2m, euler, heun, midpoint, rk4
from monge.math.types import Pair, Velocity
from monge.objective.flow_matching import FlowMatching

STEPS = 50


def trained(steps: int = 10_000) -> Field:
    """A field from noise to moons, trained on independent pairs: its trajectories are curved, so solvers differ."""
    torch.manual_seed(0)
    net, objective, draws = Field(), FlowMatching(), seeded(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(net, Pair(torch.randn(256, 2, generator=draws), moons(256, draws))).value.backward()
        optimizer.step()
    return net.eval()


def loops(v: Velocity, n: int) -> dict[str, Callable[[], Tensor]]:
    """50 Euler steps of n samples in four implementations, by name."""
    x_0, knots = torch.randn(n, 2, generator=seeded(1)), torch.linspace(0, 1, STEPS + 1)

    def by_hand() -> Tensor:
        x, h = x_0, 1 / STEPS
        for k in range(STEPS):
            x = x + h * v(x, torch.full((n,), k * h))
        return x

    class Wrapped(ModelWrapper):
        def forward(self, x: Tensor, t: Tensor, **extras) -> Tensor:
            return v(x, t.expand(len(x)))

    solver = ODESolver(Wrapped(torch.nn.Identity()))
    return {
        "monge": lambda: integrate(v, x_0, knots, step=euler),
        "by hand": by_hand,
        "torchdiffeq": lambda: odeint(lambda t, x: v(x, t.expand(n)), x_0, knots, method="euler")[-1],
        "flow_matching": lambda: solver.sample(x_0, step_size=None, method="euler", time_grid=knots),
    }


def quality(net: Field) -> list[dict[str, object]]:
    """Median distance from the endpoint of the exact trajectory, and squared W2 to the data, at equal evaluations
    (adams_bashforth_3 takes one more, for its first step)."""
    steps = {
        "euler": (euler, 1),
        "midpoint": (midpoint, 2),
        "heun": (heun, 2),
        "rk4": (rk4, 4),
        "adams-bashforth 2": (adams_bashforth_2, 1),
        "adams-bashforth 3": (adams_bashforth_3, 1),
        "dpm-solver++ 2m": (dpm_solver_2m(Affine()), 1),
    }
    x_0, x_1 = torch.randn(1024, 2, generator=seeded(2)), moons(1024, seeded(3))
    reference = integrate(net, x_0, time_grid(1, x_0), step=dopri5(rtol=1e-7, atol=1e-7))
    rows: list[dict[str, object]] = []
    for name, (step, each) in steps.items():
        row: dict[str, object] = {"solver": name}
        for budget in (4, 8, 16, 32, 64):
            x = integrate(net, x_0, time_grid(budget // each, x_0), step=step)
            row[f"error at {budget}"] = float((x - reference).norm(dim=1).median())
            row[f"W2^2 at {budget}"] = squared_w2(x, x_1)
        rows.append(row)
    for tolerance in (1e-2, 1e-3, 1e-4):
        x, evaluations = solve(net, x_0, time_grid(1, x_0), step=dopri5(rtol=tolerance, atol=tolerance))
        error = float((x - reference).norm(dim=1).median())
        rows.append(
            {"solver": f"dopri5 {tolerance:g}", "evaluations": evaluations, "error": error, "W2^2": squared_w2(x, x_1)}
        )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    with torch.enable_grad():
        net = trained()
    with torch.no_grad():
        speed = []
        for n, rounds in ((256, 300), (10_000, 30)):
            times = interleave(loops(net, n), rounds=rounds)
            speed.append({"batch": n, "rounds": len(times["monge"]), **compare(times)})
        print_table("50 Euler steps of an MLP field, medians", speed)
        exact = quality(net)
        print_table("Distance to the exact endpoints, and squared W2 to the data, by number of evaluations", exact)
    write_result("sampling", speed + exact, packages=["torch", "torchdiffeq", "flow_matching"])


if __name__ == "__main__":
    main()
