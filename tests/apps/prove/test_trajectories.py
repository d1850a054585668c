"""Trajectories on disk: rows that hold the tree, parts that are complete or absent, and the older format."""

import errno
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Countdown, all_ways, down, result, rows_of

from monge.apps.prove.legacy import read_legacy
from monge.apps.prove.search import search
from monge.apps.prove.state import Rejection
from monge.apps.prove.trajectories import SCHEMA, Recorder, attempts, results, table
from monge.apps.prove.tree import Search


@given(st.integers(1, 12), st.sampled_from([down, all_ways]))
def test_rows_hold_the_tree(n, policy):
    """Each row starts from the root or from the state after another row, and the rows of a proof form a path."""
    rows = rows_of(n, policy=policy, max_states=60).to_pylist()
    after = {row["state_id"]: row for row in rows if row["state_id"]}
    assert len(after) == sum(row["state_id"] is not None for row in rows)
    for row in rows:
        assert row["parent_id"] == "r-0-0" or after[row["parent_id"]]["state_after"] == row["state_before"]
        assert (row["state_after"] is None) == (row["outcome"] == "tactic")
    path = sorted((row for row in rows if row["label"] == "positive"), key=lambda row: row["depth"])
    assert [row["remaining_depth"] for row in path] == list(range(len(path), 0, -1))
    assert path[0]["state_before"].endswith(str(n))
    assert path[-1]["outcome"] == "proof"
    proof = {row["state_after"] for row in path} | {path[0]["state_before"]}
    for row in rows:  # another way to a state of the proof is neither positive nor negative
        detour = row["outcome"] == "duplicate" and row["state_after"] in proof
        assert row["label"] == "positive" or (row["label"] == "unknown") == detour


def test_a_rejected_proof_is_negative_if_there_is_another_proof():
    class Picky(Countdown):
        def finish(self, state):
            return super().finish(state) if len(state.tactics) > 1 else Rejection("axiom", "no")

    outcome = search(Picky(3), all_ways, Search(batch_size=1))
    rows = table(outcome, run="r", number=0, theorem="3", worker="w", seed=0).to_pylist()
    assert {row["label"] for row in rows if row["outcome"] == "rejected"} == {"negative"}
    assert {row["label"] for row in rows if row["outcome"] == "proof"} == {"positive"}


def test_a_proof_that_was_not_judged_is_not_a_negative_example():
    class Forgetful(Countdown):
        def finish(self, state):
            return Rejection("crash", "both times") if len(state.tactics) == 1 else super().finish(state)

    outcome = search(Forgetful(3), all_ways, Search(batch_size=1))
    rows = table(outcome, run="r", number=0, theorem="3", worker="w", seed=0).to_pylist()
    assert outcome.proof
    assert [row["label"] for row in rows if row["outcome"] == "crash"] == ["unknown"]


def test_without_a_proof_nothing_is_labelled():
    outcome = search(Countdown(3, accept=False), down, Search())
    labels = table(outcome, run="r", number=0, theorem="t", worker="w", seed=0).column("label").to_pylist()
    assert set(labels) == {"unknown"}


def test_theorems_of_an_unfinished_part_are_searched_again(tmp_path):
    """After a crash, a theorem has both its attempts and its result, or neither."""
    with Recorder(tmp_path) as recorder:
        recorder.add(result(0), rows_of(5, 0))
        recorder.add(result(1), rows_of(6, 1))
    lost = Recorder(tmp_path)
    lost.add(result(2), rows_of(7, 2))
    pq.write_table(rows_of(8, 3), tmp_path / "part-00009.parquet")  # complete, but without results
    (tmp_path / ".writing-part-00009.jsonl").write_text('{"number": 3, ')
    del lost
    again = Recorder(tmp_path)
    assert [r.number for r in results(tmp_path)] == [0, 1]
    again.add(result(2), rows_of(7, 2))
    again.close()
    again.close()
    assert [r.number for r in results(tmp_path)] == [0, 1, 2]
    expected = pa.concat_tables([rows_of(5, 0), rows_of(6, 1), rows_of(7, 2)])
    assert attempts(tmp_path).drop(["wall_seconds"]).equals(expected.drop(["wall_seconds"]))
    files = [f"part-0000{k}.{kind}" for k in (0, 1) for kind in ("jsonl", "parquet")]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert pq.ParquetFile(tmp_path / "part-00000.parquet").num_row_groups == 2


def test_an_interrupted_write_can_be_repeated(tmp_path, monkeypatch):
    """Ctrl-C may arrive at any line; each theorem is still written once."""
    real, interrupted = pq.ParquetWriter.write_table, []

    def write(self, rows):
        real(self, rows)
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write)
    recorder = Recorder(tmp_path)
    recorder.add(result(0), rows_of(5, 0))
    recorder.add(result(1), rows_of(6, 1))
    with pytest.raises(KeyboardInterrupt):
        recorder.close()
    recorder.close()
    assert [r.number for r in results(tmp_path)] == [0, 1]
    assert attempts(tmp_path).num_rows == len(rows_of(5)) + len(rows_of(6))


def test_the_older_format_is_converted(tmp_path):
    """In it, a row holds a state and the tactic that led to it. Tactics that close a proof are converted too."""
    rows = [row for row in rows_of(5).to_pylist() if row["outcome"] in ("state", "proof")]

    def number(key: str) -> int:
        return int(key.split("-")[2])

    root = {"state_id": 0, "state_pp": rows[0]["state_before"], "tactic_applied": "", "parent_state_id": None}
    common = {"theorem_name": "5", "llm_log_prob": -1.0, "ebm_score": 2.0, "timestamp_ms": 0, "label": "positive"}
    old = [{**root, **common, "depth_from_root": 0, "remaining_depth": 3, "is_proof_complete": False}]
    old += [
        {
            **common,
            "state_id": number(row["state_id"]),
            "parent_state_id": number(row["parent_id"]),
            "state_pp": row["state_after"],
            "tactic_applied": row["tactic"],
            "depth_from_root": row["depth"] + 1,
            "remaining_depth": -1 if row["remaining_depth"] is None else row["remaining_depth"] - 1,
            "is_proof_complete": row["outcome"] == "proof",
        }
        for row in rows
    ]
    other = [{**row, "theorem_name": "other"} for row in old]
    mixed = [row for pair in zip(old, other, strict=True) for row in pair]  # written by two workers
    pq.write_table(pa.Table.from_pylist(mixed + old), tmp_path / "iter_0.parquet")
    converted = read_legacy(tmp_path / "iter_0.parquet")
    assert converted.schema == SCHEMA
    columns = ("state_before", "tactic", "state_after", "depth", "remaining_depth", "outcome")
    expected = [tuple(row[key] for key in columns) for row in rows]
    for search_number, name in ((0, "5"), (1, "other"), (2, "5")):
        of_search = [r for r in converted.to_pylist() if r["state_id"].startswith(f"iter_0-{search_number}-")]
        assert {r["theorem"] for r in of_search} == {name}
        assert [tuple(r[key] for key in columns) for r in of_search] == expected
    later = [{**row, "state_id": row["state_id"] + 100} for row in old]  # another search of it, in parallel
    for row in later[1:]:
        row["parent_state_id"] += 100
    unscored = [{**row, "ebm_score": None, "llm_log_prob": None, "remaining_depth": None} for row in later]
    both = [row for pair in zip(old, unscored, strict=True) for row in pair]
    pq.write_table(pa.Table.from_pylist(both), tmp_path / "both.parquet")
    separate = read_legacy(tmp_path / "both.parquet").to_pylist()
    assert [r["tactic"] for r in separate if r["state_id"].startswith("both-1-")] == [r["tactic"] for r in rows]
    assert {r["energy"] for r in separate} == {-2.0, None}
    for broken, message in ((old[1:], "has no state 0"), ([*old, {**old[-1], "state_pp": "x"}], "has two states")):
        pq.write_table(pa.Table.from_pylist(broken), tmp_path / "broken.parquet")
        with pytest.raises(ValueError, match=message):
            read_legacy(tmp_path / "broken.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="theorem_name"):
        read_legacy(tmp_path / "none.parquet")


@pytest.mark.parametrize("text", ['{"number": 0, "name": "t', '{"number": 0, "new": 1}', "[1]"])
def test_a_damaged_file_of_a_run_is_reported(tmp_path, text):
    (tmp_path / "part-00000.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"part-00000\.jsonl: not a result written by this version"):
        results(tmp_path)


def test_a_full_disk_loses_only_unwritten_results(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.add(result(0), rows_of(5, 0))
    recorder.close()
    recorder.add(result(1), rows_of(6, 1))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            recorder.close()
    assert [r.number for r in results(tmp_path)] == [0]
    again = Recorder(tmp_path)
    again.add(result(1), rows_of(6, 1))
    again.close()
    assert [r.number for r in results(tmp_path)] == [0, 1]
    assert attempts(tmp_path).num_rows == len(rows_of(5)) + len(rows_of(6))
