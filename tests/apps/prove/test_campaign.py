"""Runs over many theorems: what is recorded, what is resumed, what is compared."""

import errno
import json
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Countdown, all_ways, down

from monge import fleet
from monge.apps.prove.bench import Campaign, closed
from monge.apps.prove.campaign import run, undisturbed
from monge.apps.prove.lean.server import Died, Gone
from monge.apps.prove.lean.session import VANISHED
from monge.apps.prove.report import comparison, mcnemar, share, summary_of
from monge.apps.prove.search import search
from monge.apps.prove.state import Budget, Rejection, Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, Result, attempts, restored, results, table
from monge.apps.prove.tree import Search


def rows_of(n: int, number: int = 0, policy=down, **fields) -> pa.Table:
    outcome = search(Countdown(n), policy, Search(batch=1, **fields))
    return table(outcome, run="r", number=number, theorem=str(n), worker="w", seed=0)


def result(number: int, ended: str = "proved", name: str = "", **fields) -> Result:
    return Result(number, name or f"t{number}", ": True", "", ("Init",), ended=ended, **fields)


@given(st.integers(1, 12), st.sampled_from([down, all_ways]))
def test_rows_hold_the_tree(n, policy):
    """Every state but the first is the state after some row; what leads to it is the state before; a proof is a path."""
    rows = rows_of(n, policy=policy, nodes=60).to_pylist()
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
    for row in rows:  # another way to a state of the proof is neither good nor bad
        other = row["outcome"] == "duplicate" and row["state_after"] in proof
        assert row["label"] == "positive" or (row["label"] == "unknown") == other


def test_a_rejected_proof_is_negative_where_there_is_another():
    class Picky(Countdown):
        def finish(self, state):
            return super().finish(state) if len(state.tactics) > 1 else Rejection("axiom", "no")

    outcome = search(Picky(3), all_ways, Search(batch=1))
    rows = table(outcome, run="r", number=0, theorem="3", worker="w", seed=0).to_pylist()
    assert {row["label"] for row in rows if row["outcome"] == "rejected"} == {"negative"}
    assert {row["label"] for row in rows if row["outcome"] == "proof"} == {"positive"}


def test_without_a_proof_nothing_is_labelled():
    outcome = search(Countdown(3, accept=False), down, Search())
    labels = table(outcome, run="r", number=0, theorem="t", worker="w", seed=0).column("label").to_pylist()
    assert set(labels) == {"unknown"}


def test_what_was_not_closed_is_done_again(tmp_path):
    """A crash leaves closed parts and their lines, or nothing of a theorem."""
    with Recorder(tmp_path) as recorder:
        recorder.add(result(0), rows_of(5, 0))
        recorder.add(result(1), rows_of(6, 1))
    lost = Recorder(tmp_path)
    lost.add(result(2), rows_of(7, 2))
    pq.write_table(rows_of(8, 3), tmp_path / "part-00009.parquet")  # closed, its lines not written
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


def test_an_interrupted_write_is_made_good(tmp_path, monkeypatch):
    """Ctrl-C may come at any line of it; what was added is written once."""
    real, struck = pq.ParquetWriter.write_table, []

    def write(self, rows):
        real(self, rows)
        if not struck:
            struck.append(True)
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


def test_the_older_form_gets_its_pairs_back(tmp_path):
    """There a row is a state and the tactic that led to it; the closing tactics are here too."""
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
    mixed = [row for pair in zip(old, other, strict=True) for row in pair]  # two workers wrote
    pq.write_table(pa.Table.from_pylist(mixed + old), tmp_path / "iter_0.parquet")
    found = restored(tmp_path / "iter_0.parquet")
    assert found.schema == SCHEMA
    kept = ("state_before", "tactic", "state_after", "depth", "remaining_depth", "outcome")
    expected = [tuple(row[key] for key in kept) for row in rows]
    for search_number, name in ((0, "5"), (1, "other"), (2, "5")):
        mine = [r for r in found.to_pylist() if r["state_id"].startswith(f"iter_0-{search_number}-")]
        assert {r["theorem"] for r in mine} == {name}
        assert [tuple(r[key] for key in kept) for r in mine] == expected
    later = [{**row, "state_id": row["state_id"] + 100} for row in old]  # another search of it, at the same time
    for row in later[1:]:
        row["parent_state_id"] += 100
    unscored = [{**row, "ebm_score": None, "llm_log_prob": None, "remaining_depth": None} for row in later]
    both = [row for pair in zip(old, unscored, strict=True) for row in pair]
    pq.write_table(pa.Table.from_pylist(both), tmp_path / "both.parquet")
    apart = restored(tmp_path / "both.parquet").to_pylist()
    assert [r["tactic"] for r in apart if r["state_id"].startswith("both-1-")] == [r["tactic"] for r in rows]
    assert {r["energy"] for r in apart} == {-2.0, None}
    for broken, words in ((old[1:], "no parent before it"), ([*old, {**old[-1], "state_pp": "x"}], "has two states")):
        pq.write_table(pa.Table.from_pylist(broken), tmp_path / "broken.parquet")
        with pytest.raises(ValueError, match=words):
            restored(tmp_path / "broken.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="theorem_name"):
        restored(tmp_path / "none.parquet")


def test_statistics_are_those_of_the_books():
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(0, 0) == 1
    assert mcnemar(6, 3) == pytest.approx(0.5078125)
    assert share(39, 83) == "39 of 83, 47.0% (36.6% to 57.6%)"


def ended(path, proved, of=10, **settings):
    path.mkdir()
    campaign = {
        "search": {"nodes": 300, "order": "best"},
        "budget": {"heartbeats": 2000},
        "policy": "template",
        **settings,
    }
    (path / "settings.json").write_text(json.dumps(campaign))
    with Recorder(path) as recorder:
        for k in range(of):
            one = result(k, tactics=("rfl",)) if k in proved else result(k, "out of nodes")
            recorder.add(one, rows_of(3, k))
    return path


def test_runs_are_compared_on_equal_terms(tmp_path):
    first = ended(tmp_path / "a", {0, 1, 2, 3})
    second = ended(tmp_path / "b", {0, 1, 9}, policy="probes", search={"nodes": 300, "order": "breadth"})
    cells = [list(column.cells) for column in comparison(first, second).columns]
    assert cells[1][:3] == [share(4, 10), "2", "1"]
    assert not any("left out" in cell for cell in cells[0])
    fewer = ended(tmp_path / "d", {0}, of=7)
    cells = [list(column.cells) for column in comparison(first, fewer).columns]
    assert [cell[1] for cell in cells] == ["left out: not done in the other", "3", "0"]
    third = ended(tmp_path / "c", {0}, search={"nodes": 100, "order": "best"})
    with pytest.raises(ValueError, match=r"differ in search\.nodes"):
        comparison(first, third)
    assert "search.nodes" in str(comparison(first, third, unequal=True).title)
    assert str(share(4, 10)) in list(summary_of(first).columns[1].cells)
    with pytest.raises(FileNotFoundError, match="no run"):
        comparison(first, tmp_path / "nothing")


def test_two_runs_are_compared_as_their_policies_draw(tmp_path):
    """Of a server and of a local model alike; what the policy in use does not look at is no difference."""

    def told(policy, server=0.6, local=0.6, tokens=64):
        return {
            "policy": policy,
            "server": {"temperature": server, "top_p": 1.0, "max_tokens": tokens, "url": policy},
            "local": {"name": "", "sampling": {"temperature": local, "top_p": 1.0, "max_new_tokens": 64, "tokens": 9}},
        }

    runs = [
        ended(tmp_path / str(k), {k}, **told(*one))
        for k, one in enumerate([("server",), ("local", 2.0), ("local", 0.6, 1.0), ("server", 0.6, 0.6, 128)])
    ]
    comparison(runs[0], runs[1])
    with pytest.raises(ValueError, match=r"differ in server\.temperature"):
        comparison(runs[0], runs[2])
    with pytest.raises(ValueError, match=r"differ in local\.max_tokens"):
        comparison(runs[1], runs[3])
    template = ended(tmp_path / "t", {0}, **told("template", 2.0))
    comparison(template, ended(tmp_path / "u", {0}, **told("template")))


@pytest.mark.parametrize("text", ['{"number": 0, "name": "t', '{"number": 0, "new": 1}', "[1]"])
def test_a_broken_file_of_a_run_is_named(tmp_path, text):
    (tmp_path / "part-00000.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"part-00000\.jsonl: no line of this version"):
        results(tmp_path)
    for settings in ("{", "[1]"):
        (tmp_path / "settings.json").write_text(settings)
        with pytest.raises(ValueError, match=r"settings\.json: "):
            summary_of(tmp_path)


def test_a_full_disk_costs_what_was_not_yet_on_it(tmp_path, monkeypatch):
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


NATURALS = "inductive N | z | s (n : N)\nnamespace N\ndef add : N → N → N | a, z => a | a, s b => s (add a b)\n"
NATURALS += "theorem add_s (a b : N) : add a (s b) = s (add a b) := rfl\ntheorem add_z (a : N) : add a z = a := rfl\n"
THEOREMS = [
    Theorem("z_add", "(a : N) : add z a = a", NATURALS),
    Theorem("wrong", "(a : N) : add z a = z", NATURALS),
    Theorem("refused", ": no such thing", NATURALS),
    Theorem("s_z", "(a : N) : add a (s z) = s a", NATURALS),
]
SHORT = Campaign(Search(nodes=3, candidates=24, seconds=60), Budget())


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(lean, tmp_path):
    """Ctrl-C after two theorems, then --resume: every theorem once, and each state's name once."""

    def stop(result):
        if result.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.here, told=stop)
    assert [r.number for r in results(tmp_path)] == [0, 1]
    with pytest.raises(ValueError, match="--resume"):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.here)
    with pytest.raises(ValueError, match="another search"):
        run(replace(SHORT, search=Search()), THEOREMS, tmp_path, fleets=lambda: fleet.here, resume=True)
    found = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.here, resume=True)
    closed()
    assert [(r.name, r.proved) for r in found] == [
        ("z_add", True),
        ("wrong", False),
        ("refused", False),
        ("s_z", True),
    ]
    assert (found[2].ended, "unknownIdentifier" in found[2].error or "no such" in found[2].error) == ("refused", True)
    rows = attempts(tmp_path)
    states = [key for key in rows.column("state_id").to_pylist() if key]
    assert len(states) == len(set(states))
    assert set(rows.column("theorem").to_pylist()) == {"z_add", "wrong", "s_z"}
    assert len(rows) == sum(r.attempts for r in found)


@pytest.mark.slow
def test_a_lean_that_does_not_start_ends_the_run(lean, tmp_path):
    campaign = replace(SHORT, limits=replace(SHORT.limits, memory=0.001))
    with pytest.raises(OSError, match="holds more"):
        run(campaign, THEOREMS[:1], tmp_path, fleets=lambda: fleet.here)
    closed()


@pytest.mark.long
def test_workers_are_processes(lean, tmp_path):
    found = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.processes(2, start=undisturbed))
    assert [r.proved for r in found] == [True, False, False, True]


@pytest.mark.long
def test_workers_are_those_of_a_cluster(lean, tmp_path):
    cluster = pytest.importorskip("ray")
    try:
        found = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.ray(workers=2))
    finally:
        cluster.shutdown()
    assert [r.proved for r in found] == [True, False, False, True]


class Dying:
    """A fleet of two workers, of which one dies of the second theorem, with another in hand. Ray knows which it was."""

    def __init__(self, *, knows=False):
        self.knows = knows

    def __call__(self, function, shards):
        for number, task in enumerate(shards):
            if task.number == 1:
                with (function.directory / "started.txt").open("a") as file:
                    file.writelines(f"{other.number}\n" for other in shards[number : number + 2])
                raise fleet.WorkerDied(number if self.knows else None)
            yield number, (result(task.number, "out of nodes", name=task.theorem.name), SCHEMA.empty_table())


class Broken:
    """A fleet whose workers die of whatever they are given."""

    def __init__(self, in_hand):
        self.in_hand = in_hand

    def __call__(self, function, shards):
        (function.directory / "started.txt").write_text("".join(f"{t.number}\n" for t in shards[: self.in_hand]))
        raise fleet.WorkerDied
        yield


@pytest.mark.parametrize(("in_hand", "given_up"), [(0, 0), (1, 1), (2, 2)])
def test_where_workers_die_of_everything_the_run_ends(tmp_path, in_hand, given_up):
    with pytest.raises(ChildProcessError):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: Broken(in_hand))
    assert len(results(tmp_path)) == given_up


def test_a_run_that_came_to_nothing_can_be_begun_anew_and_no_other(tmp_path):
    """What was wrong may be a setting; but a run is gone on with by the program that began it."""
    wrong = replace(SHORT, lean="no-such-lean")
    with pytest.raises(ChildProcessError):
        run(wrong, THEOREMS, tmp_path, fleets=lambda: Broken(0))
    assert run(SHORT, THEOREMS, tmp_path, fleets=Dying)
    path = tmp_path / "settings.json"
    path.write_text(path.read_text().replace('"program": "', '"program": "0'))
    with pytest.raises(ValueError, match="begun with another program"):
        run(SHORT, THEOREMS, tmp_path, fleets=Dying, resume=True)


class Idle:
    """Stands for a server and a judge that start and then die of a theorem."""

    worn = False

    def __init__(self, *_, **__): ...
    def hello(self): ...
    def start(self, header): ...
    def close(self): ...

    def prepare(self, theorem):
        raise Died("it printed")


@pytest.mark.slow
def test_a_theorem_that_kills_the_judge_is_quarantined_and_ends_no_run(lean, tmp_path, monkeypatch):
    for name in ("LeanServer", "Judge"):
        monkeypatch.setattr(f"monge.apps.prove.bench.{name}", Idle)
    found = run(SHORT, THEOREMS[:2], tmp_path, fleets=lambda: fleet.here)
    closed()
    assert [(r.ended, r.error) for r in found] == [("quarantined", "it printed")] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "ended"), [(VANISHED, "refused"), (VANISHED + 1, "quarantined")])
def test_a_theorem_pays_late_for_what_is_killed_from_outside(lean, tmp_path, monkeypatch, killed, ended):
    left = [killed]

    def prepare(self, theorem):
        if left[0]:
            left[0] -= 1
            raise Gone("it was killed")
        raise ValueError("no statement")

    for name in ("LeanServer", "Judge"):
        monkeypatch.setattr(f"monge.apps.prove.bench.{name}", Idle)
    monkeypatch.setattr(Idle, "prepare", prepare)
    (found,) = run(SHORT, THEOREMS[:1], tmp_path, fleets=lambda: fleet.here)
    closed()
    assert found.ended == ended


@pytest.mark.parametrize("knows", [False, True])
def test_a_theorem_that_two_workers_died_of_is_quarantined_and_none_beside_it(tmp_path, knows):
    found = run(SHORT, THEOREMS, tmp_path, fleets=lambda: Dying(knows=knows))
    assert [r.ended for r in found] == ["out of nodes", "quarantined", "out of nodes", "out of nodes"]
    assert run(SHORT, THEOREMS, tmp_path, fleets=Dying, resume=True) == found  # nothing is left to do
    other = [replace(THEOREMS[0], signature=": True"), *THEOREMS[1:]]
    with pytest.raises(ValueError, match="another theorems"):
        run(SHORT, other, tmp_path, fleets=Dying, resume=True)
