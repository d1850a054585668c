"""The verb `check`: proofs and statements in texts of other programs, such as `monge translate decode`, judged by Lean."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.console import Console

from monge import fleet
from monge.apps.prove.extract import proof_in, signature_in
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.crashes import ServerCrashed
from monge.apps.prove.lean.judge import PATIENT, Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import embedded_lean, installed
from monge.apps.prove.lean.supervisor import Supervisor, lean_servers
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.report import mcnemar, share
from monge.apps.prove.sources import read
from monge.apps.prove.state import Proof, Theorem
from monge.files import atomic_write, ensure_new
from monge.flags import at_least_one
from monge.text import printable

console = Console(soft_wrap=True)

PROVED, EQUAL, TRUTH, KINDS = "proved", "equal", "truth", ("proofs", "statements")
ELABORATES = (EQUAL, "different", "undecided")
"""Verdicts on statements that elaborate."""
UNIVERSES = ("u", "v", "w", "w'", "w''", *(f"u_{k}" for k in range(1, 10)))
"""Names of universes that printed statements of the library use."""
CHUNK = 32
"""Maximum number of theorems that a worker checks before it reports."""


class Job(NamedTuple):
    """A theorem with the candidate proofs for it."""

    id: str
    theorem: Theorem
    texts: tuple[str, ...]


class Verdict(NamedTuple):
    """Verdict on a candidate.

    On a proof: `proved`, `no proof` for a text without one, or the kind of the judge's rejection. On a statement: `equal` up to
    names of variables and universes, or `different`; `invalid` if it does not elaborate; `undecided` if Lean reaches
    a limit; `crash` if its server does. `truth` if the theorem's own statement does not elaborate; such theorems do not count.
    """

    kind: str
    message: str = ""


@dataclass
class Checker:
    """Judges the candidates of jobs with the same header, as proofs or as statements."""

    toolchain: Toolchain
    statements: bool

    def __call__(self, jobs: Sequence[Job]) -> list[tuple[str, list[Verdict]]]:
        """The verdicts on the texts of each job."""
        if self.statements:
            servers = lean_servers(self.toolchain, jobs[0].theorem.imports)
            try:
                return [(job.id, verdicts(job, partial(compared, servers))) for job in jobs]
            finally:
                servers.close()
        with Judge(self.toolchain, jobs[0].theorem.imports) as judge:
            return [(job.id, verdicts(job, partial(judged, judge))) for job in jobs]


def verdicts(job: Job, verdict: Callable[[Theorem, str], Verdict]) -> list[Verdict]:
    """The verdict on each text of a job; texts that are repeated are judged once."""
    known = {text: verdict(job.theorem, text) for text in dict.fromkeys(job.texts)}
    return [known[text] for text in job.texts]


def judged(judge: Judge, theorem: Theorem, text: str) -> Verdict:
    """The verdict on the proof in a text."""
    proof = proof_in(text)
    if not proof:
        return Verdict("no proof")
    try:
        answer = judge(theorem, (proof,), twice=True)
    except ValueError as error:
        return Verdict(TRUTH, str(error))
    return Verdict(PROVED) if isinstance(answer, Proof) else Verdict(answer.kind, answer.message)


def compared(servers: Supervisor, theorem: Theorem, text: str) -> Verdict:
    """The verdict on the statement in a text, which is elaborated after the theorem's header.

    The process that elaborates it also compares it, so a hostile text could falsify the verdict.
    """
    declared = set(" ".join(re.findall(r"^\s*universe\s+(.*)$", theorem.header, re.MULTILINE)).split())
    header = f"universe {' '.join(name for name in UNIVERSES if name not in declared)}\n{theorem.header}"

    def ask(server: LeanServer) -> dict[str, Any]:
        fields = {"header": server.header(header, PATIENT), "first": signature_in(text), "second": theorem.signature}
        return server.request("equal", seconds=PATIENT.seconds, **fields)

    try:
        answer = servers.ask("statement", ask, header=header)
    except ServerCrashed as error:
        return Verdict("crash", str(error))
    except ValueError as error:
        return Verdict(TRUTH, str(error))
    if (kind := answer.get("failed")) is not None:
        return Verdict("invalid" if kind == "statement" else kind, answer.get("message") or "\n".join(answer["errors"]))
    return Verdict(EQUAL if answer["equal"] else "different")


def check(
    texts: tyro.conf.Positional[Path],
    *,
    theorems: Path = DATA,
    out: Path,
    statements: bool = False,
    compare_with: Path | None = None,
    workers: int = 1,
    lean: str = "",
) -> None:
    """Judge proofs or statements that another program wrote, such as the texts of `monge translate decode`.

    The true statement counts, not the one in the text: each proof is compiled for the theorem with the row's id, and its result
    is checked by the kernel. With `--statements`, the statement of each text is elaborated and compared with the true one.

    Args:
        texts: .jsonl or .parquet file with a row {id, text, candidates} per theorem. Ids are FILE.NAME, FILE.NUMBER for a line
            of a .jsonl file, or names of library theorems; `monge prove export-pairs` writes such ids. Without `candidates`, a
            list of texts or of objects with a `text`, the only candidate is `text`.
        theorems: File or directory of the theorems, as in `search`.
        out: .jsonl file to write: a row {id, verdicts} per theorem.
        statements: Check statements instead of proofs: do they elaborate, and are they equal to the true ones, up to names of
            variables and universes?
        compare_with: File written by an earlier `check`, to compare first candidates by McNemar's exact test.
        workers: Number of worker processes.
        lean: Command of an installed Lean, such as "lake env lean"; the WebAssembly build by default.
    """
    at_least_one(workers=workers)
    ensure_new(out)
    rows = list(candidates_in(texts))
    earlier = None if compare_with is None else verdicts_in(compare_with, KINDS[statements])
    toolchain = installed(lean)
    known = read(theorems, lean=toolchain).entries
    named = [(entry.theorem.restates or entry.key, entry.theorem) for entry in known]
    numbered = {f"{entry.source}.{entry.number}": entry.theorem for entry in known if entry.number}
    entries, several = numbered | dict(named), Counter(key for key, _ in named)
    if twice := next((key for key, _ in rows if several[key] > 1), None):
        raise ValueError(f"{theorems}: {twice} is the id of {several[twice]} theorems; give them different names")
    jobs = [Job(key, entries[key], row) for key, row in rows if key in entries]
    if not jobs:
        raise ValueError(f"{texts}: no row has the id of a theorem in {theorems}, such as {next(iter(entries))}")
    if earlier is not None and not any(job.id in earlier for job in jobs):
        raise ValueError(f"{compare_with}: no theorem in common; compare files about the same theorems")
    if missing := [key for key, _ in rows if key not in entries]:
        console.print(
            printable(f"Rows without a theorem in {theorems}: {len(missing)}, the first: {missing[0]}"), markup=False
        )
    groups: dict[tuple[tuple[str, ...], str], list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.theorem.imports, job.theorem.header].append(job)
    chunks = [part[k : k + CHUNK] for part in groups.values() for k in range(0, len(part), CHUNK)]
    checker = Checker(embedded_lean() if toolchain is None else toolchain(), statements)
    found: dict[str, list[Verdict]] = {}
    with atomic_write(out) as path, path.open("w", encoding="utf-8") as lines:
        for _, part in fleet.of(workers)(checker, chunks):
            found |= dict(part)
            for key, row in part:
                values = {"id": key, "checked": KINDS[statements], "verdicts": [one._asdict() for one in row]}
                lines.write(json.dumps(values, ensure_ascii=False) + "\n")
            console.print(f"{len(found)} of {len(jobs)} theorems checked", highlight=False)
    counted = {key: row for key, row in found.items() if all(one.kind != TRUTH for one in row)}
    if left := len(found) - len(counted):
        console.print(f"Left out, since their own statements do not elaborate: {left}", highlight=False)
    if crashes := sum(one.kind == "crash" for row in counted.values() for one in row):
        console.print(
            f"Candidates that crashed Lean or reached its limits, which count as wrong: {crashes}", highlight=False
        )
    if statements and counted:
        valid = [row[0].kind in ELABORATES for row in counted.values()]
        console.print(f"First candidate elaborates: {share(sum(valid), len(valid))}", highlight=False)
    if counted:
        report({key: [one.kind in (PROVED, EQUAL) for one in row] for key, row in counted.items()}, earlier)
    console.print(printable(f"Verdicts: {out}"), markup=False)


def report(proved: Mapping[str, Sequence[bool]], earlier: Mapping[str, Sequence[bool]] | None) -> None:
    """Print the share of theorems whose first candidate, or one of them, is right, and a comparison with earlier verdicts."""
    first = {key: row[0] for key, row in proved.items()}
    console.print(f"First candidate is right: {share(sum(first.values()), len(first))}", highlight=False)
    if len(counts := set(map(len, proved.values()))) == 1 and (count := counts.pop()) > 1:
        console.print(f"One of {count} is right: {share(sum(map(any, proved.values())), len(proved))}", highlight=False)
    if earlier is not None:
        both = [(first[key], earlier[key][0]) for key in first if key in earlier]
        more, fewer = sum(a and not b for a, b in both), sum(b and not a for a, b in both)
        console.print(
            f"{len(both)} theorems in common: {more} right only here, {fewer} only there, p {mcnemar(more, fewer):.2g} "
            "(McNemar's exact test)",
            highlight=False,
        )


def rows_in(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a .jsonl or .parquet file. ValueError if it cannot be read or a row has no id."""
    if path.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"{path}: give a .jsonl or .parquet file")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq  # takes a while to import

            rows = pq.read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise ValueError(f"{path}, row {number}: no id")
        yield row


def candidates_in(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the id and the candidate texts of each row. ValueError as in `rows_in`, and for a row without text or with the id
    of an earlier row."""
    seen: set[str] = set()
    for row in rows_in(path):
        listed: Any = row["candidates"] if row.get("candidates") else [row.get("text")]
        texts: list[Any] = (
            [one.get("text") if isinstance(one, dict) else one for one in listed] if isinstance(listed, list) else []
        )
        found = tuple(text for text in texts if isinstance(text, str))
        if not found or len(found) < len(texts):
            raise ValueError(f"{path}: the row with id {row['id']!r} has a candidate without text")
        if row["id"] in seen:
            raise ValueError(f"{path}: id {row['id']!r} occurs twice; put all candidates in one row")
        seen.add(row["id"])
        yield row["id"], found
    if not seen:
        raise ValueError(f"{path}: no rows")


def verdicts_in(path: Path, kind: str) -> dict[str, list[bool]]:
    """True for each candidate that is right, by id, in a file about `kind`, proofs or statements, written by `check`.
    ValueError for another file."""
    result: dict[str, list[bool]] = {}
    for row in rows_in(path):
        verdicts = row.get("verdicts")
        if not isinstance(verdicts, list) or not verdicts or not all(isinstance(one, dict) for one in verdicts):
            raise ValueError(f"{path}: not written by monge prove check")
        if row.get("checked") not in KINDS:
            raise ValueError(f"{path}: not written by monge prove check")
        if row["checked"] != kind:
            raise ValueError(f"{path}: holds verdicts on {row['checked']}, not on {kind}")
        if all(one.get("kind") != TRUTH for one in verdicts):
            result[row["id"]] = [one.get("kind") in (PROVED, EQUAL) for one in verdicts]
    return result
