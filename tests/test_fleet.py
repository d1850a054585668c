"""Three fleets give the same results, errors name their shard, and no process outlives its fleet."""

import math
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from monge import fleet
from monge.fleet import Fleet, processes, sequential

# a shard is a call of a function that every process can import; functions of this module cannot be imported
NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6]
SHARDS = [partial(math.factorial, number) for number in NUMBERS]
FRAGILE = [*SHARDS[:5], partial(operator.getitem, {}, "nine"), *SHARDS[6:]]
DEADLY = [*SHARDS[:5], partial(os._exit, 3), *SHARDS[6:]]  # exits silently, like a process killed for memory


@pytest.fixture(scope="module")
def ray_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    cluster = pytest.importorskip("ray", reason="needs Ray: pip install 'monge[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield fleet.ray(workers=2)
        cluster.shutdown()
    assert not running("raylet")


def running(name: str) -> list[int]:
    """Ids of the running children of this process whose name contains `name`."""
    running_ids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = path.parent.name, path.read_text()
        except OSError:
            continue
        command, parent = rest[rest.index("(") + 1 : rest.rindex(")")], rest[rest.rindex(")") :].split()[2]
        if name in command and int(parent) == os.getpid():
            running_ids.append(int(number))
    return running_ids


@pytest.fixture(
    params=[
        "sequential",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
    ]
)
def any_fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "sequential":
        return sequential
    return processes(2) if request.param == "processes" else request.getfixturevalue("ray_fleet")


def test_every_fleet_gives_the_results_of_a_loop(any_fleet: Fleet) -> None:
    results = list(any_fleet(operator.call, iter(SHARDS)))
    assert sorted(results) == list(enumerate(map(math.factorial, NUMBERS)))
    assert list(any_fleet(operator.call, [])) == []
    assert not multiprocessing.active_children()


def test_an_error_carries_the_number_of_its_shard(any_fleet: Fleet) -> None:
    with pytest.raises(KeyError, match="nine") as error:
        list(any_fleet(operator.call, FRAGILE))
    assert error.value.__notes__ == ["fleet: in shard 5"]
    assert not multiprocessing.active_children()


def test_sequential_yields_the_results_before_the_error() -> None:
    results = []
    with pytest.raises(KeyError):
        results.extend(sequential(operator.call, FRAGILE))
    assert [number for number, _ in results] == [0, 1, 2, 3, 4]


def test_sequential_is_lazy() -> None:
    results = sequential(operator.call, FRAGILE)
    assert next(results) == (0, 6)


@pytest.mark.slow
def test_the_exit_of_a_worker_is_reported() -> None:
    with pytest.raises(
        ChildProcessError, match=r"fleet: a worker process crashed \(out of memory\?\); use fewer workers"
    ):
        list(processes(2)(operator.call, DEADLY))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_the_exit_of_a_worker_at_its_start_is_reported() -> None:
    with pytest.raises(ChildProcessError, match="fleet: a worker process crashed"):
        list(processes(1, start=partial(os._exit, 1))(operator.call, SHARDS))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_the_exit_of_a_ray_worker_is_reported(ray_fleet: Fleet) -> None:
    with pytest.raises(ChildProcessError, match="fleet: a worker process crashed"):
        list(ray_fleet(operator.call, DEADLY))
    assert len(list(ray_fleet(operator.call, SHARDS))) == len(SHARDS)  # the cluster keeps running


@pytest.mark.slow
def test_every_process_first_runs_start(tmp_path: Path) -> None:
    results = processes(2, start=partial(os.chdir, tmp_path))(operator.call, [os.getcwd] * 4)
    assert [directory for _, directory in results] == [str(tmp_path)] * 4


@pytest.mark.slow
def test_stopping_early_does_not_wait_for_running_shards() -> None:
    results = processes(2)(operator.call, [*SHARDS[:1], partial(time.sleep, 1200)])
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 600
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_ray_draws_at_most_as_many_shards_as_it_has_workers(ray_fleet: Fleet) -> None:
    drawn: list[int] = []

    def shards() -> Iterator[partial[int]]:
        for number, shard in enumerate(SHARDS):
            drawn.append(number)
            yield shard

    results = ray_fleet(operator.call, shards())
    next(results)
    assert len(drawn) == 2
    assert len(list(results)) == len(SHARDS) - 1


PARENT = """
import operator, os, time
from functools import partial
from monge.fleet import processes
if __name__ == "__main__":
    results = processes(2)(operator.call, [os.getpid] * 2 + [partial(time.sleep, 3600)] * 2)
    for _ in range(2):
        print(next(results)[1], flush=True)
    next(results)
"""


@pytest.mark.slow
def test_workers_exit_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = {int(parent.stdout.readline()) for _ in range(2)}
        assert all(Path(f"/proc/{worker}").exists() for worker in workers)
        parent.kill()
    deadline = time.monotonic() + 300
    while (running_workers := [worker for worker in workers if alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in running_workers:
        os.kill(worker, signal.SIGKILL)
    assert not running_workers


def alive(pid: int) -> bool:
    """True if the process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_zero_workers_are_rejected() -> None:
    with pytest.raises(ValueError, match="fleet: workers must be at least 1, got 0"):
        processes(0)
