"""Written proofs as trajectories: each is flattened into steps, with the goals that Lean records before each, and replayed."""

import re
import time
from dataclasses import dataclass
from typing import Any

from monge.apps.prove.canonical import canonical
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lm.prompt import completion, tactic_of
from monge.apps.prove.search import Prover
from monge.apps.prove.state import Budget, Failure, Goal, Rejection, Theorem, statement_text
from monge.apps.prove.tree import Attempt, Node, Outcome, Suggestion

SPACE = re.compile(r"(?:\s|--[^\n]*\n|/-(?:(?!-/).)*-/)+\Z", re.DOTALL)
"""White space and comments at the end of a text."""


@dataclass(frozen=True)
class Step:
    """A tactic of a written proof, with holes `?_` in place of its branches."""

    tactic: str
    before: tuple[Goal, ...] | None
    """The goals in focus before it, as Lean recorded them; None if it recorded none."""


def steps_of(server: LeanServer, theorem: Theorem, written: str, budget: Budget) -> tuple[Step, ...]:
    """The steps of a proof, which starts with `:= by`. ValueError if there is none, or with Lean's message if it does not
    compile."""
    if not written:
        raise ValueError("no written proof, or one that cannot be written as tactics")
    text = statement_text(theorem).removesuffix(":= by\n") + written
    fields = {"header": server.header(theorem.header, budget), "text": text}
    answer = server.request("written", seconds=budget.seconds, **fields)
    if "failed" in answer:
        raise ValueError(answer.get("message") or "\n".join(answer["errors"]))
    return tuple(_step(text.encode(), fields) for fields in answer["steps"])


def _step(text: bytes, fields: dict[str, Any]) -> Step:
    start, end = fields["range"]
    tactic, position = "", start
    for first, last, new in sorted(fields["edits"]):
        tactic += text[position:first].decode()
        tactic = (SPACE.sub("", tactic) + " " + new) if tactic else new
        position = last
    tactic += text[position:end].decode()
    first, *others = tactic.split("\n")
    column = len(text[text.rfind(b"\n", 0, start) + 1 : start].decode())
    margin = min([column, *(len(line) - len(line.lstrip()) for line in others if line.strip())])
    before = tuple(map(Goal.read, fields["before"])) if "before" in fields else None
    tactic = "\n".join([first, *(line[margin:] for line in others)])
    if tactic_of(completion(tactic)) != tactic:  # lines that would be read as the next tactic
        tactic = "\n".join([first, *("  " + line[margin:] for line in others)])
    return Step(tactic, before)


def replay(prover: Prover, steps: tuple[Step, ...]) -> Outcome:
    """Apply the steps one after the other. The outcome has an attempt for each step that changes the state or fails.

    It ends early, with the reason in `error`, at a step that fails, or that does not lead to the goals in the written proof.
    """
    outcome, began = Outcome(ended="not replayed"), time.monotonic()
    state = prover.start()
    node = Node(0, state, text=canonical(state))
    for number, step in enumerate(steps, 1):
        if step.before is not None and not _begins_with(state.goals, step.before):
            outcome.error = f"step {number}, {step.tactic!r}: the goals before it are not those of the written proof"
            if outcome.attempts:
                outcome.attempts[-1].outcome = "mismatch"
            break
        start = time.monotonic()
        result = prover.step(state, step.tactic)
        attempt = Attempt(node, Suggestion(step.tactic, 0.0), "state", seconds=time.monotonic() - start)
        attempt.lean_seconds = result.seconds
        if isinstance(result, Failure):
            attempt.outcome, attempt.error = result.kind, result.message
            outcome.error = f"step {number}, {step.tactic!r}: {result.message}"
            outcome.attempts.append(attempt)
            break
        if str(result) == str(state):  # it selects the goal that is already first
            state = result
            continue
        state = result
        attempt.child = node = Node(node.number + 1, state, node, text=canonical(state))
        outcome.attempts.append(attempt)
    else:
        if not state.done:
            outcome.error = "the last step leaves goals"
        elif isinstance(verdict := prover.finish(state), Rejection):
            outcome.error = f"{verdict.kind}: {verdict.message}"
            outcome.attempts[-1].outcome = "rejected"
        else:
            outcome.proof, outcome.ended = verdict, "proved"
            outcome.attempts[-1].outcome = "proof"
            outcome.proofs.append(node)
    outcome.expanded = len(outcome.attempts)
    outcome.seconds = time.monotonic() - began
    return outcome


def _begins_with(goals: tuple[Goal, ...], first: tuple[Goal, ...]) -> bool:
    """True if the first goals print as these, apart from the names of cases."""
    return [_text(goal) for goal in goals[: len(first)]] == [_text(goal) for goal in first]


def _text(goal: Goal) -> str:
    return str(Goal(goal.target, goal.hypotheses))
