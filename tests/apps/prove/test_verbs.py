"""The verbs of `monge prove`: what they say, and what they write."""

import json
from types import SimpleNamespace

import pytest
from toy import Countdown, down

from monge.apps.prove import cli, exports
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
TELL = "an instance for Lean's own Nat"


def test_what_a_header_redefines_is_said_once_and_not_lost_to_a_refused_theorem(capsys):
    told = set()
    for number, fields in enumerate([{"ended": "refused"}, *[{"ended": "proved", "tells": (TELL,)}] * 2]):
        cli._tell(3, told, result_of(Task(number, Theorem("t", ": 1 + 1 = 0", LIAR)), **fields))
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("[") for line in lines] == [True, False, True, True]
    assert lines[1] == f"Its header: {TELL}"


EVIL = "t\x1b]0;title\x07"


def test_text_of_others_is_escaped_on_a_terminal(tmp_path, capsys):
    forged = f"{EVIL}\n[1/1] u: proved"
    done = result_of(Task(0, Theorem(EVIL, ": True")), ended="proved", tactics=(forged,), tells=(EVIL,), error=forged)
    cli._tell(1, set(), done)
    cli._tell(1, set(), result_of(Task(0, Theorem(EVIL, ": Νat")), ended="refused", error=forged))
    cli.console.print(cli._table([done]))
    cli._report(Reading([], [Flaw(EVIL, forged)]))
    (tmp_path / "settings.json").write_text("{}")
    rows = table(search(Countdown(1), down, Search()), run="r", number=0, theorem="t", worker="w", seed=0)
    with Recorder(tmp_path) as recorder:
        recorder.add(done, rows)
    cli.summary((tmp_path,))
    assert main(["prove", "view", str(tmp_path / EVIL)]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b]0;title\\x07" in out
    assert "\\x1b]0;title\\x07" in err
    assert not [line for line in out.splitlines() if line.startswith("[1/1] u")]


def test_a_name_that_is_too_long_for_a_file_is_cut(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    with Recorder(tmp_path / "run") as recorder:
        for number in range(2):
            name = "ν" * 400 + str(number)
            recorder.add(result_of(Task(number, Theorem(name, ": True")), tactics=("trivial",)), SCHEMA.empty_table())
    export_proofs(tmp_path / "run", out=tmp_path / "proofs")
    assert len(list((tmp_path / "proofs").iterdir())) == 2


@pytest.mark.slow
def test_a_row_that_cannot_be_read_is_one_among_those_that_are_searched(lean, tmp_path, capsys):
    rows = [
        {"header": "import Init", "formal_statement": "set_option maxHeartbeats 4000 in\ntheorem a : True := by rfl"},
        {"header": "import Init", "formal_statement": "theorem b : 1 = := sorry"},
        {"header": "import Init", "formal_statement": "set_option maxHeartbeats 4000 in\ntheorem c : 1 = g := sorry"},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["prove", "search", str(tmp_path / "set.jsonl"), "--out", str(tmp_path / "run"), "--nodes", "1"]
    assert main([*words, "--candidates", "3"]) == 0
    out = capsys.readouterr().out
    assert "1 rows or parts of files cannot be read; 2 theorems can:" in out
    assert f"{tmp_path}/set.jsonl, line 2, formal_statement:1:15: unexpected token ':='" in out
    first, second = results(tmp_path / "run")
    assert (first.name, first.ended, second.ended) == ("a", "proved", "refused")
    assert f"{tmp_path}/set.jsonl, line 3, formal_statement:2:16: error" in second.error
    assert second.theorem.file == f"{tmp_path}/set.jsonl, line 3, formal_statement"
    assert "1 more could not be read" in out


@pytest.mark.slow
def test_a_proof_that_is_written_compiles_and_says_what_it_proves(server, judge, naturals, tmp_path):
    theorem = naturals("(a : N) : z + a = a")
    proof = judge(theorem, ("induction a", "rfl", "rw [add_s]", "simp [*]"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    done = {"ended": "proved", "statement": proof.statement, "tactics": proof.tactics, "tells": (TELL,)}
    with Recorder(tmp_path / "run") as recorder:
        recorder.add(result_of(Task(0, theorem), **done), SCHEMA.empty_table())
    export_proofs(tmp_path / "run", out=tmp_path / "proofs")
    (file,) = (tmp_path / "proofs").iterdir()
    text = file.read_text()
    first, second, *_ = text.splitlines()
    assert first == "-- target, as elaborated: ∀ (a : N), Eq (HAdd.hAdd N.z a) a"
    assert second == f"-- Its header: {TELL}"
    server.header(text)
    with pytest.raises(ValueError, match="unsolved goals"):
        server.header(text.replace("simp [*]", "skip"))


def test_a_proof_says_that_it_was_judged_without_what_is_excluded():
    walled = result_of(Task(0, restated("Nat.add_comm").theorem), ended="proved", tactics=("rfl",))
    assert "did not know what is excluded" in walled.source
    assert "excluded" not in result_of(Task(0, Theorem("t", ": True")), ended="proved", tactics=("trivial",)).source


def test_the_library_that_is_written_is_searched(tmp_path, monkeypatch):
    rows = [{"name": "Nat.add_comm", "statement": "∀ (n m : Nat), n + m = m + n"}]

    class Library:
        def __init__(self, *_): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def hello(self):
            return {"modules": 1}

        def request(self, do, *, seconds, module):
            return {"module": "Init.Data.Nat.Basic", "theorems": [dict(row) for row in rows]}

    monkeypatch.setattr(exports, "LeanServer", Library)
    monkeypatch.setattr(exports, "SearchConfig", lambda **_: SimpleNamespace(toolchain=lambda: None))
    export_library(out=tmp_path / "library.jsonl")
    (entry,) = entries_of(tmp_path / "library.jsonl")
    assert entry == restated("Nat.add_comm")


def test_a_library_that_this_lean_has_not_is_named_before_anything_is_written(tmp_path, capsys):
    (tmp_path / "mini.jsonl").write_text('{"formal_statement": "theorem a : 1 = 1 := by sorry"}\n')
    assert main(["prove", "search", str(tmp_path / "mini.jsonl"), "--out", str(tmp_path / "run")]) == 2
    assert "Mathlib does not come with Lean in WebAssembly; name a Lean that has it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["probe", "demo"])
def test_a_run_of_another_verb_can_be_resumed(verb, tmp_path, monkeypatch):
    asked = []
    for name in ("setup_embedded", "view"):
        monkeypatch.setattr(cli, name, lambda *_: None)
    monkeypatch.setattr(cli, "stored", lambda _: (SearchConfig(), Source(tmp_path, "all", 7)))
    monkeypatch.setattr(cli, "search", lambda *_, resume, most, **__: asked.append((resume, most)))
    assert main(["prove", verb, "--out", str(tmp_path), "--resume"]) == 0
    assert asked == [(True, 7)]
