"""A process tree: children are measured with their parent and killed with it."""

import subprocess
import sys

import psutil
import pytest
from waiting import until

from monge.apps.prove.lean.process_tree import ProcessTree

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
