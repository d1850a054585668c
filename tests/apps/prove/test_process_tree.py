"""A process tree: children are measured with their parent and killed with it."""

import subprocess
import sys

import psutil
import pytest
from waiting import until

from monge.apps.prove.lean.process_tree import Deadline, ProcessTree

HUNGRY = "import time; held = bytearray(100_000_000); print(flush=True); time.sleep(600)"


@pytest.mark.slow
def test_children_are_measured_and_killed_with_their_parent():
    """A child that left the process group is included."""
    script = f"read go; {sys.executable} -c '{HUNGRY}' & setsid sleep 600 & wait"
    parent = subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    tree = ProcessTree(parent.pid)
    assert tree.memory < 0.09
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("go\n")
    parent.stdin.flush()
    parent.stdout.readline()  # the memory is allocated
    assert until(lambda: tree.memory > 0.1 and len(tree.members()) == 3)
    members = tree.members()
    tree.kill()
    parent.wait()
    gone, _ = psutil.wait_procs(members, timeout=300)
    assert len(gone) == 3
    assert tree.memory == 0
    tree.kill()


class Scripted:
    """Processes whose CPU time is a function of the wall-clock time."""

    def __init__(self, used):
        self.used, self.now = used, 0.0

    @property
    def processor(self):
        return self.used(self.now)


@pytest.mark.parametrize(
    ("used", "passes"),
    [
        (lambda now: now, 10.0),
        (lambda now: 2 * now, 10.0),  # two threads
        (lambda now: now / 4, 40.0),  # slowed down by others
        (lambda now: 0.0, 12.0),
        (lambda now: min(now, 9.9), 12.0),  # it works, then waits forever
        (lambda now: min(now / 4, 5.0), 22.0),
    ],
)
def test_a_deadline_passes_after_wall_clock_and_cpu_time_or_when_idle(monkeypatch, used, passes):
    processes = Scripted(used)
    monkeypatch.setattr("monge.apps.prove.lean.process_tree.time.monotonic", lambda: processes.now)
    deadline = Deadline(processes, 10.0)
    while not deadline.passed:
        assert 0 < deadline.pause <= 0.25
        processes.now += deadline.pause
    assert passes <= processes.now < passes + 2.5  # a window of two seconds, and a check
