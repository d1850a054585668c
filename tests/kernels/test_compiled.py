"""The disk cache of compiled kernels: written once, loaded by the next process, invalidated by an edit of any kernel file."""

import os
import subprocess
import sys

import pytest

PROBE = """
import sys
import monge.kernels.compiled as home
home._SOURCES = sys.argv[1]
from probe import double
assert double(2.0) == 4.0
print(sum(double.stats.cache_hits.values()), sum(double.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_a_kernel_is_loaded_from_disk_until_a_source_changes(tmp_path):
    (tmp_path / "probe.py").write_text(
        "from monge.kernels.compiled import compiled\n\n\n@compiled\ndef double(x):\n    return x + x\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path}

    def hits_and_misses(sources):
        command = [sys.executable, "-c", PROBE, sources]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return tuple(map(int, process.stdout.split()))

    assert hits_and_misses("original") == (0, 1)
    assert hits_and_misses("original") == (1, 0)
    assert hits_and_misses("edited") == (0, 1)
