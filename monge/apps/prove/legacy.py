"""Conversion of trajectory files in an older format, with twelve columns, to the current schema."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monge.apps.prove.state import State
from monge.apps.prove.trajectories import SCHEMA

COLUMNS = ("theorem_name", "state_id", "state_pp", "tactic_applied", "parent_state_id", "label", "depth_from_root")
MORE_COLUMNS = ("remaining_depth", "llm_log_prob", "ebm_score", "is_proof_complete", "timestamp_ms")


def read_legacy(path: Path) -> pa.Table:
    """A file in the older format, with twelve columns, as rows of SCHEMA.

    In the file, a row holds a state and the tactic that led TO it; here the state before a tactic is taken from the parent's
    row. A row without a parent is the root of a search. A root whose number the theorem has already used restarts the
    numbering, so searches of one theorem that use the same numbers must follow one another in the file. The energy is minus
    the score. ValueError if a column or a parent is missing, if a number stands for two states, or if a state is not one
    tactic deeper than its parent.
    """
    old = pq.read_table(path)
    if missing := [name for name in (*COLUMNS, *MORE_COLUMNS) if name not in old.column_names]:
        raise ValueError(f"{path}: column {missing[0]!r} is missing; pass a trajectory file of the older format")
    rows: list[dict[str, Any]] = []
    states_of: dict[str, dict[int, tuple[int, str, int | None]]] = {}  # per theorem and state: search, text, depth
    searches, run = 0, path.stem
    for row in old.to_pylist():
        name, state, parent = row["theorem_name"], row["state_id"], row["parent_state_id"]
        states, depth = states_of.setdefault(name, {}), row["depth_from_root"]
        if parent is None:
            if state in states:
                states.clear()
            states[state] = searches, row["state_pp"], depth
            searches += 1
            continue
        if parent not in states:
            raise ValueError(f"{path}: {name} has no state {parent} before state {state}, its child; restore its row")
        search, before, parent_depth = states[parent]
        if depth is not None and parent_depth is not None and depth != parent_depth + 1:
            raise ValueError(f"{path}: state {state} of {name} is at depth {depth} but its parent at {parent_depth}")
        reached = search, row["state_pp"], depth
        if states.setdefault(state, reached) != reached:
            raise ValueError(f"{path}: {name} has two states with number {state}; separate its searches")
        proved, remaining, score = row["is_proof_complete"], row["remaining_depth"], row["ebm_score"]
        rows.append(
            {
                "run": run,
                "theorem": name,
                "state_id": f"{run}-{search}-{state}",
                "parent_id": f"{run}-{search}-{parent}",
                "state_before": before,
                "tactic": row["tactic_applied"],
                "state_after": str(State(())) if proved else row["state_pp"],
                "outcome": "proof" if proved else "state",
                "log_probability": row["llm_log_prob"],
                "energy": None if score is None else -score,
                "depth": None if depth is None else depth - 1,
                "remaining_depth": None if remaining is None or remaining < 0 else remaining + 1,
                "label": row["label"],
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)
