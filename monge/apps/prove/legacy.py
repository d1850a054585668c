"""Trajectories of the older form, of twelve columns, as rows of the present schema."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monge.apps.prove.state import State
from monge.apps.prove.trajectories import SCHEMA

OLD = ("theorem_name", "state_id", "state_pp", "tactic_applied", "parent_state_id", "label", "depth_from_root")
OLD_MORE = ("remaining_depth", "llm_log_prob", "ebm_score", "is_proof_complete", "timestamp_ms")


def restored(path: Path) -> pa.Table:
    """A file of the older form, of twelve columns, as rows of SCHEMA.

    There a row is a state with the tactic that led TO it, so that pairing the two of a row pairs a tactic with its result:
    here the state before is that of the parent. A search begins with its root, a row without a parent; a root of the number
    of a state that the theorem had already starts the count again: searches of one theorem that count alike must follow one
    another in the file. A score is taken for minus an energy. ValueError if columns are missing, or a parent, if a number
    stands for two states, or a state is not one tactic deeper than its parent.
    """
    found = pq.read_table(path)
    if missing := [name for name in (*OLD, *OLD_MORE) if name not in found.column_names]:
        raise ValueError(f"{path}: not a trajectory of twelve columns: it has no {missing[0]!r}")
    rows: list[dict[str, Any]] = []
    open_: dict[str, dict[int, tuple[int, str, int | None]]] = {}  # of each theorem its states: search, text, depth
    searches, run = 0, path.stem
    for row in found.to_pylist():
        name, state, parent = row["theorem_name"], row["state_id"], row["parent_state_id"]
        states, depth = open_.setdefault(name, {}), row["depth_from_root"]
        if parent is None:
            if state in states:
                states.clear()
            states[state] = searches, row["state_pp"], depth
            searches += 1
            continue
        if parent not in states:
            raise ValueError(f"{path}: state {state} of {name} has no parent before it")
        search, before, above = states[parent]
        if depth is not None and above is not None and depth != above + 1:
            raise ValueError(f"{path}: state {state} of {name} is at depth {depth} and its parent at {above}")
        reached = search, row["state_pp"], depth
        if states.setdefault(state, reached) != reached:
            raise ValueError(f"{path}: {name} has two states of number {state}")
        closed, remaining, score = row["is_proof_complete"], row["remaining_depth"], row["ebm_score"]
        rows.append(
            {
                "run": run,
                "theorem": name,
                "state_id": f"{run}-{search}-{state}",
                "parent_id": f"{run}-{search}-{parent}",
                "state_before": before,
                "tactic": row["tactic_applied"],
                "state_after": str(State(())) if closed else row["state_pp"],
                "outcome": "proof" if closed else "state",
                "log_probability": row["llm_log_prob"],
                "energy": None if score is None else -score,
                "depth": None if depth is None else depth - 1,
                "remaining_depth": None if remaining is None or remaining < 0 else remaining + 1,
                "label": row["label"],
            }
        )
    return pa.Table.from_pylist(rows, SCHEMA)
