"""A toy theorem without Lean, where n is proved by counting down to 0, and the records of a run of such theorems."""

import pyarrow as pa

from monge.apps.prove.policy import ranked
from monge.apps.prove.search import search
from monge.apps.prove.state import Failure, Goal, Proof, Rejection, State, Theorem
from monge.apps.prove.trajectories import Result, table
from monge.apps.prove.tree import Search


class Countdown:
    """Proves n by subtracting 1 or 3, or by doubling. Reaching 0 is a proof; a negative number is a failure.

    With `own`, the states name n, so that no two theorems share one.
    """

    def __init__(self, n: int, accept: bool = True, own: bool = False) -> None:
        self.n, self.accept, self.stepped = n, accept, 0
        self.suffix = f" of {n}" if own else ""

    def start(self) -> State:
        return self.state(self.n, ())

    def step(self, state: State, tactic: str) -> State | Failure:
        self.stepped += 1
        n = int(state.goals[0].target.split()[0])
        n = 2 * n if tactic == "double" else n - int(tactic)
        return Failure("tactic", "below zero") if n < 0 else self.state(n, (*state.tactics, tactic))

    def finish(self, state: State) -> Proof | Rejection:
        theorem = Theorem("toy", str(self.n))
        return Proof(theorem, state.tactics) if self.accept else Rejection("axiom", "no")

    def state(self, n: int, tactics: tuple[str, ...]) -> State:
        return State(() if n == 0 else (Goal(f"{n}{self.suffix}"),), tactics)


def all_ways(states, limit):
    return [ranked(("1", "3", "double"), limit) for _ in states]


def down(states, limit):
    return [ranked(("1", "3"), limit) for _ in states]


def rows_of(n: int, number: int = 0, policy=down, **fields) -> pa.Table:
    outcome = search(Countdown(n), policy, Search(batch_size=1, **fields))
    return table(outcome, run="r", number=number, theorem=str(n), worker="w", seed=0)


def result(number: int, ended: str = "proved", name: str = "", **fields) -> Result:
    fields = {"signature": ": True", "header": "", "imports": ("Init",)} | fields
    return Result(number, name or f"t{number}", ended=ended, **fields)
