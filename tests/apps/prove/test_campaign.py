"""Runs over many theorems: resuming them, and the theorems that a crash of a worker is attributed to."""

from dataclasses import replace

import pytest
from toy import result, rows_of
from waiting import PATIENT, SLOW

from monge import fleet
from monge.apps.prove.campaign import ignore_interrupts, run, stored_settings
from monge.apps.prove.config import Local, SearchConfig, Source
from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.supervisor import MAX_KILLS
from monge.apps.prove.lm.causal import Sampling
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import SCHEMA, attempts, results
from monge.apps.prove.tree import Search

NATURALS = "inductive N | z | s (n : N)\nnamespace N\ndef add : N → N → N | a, z => a | a, s b => s (add a b)\n"
NATURALS += "theorem add_s (a b : N) : add a (s b) = s (add a b) := rfl\ntheorem add_z (a : N) : add a z = a := rfl\n"
THEOREMS = [
    Theorem("z_add", "(a : N) : add z a = a", NATURALS),
    Theorem("wrong", "(a : N) : add z a = z", NATURALS),
    Theorem("refused", ": no such thing", NATURALS),
    Theorem("s_z", "(a : N) : add a (s z) = s a", NATURALS),
]
SHORT = SearchConfig(Search(max_states=3, num_tactics=24, max_seconds=3600.0), PATIENT, limits=SLOW)


@pytest.mark.long
def test_an_interrupted_run_is_resumed(lean, tmp_path):
    """After Ctrl-C at the second theorem and --resume, every theorem and every state id occurs once."""

    def stop(result):
        if result.number == 1:
            raise KeyboardInterrupt

    def toys(function, tasks):
        for task in tasks:
            yield task.number, (result(task.number, "out of nodes"), rows_of(5, task.number))

    with pytest.raises(KeyboardInterrupt):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: toys, on_result=stop)
    assert [r.number for r in results(tmp_path)] == [0, 1]
    with pytest.raises(ValueError, match="--resume"):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.sequential)
    with pytest.raises(ValueError, match=r"made with search\.max_seconds = 3600\.0, not 120\.0"):
        run(replace(SHORT, search=Search()), THEOREMS, tmp_path, fleets=lambda: fleet.sequential, resume=True)
    finished = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.sequential, resume=True)
    assert [(r.name, r.proved) for r in finished[2:]] == [("refused", False), ("s_z", True)]
    refused = finished[2]
    assert refused.ended == "refused"
    assert "unknownIdentifier" in refused.error or "no such" in refused.error
    rows = attempts(tmp_path)
    states = [key for key in rows.column("state_id").to_pylist() if key]
    assert len(states) == len(set(states))
    assert set(rows.column("theorem").to_pylist()) == {"5", "s_z"}
    assert len(rows) == 2 * len(rows_of(5)) + finished[3].attempts


@pytest.mark.slow
def test_a_lean_server_that_does_not_start_ends_the_run(lean, tmp_path):
    config = replace(SHORT, limits=replace(SHORT.limits, memory_gb=0.001))
    with pytest.raises(OSError, match="uses more than"):
        run(config, THEOREMS[:1], tmp_path, fleets=lambda: fleet.sequential)


@pytest.mark.long
def test_workers_are_processes(lean, tmp_path):
    finished = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.processes(2, start=ignore_interrupts))
    assert [r.proved for r in finished] == [True, False, False, True]


@pytest.mark.long
def test_workers_can_run_on_a_cluster(lean, tmp_path):
    cluster = pytest.importorskip("ray", reason="needs Ray: pip install 'monge[ray]'")
    try:
        finished = run(SHORT, THEOREMS, tmp_path, fleets=lambda: fleet.ray(workers=2))
    finally:
        cluster.shutdown()
    assert [r.proved for r in finished] == [True, False, False, True]


class Crashing:
    """A fleet of two workers. One crashes on the second theorem while another is in progress. If `knows`, the crash names the
    theorem, as under Ray."""

    def __init__(self, *, knows=False):
        self.knows = knows

    def __call__(self, function, shards):
        for number, task in enumerate(shards):
            if task.number == 1:
                with (function.directory / "started.txt").open("a") as file:
                    file.writelines(f"{other.number}\n" for other in shards[number : number + 2])
                raise fleet.WorkerCrashed(number if self.knows else None)
            yield number, (result(task.number, "out of nodes", name=task.theorem.name), SCHEMA.empty_table())


class Broken:
    """A fleet whose workers crash on every theorem."""

    def __init__(self, in_progress):
        self.in_progress = in_progress

    def __call__(self, function, shards):
        (function.directory / "started.txt").write_text("".join(f"{t.number}\n" for t in shards[: self.in_progress]))
        raise fleet.WorkerCrashed
        yield


@pytest.mark.parametrize(("in_progress", "given_up"), [(0, 0), (1, 1), (2, 2)])
def test_a_run_ends_if_workers_crash_on_every_theorem(tmp_path, in_progress, given_up):
    with pytest.raises(ChildProcessError):
        run(SHORT, THEOREMS, tmp_path, fleets=lambda: Broken(in_progress))
    assert len(results(tmp_path)) == given_up


def test_only_a_run_without_results_can_be_started_again(tmp_path):
    """A setting may have been wrong. A run with results is only resumed by the same version of the program."""
    wrong = replace(SHORT, lean="no-such-lean")
    with pytest.raises(ChildProcessError):
        run(wrong, THEOREMS, tmp_path, fleets=lambda: Broken(0))
    assert run(SHORT, THEOREMS, tmp_path, fleets=Crashing)
    path = tmp_path / "settings.json"
    path.write_text(path.read_text().replace('"program": "', '"program": "0'))
    with pytest.raises(ValueError, match="made with program = "):
        run(SHORT, THEOREMS, tmp_path, fleets=Crashing, resume=True)


def test_a_run_with_changed_examples_is_not_resumed(tmp_path):
    examples = tmp_path / "examples"
    examples.mkdir()
    (examples / "part.jsonl").write_text("{}")
    config = replace(SHORT, policy="copy", examples=(str(examples),))
    assert run(config, THEOREMS, tmp_path / "run", fleets=Crashing)
    (examples / "lock").touch()
    assert run(config, THEOREMS, tmp_path / "run", fleets=Crashing, resume=True)
    (examples / "part.jsonl").write_text("{ }")
    with pytest.raises(ValueError, match=r"settings\.json: .*examples has changed since the run began"):
        run(config, THEOREMS, tmp_path / "run", fleets=Crashing, resume=True)


class Idle:
    """A Lean server that starts, and raises the errors in `errors` when it elaborates statements."""

    needs_restart = exhausted = False
    errors: list[Exception]

    def __init__(self, *_, **__): ...
    def hello(self): ...
    def close(self): ...
    def header(self, text, budget): ...

    def statement(self, theorem, budget):
        raise Idle.errors.pop(0) if Idle.errors else ValueError("no statement")


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr("monge.apps.prove.lean.supervisor.LeanServer", Idle)
    monkeypatch.setattr(SearchConfig, "toolchain", lambda self: None)


@pytest.mark.parametrize(
    ("errors", "ended"),
    [
        ([ServerCrashed("it printed")], "refused"),
        ([ServerCrashed("it printed")] * 2, "quarantined"),
        ([ServerKilled("it was killed")] * MAX_KILLS, "refused"),
        ([ServerKilled("it was killed")] * (MAX_KILLS + 1), "quarantined"),
    ],
)
def test_a_theorem_that_crashes_the_judge_is_quarantined_and_the_run_continues(idle, tmp_path, errors, ended):
    """An external kill is not attributed to the theorem until it happens repeatedly."""
    Idle.errors = list(errors)
    first, second = run(SHORT, THEOREMS[:2], tmp_path, fleets=lambda: fleet.sequential)
    assert (first.ended, second.ended) == (ended, "refused")
    assert first.error == (str(errors[0]) if ended == "quarantined" else "no statement")


def test_stored_settings_are_read_back_unchanged(tmp_path):
    """Paths, tuples and nested settings included."""
    local = Local("model", sampling=Sampling(temperature=0.5))
    config = replace(SHORT, server=Endpoint(cache_file=tmp_path / "cache"), local=local, tactics=("rfl",))
    source = Source(tmp_path / "all.lean", "test", 3)
    run(config, THEOREMS, tmp_path / "run", fleets=Crashing, source=source)
    assert stored_settings(tmp_path / "run") == (config, source)
    with pytest.raises(ValueError, match="holds no run to resume"):
        stored_settings(tmp_path)
    (tmp_path / "settings.json").write_text('{"theorems": ["a"], "program": "", "run": "", "search": {}}')
    with pytest.raises(ValueError, match="is damaged, or from another version of monge"):
        stored_settings(tmp_path)


@pytest.mark.parametrize("knows", [False, True])
def test_a_theorem_that_two_workers_crashed_on_is_quarantined_and_no_other(tmp_path, knows):
    finished = run(SHORT, THEOREMS, tmp_path, fleets=lambda: Crashing(knows=knows))
    assert [r.ended for r in finished] == ["out of nodes", "quarantined", "out of nodes", "out of nodes"]
    assert run(SHORT, THEOREMS, tmp_path, fleets=Crashing, resume=True) == finished  # nothing is left to search
    other = [replace(THEOREMS[0], signature=": True"), *THEOREMS[1:]]
    with pytest.raises(ValueError, match=r"made with theorems\.texts\.00000 z_add = "):
        run(SHORT, other, tmp_path, fleets=Crashing, resume=True)
