"""Puts the folder of the smallest experiment, `regression`, on the import path of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
