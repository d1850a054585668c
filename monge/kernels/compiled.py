"""Compilation with a disk cache that is invalidated by an edit of any kernel file."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

_SOURCES = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


class _Cache(FunctionCache):
    """numba's cache, keyed on all kernel files: numba itself checks only the function's own file."""

    def _index_key(self, sig, codegen):
        signature, target, (code, variables) = super()._index_key(sig, codegen)
        return signature, target, (code, variables + _SOURCES)


def compiled(function: Callable, fastmath: bool | set[str] = False) -> Callable:
    """Return `function` compiled to release the GIL and cached on disk; a division by zero gives inf, as in numpy."""
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
    try:
        dispatcher._cache = _Cache(function)  # as Dispatcher.enable_caching does
    except RuntimeError:
        warnings.warn(
            "monge.kernels: no directory to cache compiled code in, so every process recompiles; set NUMBA_CACHE_DIR",
            stacklevel=1,
        )
    return dispatcher
