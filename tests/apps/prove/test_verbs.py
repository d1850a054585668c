"""The verbs of `monge prove`: their messages and the files they write."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import Countdown, down

from monge.apps.prove import cli, exports, progress, reporting, searching, stored
from monge.apps.prove.config import SearchConfig, Source
from monge.apps.prove.exports import export_library, export_proofs
from monge.apps.prove.rows import Flaw
from monge.apps.prove.search import search
from monge.apps.prove.sources import Reading, entries_of, restated
from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, results, table
from monge.apps.prove.tree import Search
from monge.apps.prove.worker import Task, result_of
from monge.cli import main

LIAR = "instance : Add Nat := ⟨fun _ _ => 0⟩\n"
NOTE = "an instance for types of the library: Nat"


def test_notes_on_a_header_are_printed_once_even_after_a_refused_theorem(capsys):
    headers = set()
    for number, fields in enumerate([{"ended": "refused"}, *[{"ended": "proved", "header_notes": (NOTE,)}] * 2]):
        progress.print_result(3, headers, result_of(Task(number, Theorem("t", ": 1 + 1 = 0", LIAR)), **fields))
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("[") for line in lines] == [True, False, True, True]
    assert lines[1] == f"Header: {NOTE}"


EVIL = "t\x1b]0;title\x07"


def test_text_from_files_is_escaped_on_a_terminal(tmp_path, capsys):
    forged = f"{EVIL}\n[1/1] u: proved"
    done = result_of(
        Task(0, Theorem(EVIL, ": True")), ended="proved", tactics=(forged,), header_notes=(EVIL,), error=forged
    )
    progress.print_result(1, set(), done)
    progress.print_result(1, set(), result_of(Task(0, Theorem(EVIL, ": Νat")), ended="refused", error=forged))
    progress.console.print(progress.table_of([done]))
    progress.report(Reading([], [Flaw(EVIL, forged)]))
    (tmp_path / "settings.json").write_text("{}")
    rows = table(search(Countdown(1), down, Search()), run="r", number=0, theorem="t", worker="w", seed=0)
    with Recorder(tmp_path) as recorder:
        recorder.add(done, rows)
    reporting.summary((tmp_path,))
    assert main(["prove", "view", str(tmp_path / EVIL)]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b]0;title\\x07" in out
    assert "\\x1b]0;title\\x07" in err
    assert not [line for line in out.splitlines() if line.startswith("[1/1] u")]


def test_a_name_that_is_too_long_for_a_file_is_shortened(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    with Recorder(tmp_path / "run") as recorder:
        for number in range(2):
            name = "ν" * 400 + str(number)
            recorder.add(result_of(Task(number, Theorem(name, ": True")), tactics=("trivial",)), SCHEMA.empty_table())
    export_proofs(tmp_path / "run", out=tmp_path / "proofs")
    assert len(list((tmp_path / "proofs").iterdir())) == 2


@pytest.mark.long
def test_other_rows_are_searched_if_one_cannot_be_read(lean, tmp_path, capsys):
    rows = [
        {"header": "import Init", "formal_statement": "set_option maxHeartbeats 4000 in\ntheorem a : True := by rfl"},
        {"header": "import Init", "formal_statement": "theorem b : 1 = := sorry"},
        {"header": "import Init", "formal_statement": "set_option maxHeartbeats 4000 in\ntheorem c : 1 = g := sorry"},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["prove", "search", str(tmp_path / "set.jsonl"), "--out", str(tmp_path / "run"), "--max-states", "1"]
    assert main([*words, "--num-tactics", "3"]) == 0
    out = capsys.readouterr().out
    assert "Read 2 theorems; skipped 1 rows or parts of files:" in out
    assert f"{tmp_path}/set.jsonl, line 2, formal_statement:1:15: unexpected token ':='" in out
    first, second = results(tmp_path / "run")
    assert (first.name, first.ended, second.ended) == ("a", "proved", "refused")
    assert f"{tmp_path}/set.jsonl, line 3, formal_statement:2:16: error" in second.error
    assert second.theorem.file == f"{tmp_path}/set.jsonl, line 3, formal_statement"
    assert "1 more could not be read" in out


def test_a_proof_states_that_it_was_judged_without_excluded_names():
    restricted = result_of(Task(0, restated("Nat.add_comm").theorem), ended="proved", tactics=("rfl",))
    assert "removed the excluded names" in restricted.source
    assert "excluded" not in result_of(Task(0, Theorem("t", ": True")), ended="proved", tactics=("trivial",)).source


def test_an_exported_library_can_be_searched(tmp_path, monkeypatch):
    rows = [{"name": "Nat.add_comm", "statement": "∀ (n m : Nat), n + m = m + n"}]

    class Library:
        def __init__(self, *_): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def hello(self):
            return {"modules": 1}

        def request(self, do, *, seconds, module, trees):
            assert trees == 0
            return {"module": "Init.Data.Nat.Basic", "theorems": [dict(row) for row in rows]}

    monkeypatch.setattr(exports, "LeanServer", Library)
    monkeypatch.setattr(exports, "SearchConfig", lambda **_: SimpleNamespace(toolchain=lambda: None))
    export_library(out=tmp_path / "library.jsonl")
    (entry,) = entries_of(tmp_path / "library.jsonl")
    assert entry == restated("Nat.add_comm")


def test_a_library_that_lean_lacks_is_reported_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "mini.jsonl").write_text('{"formal_statement": "theorem a : 1 = 1 := by sorry"}\n')
    assert main(["prove", "search", str(tmp_path / "mini.jsonl"), "--out", str(tmp_path / "run")]) == 2
    assert "Mathlib is not included in Lean for WebAssembly; use an installed Lean" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "mini.jsonl", "--config", "settings.json", "--out", "out"],
        ["iterate", "--config", "settings.toml", "--out", "out"],
        ["export-pairs", "mini.lean", "--lean", "no-such-lean", "--out", "out"],
    ],
    ids=lambda words: words[0],
)
def test_a_verb_that_reads_theorems_uses_the_installed_lean(words: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mini.jsonl").write_text('{"formal_statement": "theorem a : 1 = 1 := by sorry"}\n')
    Path("mini.lean").write_text("import Mathlib\n/-- One is one. -/\ntheorem a : 1 = 1 := rfl\n")
    Path("settings.json").write_text('{"lean": "no-such-lean"}')
    Path("settings.toml").write_text('theorems = "mini.jsonl"\n[search]\nlean = "no-such-lean"\n')
    assert main(["prove", *words]) == 2
    assert "the command 'no-such-lean' was not found" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("verb", ["probe", "demo"])
def test_a_run_of_another_verb_can_be_resumed(verb, tmp_path, monkeypatch):
    calls, signature = [], inspect.signature(searching.search)

    def record(*values, **named):
        given = signature.bind(*values, **named).arguments
        calls.append((given["resume"], given["limit"]))

    for name in ("setup_embedded", "view"):
        monkeypatch.setattr(cli, name, lambda *_: None)
    monkeypatch.setattr(stored, "stored_settings", lambda _: (SearchConfig(), Source(tmp_path, "all", 7)))
    for module in (cli, searching):
        monkeypatch.setattr(module, "search", record)
    assert main(["prove", verb, "--out", str(tmp_path), "--resume"]) == 0
    assert calls == [(True, 7)]


def test_a_server_may_decode_greedily_and_a_local_model_may_not(capsys):
    words = ["prove", "search", "--model", "m", "--temperature", "0", "--print-config"]
    assert main([*words, "--policy", "server"]) == 0
    assert json.loads(capsys.readouterr().out)["server"]["temperature"] == 0
    assert main([*words, "--policy", "local"]) == 2
    assert "temperature must be above 0" in capsys.readouterr().err
