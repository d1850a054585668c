"""Runs over many theorems: what is cut off goes on, and who pays for a worker that dies."""

from dataclasses import replace

import pytest
from toy import result

from monge import fleet
from monge.apps.prove.bench import Campaign, closed
from monge.apps.prove.campaign import run, undisturbed
from monge.apps.prove.lean.server import ServerCrashed, ServerKilled
from monge.apps.prove.lean.session import KILLS
from monge.apps.prove.state import Budget, Theorem
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
                raise fleet.WorkerCrashed(number if self.knows else None)
            yield number, (result(task.number, "out of nodes", name=task.theorem.name), SCHEMA.empty_table())


class Broken:
    """A fleet whose workers die of whatever they are given."""

    def __init__(self, in_hand):
        self.in_hand = in_hand

    def __call__(self, function, shards):
        (function.directory / "started.txt").write_text("".join(f"{t.number}\n" for t in shards[: self.in_hand]))
        raise fleet.WorkerCrashed
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
        raise ServerCrashed("it printed")


@pytest.mark.slow
def test_a_theorem_that_kills_the_judge_is_quarantined_and_ends_no_run(lean, tmp_path, monkeypatch):
    for name in ("LeanServer", "Judge"):
        monkeypatch.setattr(f"monge.apps.prove.bench.{name}", Idle)
    found = run(SHORT, THEOREMS[:2], tmp_path, fleets=lambda: fleet.here)
    closed()
    assert [(r.ended, r.error) for r in found] == [("quarantined", "it printed")] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "ended"), [(KILLS, "refused"), (KILLS + 1, "quarantined")])
def test_a_theorem_pays_late_for_what_is_killed_from_outside(lean, tmp_path, monkeypatch, killed, ended):
    left = [killed]

    def prepare(self, theorem):
        if left[0]:
            left[0] -= 1
            raise ServerKilled("it was killed")
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
