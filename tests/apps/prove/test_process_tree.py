"""Processes that a server starts are counted with it and end with it."""

import subprocess
import sys
import time

import psutil

from monge.apps.prove.lean.process_tree import ProcessTree

HUNGRY = "import time; held = bytearray(100_000_000); print(flush=True); time.sleep(600)"


def test_children_are_weighed_and_killed_with_their_parent():
    """One that has left the group too."""
    script = f"read go; {sys.executable} -c '{HUNGRY}' & setsid sleep 600 & wait"
    parent = subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    family = ProcessTree(parent.pid)
    assert family.memory < 0.09
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("go\n")
    parent.stdin.flush()
    parent.stdout.readline()  # it holds what it holds
    end = time.monotonic() + 30
    while family.memory < 0.1 and time.monotonic() < end:
        time.sleep(0.1)
    assert family.memory > 0.1
    members = family.members()
    assert len(members) == 3
    family.kill()
    parent.wait()
    gone, _ = psutil.wait_procs(members, timeout=10)
    assert len(gone) == 3
    assert family.memory == 0
    family.kill()
