"""Puts this folder on the import path, so that tests can import `regression`, the smallest experiment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
