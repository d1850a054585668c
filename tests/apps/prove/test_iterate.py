"""Rounds of search and training by one command, on a few theorems with real Lean, and their settings."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import NATURALS
from toy import Countdown, result

from monge.apps.prove.finetune import FineTune
from monge.apps.prove.iterating import train
from monge.apps.prove.iteration import ARMS, Iteration, Pipeline, Round, read_settings, text
from monge.apps.prove.policy import Probes
from monge.apps.prove.round_report import markdown
from monge.apps.prove.search import search
from monge.apps.prove.states import states_of
from monge.apps.prove.trajectories import Recorder, table
from monge.apps.prove.tree import Search
from monge.cli import main
from monge.fleet import sequential
from monge.lm.ragged import Ragged
from monge.training.config import TrainConfig

BY_INDUCTION = "induction a with\n  | z => rfl\n  | s n ih => rw [add_s, ih]"
THEOREMS = [
    ("(a : N) : z + a = a", BY_INDUCTION),
    ("(a : N) : s z + a = s a", BY_INDUCTION),
    ("(a : N) : s (s z) + a = s (s a)", BY_INDUCTION),
    ("(a : N) : s (s (s z)) + a = s (s (s a))", BY_INDUCTION),
    ("(a b : N) : s b + a = s (b + a)", "induction a with\n  | z => rfl\n  | s n ih => rw [add_s, add_s, ih]"),
    (
        "(a b c : N) : a + b + c = a + (b + c)",
        "induction c with\n  | z => rfl\n  | s n ih => rw [add_s, add_s, add_s, ih]",
    ),
    ("(p q : Prop) (hp : p) (hq : q) : p ∧ q", "constructor\n  · exact hp\n  · exact hq"),
    ("(p q : Prop) (hp : p) (hq : q) : q ∧ p", "constructor\n  · exact hq\n  · exact hp"),
    ("(p q : Prop) (h : p ∧ q) : q ∧ p", "constructor\n  · exact h.2\n  · exact h.1"),
    ("(a : N) : a = z ∨ ∃ b, a = s b", "cases a with\n  | z => left; rfl\n  | s n => right; exact ⟨n, rfl⟩"),
    ("(a b : N) (h : a = b) : s a = s b", "rw [h]"),
    ("(a b : N) (h : a = b) (k : a = z) : b = z", "rw [← h]\n  exact k"),
    ("(p q r : Prop) (f : p → q) (g : q → r) : p → r", "intro hp\n  apply g\n  apply f\n  exact hp"),
    ("(p q : Prop) (f : p → q) : ¬q → ¬p", "intro h hp\n  apply h\n  apply f\n  exact hp"),
    (
        "(p q : Prop) : p ∨ q → q ∨ p",
        "intro h\n  cases h with\n  | inl h => right; exact h\n  | inr h => left; exact h",
    ),
    ("(a b c : N) (h : a = b) (k : b = c) : a = c", "rw [h]\n  exact k"),
]
SMALL = """
theorems = {theorems}
rounds = 2
score_pairs = true
arms = ["template", "copy", "template+local", "template+local+energy"]
[search.search]
max_states = 4
num_tactics = 12
[finetune]
width = 32
depth = 2
heads = 2
vocabulary = 400
length = 256
validation_share = 0.4
[finetune.train]
steps = 10
save_every = 5
[energy]
hidden = [16]
validation_share = 0.4
batch_size = 16
[energy.train]
steps = 10
save_every = 5
warmup_steps = 2
"""


def few(directory: Path) -> Path:
    """A TOML file for a small iteration on these theorems."""
    parts = [f"theorem t{k} {signature} := by\n  {proof}\n" for k, (signature, proof) in enumerate(THEOREMS)]
    (directory / "few.lean").write_text(NATURALS + "-- theorems\n\n" + "\n".join(parts))
    config = directory / "small.toml"
    config.write_text(SMALL.format(theorems=json.dumps(str(directory / "few.lean"))))
    return config


@pytest.mark.long
def test_two_rounds_train_evaluate_and_report_and_a_second_call_changes_nothing(tmp_path, capsys):
    config, out = few(tmp_path), tmp_path / "out"
    assert main(["prove", "iterate", "--config", str(config), "--out", str(out), "--rounds", "1"]) == 0
    assert main(["prove", "iterate", "--config", str(config), "--out", str(out)]) == 0
    content = json.loads((out / "report.json").read_text())
    assert [one["round"] for one in content["rounds"]] == [0, 1]
    for one in content["rounds"]:
        assert set(one["arms"]) == {"template", "copy", "template+local", "template+local+energy"}
        assert one["pairs"] >= one["new pairs"] >= one["new pairs with a new tactic"]
        assert one["policy"]["sources"][0]["source"] == "written"
    assert content["rounds"][0]["pairs"] == content["rounds"][0]["new pairs"]
    files = {path: path.read_bytes() for path in (out / "report.json", out / "report.md")}
    assert "McNemar" in files[out / "report.md"].decode()
    recipes = [json.loads((out / f"round-{k}/policy/recipe.json").read_text())["recipe"] for k in (0, 1)]
    assert [recipe["scored_by"] for recipe in recipes] == ["", str(out / "round-0/policy/model")]
    for one in content["rounds"]:
        assert one["energy"]["depths"][0]["draws"] > 0
        policy, energy = one["policy"]["curve"], one["energy"]["curve"]
        assert [row["step"] for row in policy] == [row["step"] for row in energy] == [5, 10]
        assert all({"loss", "held-out loss"} <= row.keys() for row in policy)
        assert all({"gap", "top-1"} <= row.keys() for row in energy)
        assert one["policy"]["settings"]["width"] == 32
        assert "rank" not in one["policy"]["settings"]
        assert one["energy"]["settings"]["hidden"] == [16]
        assert one["states"]["width"] == 32
    assert (out / "report.png").stat().st_size > 10_000
    capsys.readouterr()
    assert main(["prove", "iterate", "--config", str(config), "--out", str(out)]) == 0
    assert {path: path.read_bytes() for path in files} == files
    assert "theorems\n" not in capsys.readouterr().out.split("round 0")[0]
    assert main(["prove", "iterate", "--out", str(out)]) == 2
    assert "made with iteration." in capsys.readouterr().err


@pytest.mark.long
def test_an_iteration_that_is_killed_ten_times_gives_the_report_of_an_uninterrupted_one(tmp_path):
    config, draws = few(tmp_path), random.Random(0)
    words = [sys.executable, "-m", "monge", "prove", "iterate", "--config", str(config), "--rounds", "1", "--out"]
    subprocess.run([*words, str(tmp_path / "whole")], check=True)
    kills = 0
    while kills < 10:
        process = subprocess.Popen([*words, str(tmp_path / "killed")], start_new_session=True)
        try:
            process.wait(draws.uniform(5.0, 75.0))
            break  # it is complete
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 3
    subprocess.run([*words, str(tmp_path / "killed")], check=True)
    for name in ("report.json", "report.md"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_printed_settings_are_read_back(tmp_path, capsys):
    assert main(["prove", "iterate", "--print-config"]) == 0
    (tmp_path / "config.toml").write_text(capsys.readouterr().out)
    assert read_settings(tmp_path / "config.toml") == Iteration()
    changed = replace(Iteration(), rounds=5, limit=7, written=False)
    (tmp_path / "config.toml").write_text(text(changed))
    assert read_settings(tmp_path / "config.toml") == changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rounds = 0", "rounds and limit must be at least 1"),
        ("round = 1", "unexpected keyword argument 'round'"),
        ("rounds = ", "Invalid value"),
        ('arms = ["oracle"]', "arms: unknown oracle; use some of template"),
        ("warm_share = 2", "warm_share must be between 0 and 1"),
        ('[search]\npolicy = "guess"', "--policy guess: unknown"),
        ('policy = "guess"', "--policy guess: unknown"),
        ('policy = "template+copy"', "policy template+copy: copying is an arm only"),
        ("score_pairs = true\n[finetune]\nretrieved = 8", "score_pairs needs finetune.retrieved = 0"),
        ("[energy]\nhiden = [16]", "energy: "),
        ("[energy]\nnegatives = 0", "energy: negatives must be at least 1"),
    ],
)
def test_a_settings_file_with_an_error_is_one_sentence(tmp_path, capsys, content, message):
    (tmp_path / "config.toml").write_text(content)
    assert main(["prove", "iterate", "--config", str(tmp_path / "config.toml"), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "`monge prove iterate --print-config` prints a valid file" in err
    assert not (tmp_path / "out").exists()


def test_a_settings_file_that_is_missing_is_one_sentence(tmp_path, capsys):
    assert main(["prove", "iterate", "--config", str(tmp_path / "no.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "no.toml: no such file; `monge prove iterate" in capsys.readouterr().err


def test_training_theorems_that_are_nearly_test_theorems_are_refused(tmp_path):
    lines = [f"/-- One. -/\ntheorem t{k} (a{k} : N) : a{k} = a{k} := by\n  rfl\n" for k in range(30)]
    (tmp_path / "same.lean").write_text("inductive N | z | s (n : N)\n-- theorems\n" + "\n".join(lines))
    settings = Iteration(theorems=tmp_path / "same.lean")
    with pytest.raises(
        ValueError,
        match=r"pairs of a training and a test theorem are nearly the same, such as same\.t\d+ and same\.t\d+",
    ):
        Pipeline(settings, tmp_path / "out", lambda: sequential)
    Pipeline(replace(settings, allow_overlap=True), tmp_path / "out", lambda: sequential)


def test_arms_that_do_not_depend_on_the_round_are_searched_once(tmp_path):
    paths = [{Round(Iteration(), tmp_path, k).arm(arm) for k in range(3)} for arm in ARMS]
    assert [len(part) for part in paths] == [1, 3, 3, 3, 3, 3, 3, 3]  # of these, the template alone
    assert len(set.union(*paths)) == 22


def test_a_share_of_the_training_theorems_is_searched_at_the_warm_temperature(tmp_path, monkeypatch):
    def searched(self, config, entries, out, **_):
        calls.append((out, config.policy, config.local.sampling.temperature, {entry.key for entry in entries}))
        return []

    calls: list[tuple[Path, str, float, set[str]]] = []
    monkeypatch.setattr(Pipeline, "search", searched)
    settings = Iteration(theorems=few(tmp_path).with_name("few.lean"), policy="local", warm_share=0.5)
    pipeline = Pipeline(settings, tmp_path / "out", lambda: sequential)
    normal = settings.search.local.sampling.temperature
    for number, (policy, warm) in enumerate([("template", normal), ("local", 1.5)]):
        one = Round(settings, tmp_path / "out", number)
        pipeline.explore(one)
        parts = dict(zip(("normal", "warm"), calls[-2:], strict=True))
        assert {share: call[:3] for share, call in parts.items()} == {
            "normal": (one.searches["normal"], policy, normal),
            "warm": (one.searches["warm"], policy, warm),
        }
        assert parts["normal"][3] | parts["warm"][3] == {entry.key for entry in pipeline.train}
        assert not parts["normal"][3] & parts["warm"][3]
        assert parts["warm"][3]


def test_a_round_without_states_to_contrast_has_no_energy(tmp_path, capsys):
    policy = FineTune(width=16, depth=1, heads=1, vocabulary=300, length=64, validation_share=0.4, energy_weight=0.1)
    policy = replace(policy, train=TrainConfig(steps=2, save_every=1, threads=1))
    settings = Iteration(written=False, arms=("template", "template+local", "template+local+energy"), finetune=policy)
    one = Round(settings, tmp_path, 0)
    run = one.searches["normal"]
    run.mkdir(parents=True)
    with Recorder(run) as recorder:
        for n in range(1, 30):  # theorems that a single step proves
            outcome = search(Countdown(n, own=True), Probes((str(n),)), Search(batch_size=1))
            rows = table(outcome, run="w", number=n, theorem=f"t{n}", worker="w", seed=0)
            recorder.add(result(n, signature=f": {n}", tactics=outcome.proof.tactics), rows)
    (run / "settings.json").write_text(json.dumps({"theorems": {"split": "train"}}))
    states = ((key, torch.randn(1, 4)) for key in states_of([run]))
    Ragged.write(one.directory / "states", states, dtype="float16", fingerprint={"model": "none"})
    train(one)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "round 0: the policy is trained without an energy: --energy-weight: no proved theorem, or no states" in printed
    )
    assert "round 0 has no energy: training: no proved theorem, or no states off" in printed
    assert (one.model / "config.json").exists()
    (one.directory / "policy" / "policy.json").unlink()
    train(one)  # resumes the policy
    assert (one.directory / "policy" / "policy.json").exists()
    capsys.readouterr()
    assert [arm.name for arm in one.arms] == ["template", "template+local"]
    train(one)  # complete, so it does nothing
    assert capsys.readouterr().out == ""


def test_the_report_is_readable_markdown():
    same = {"proved": 2, "share": "2 of 4", "more": 0, "fewer": 0, "p": 1.0, "expanded": 9}
    ratio = {"value": 0.5, "low": 0.25, "high": 1.0, "searches": 2}
    arms = {
        "local": {**same, "base": "", "ratio": dict.fromkeys(ratio)},
        "local+energy": {**same, "base": "local", "ratio": ratio},
    }
    policy = {"sources": [{"source": "written", "kept": 3}], "held-out loss": {"written": {"loss": 1.2345}}}
    policy |= {
        "settings": {"rank": 32},
        "curve": [{"step": 5, "loss": 2.5}, {"step": 10, "loss": 2.0, "separation": 0.75}],
    }
    energy = {"states": {"training": {"positives": 3}}, "quality": {"sampled": {"gap": 0.5}}}
    energy |= {
        "settings": {"mix": [0.3, 0.4, 0.3]},
        "depths": [{"remaining": 1, "draws": 5, "predicted": 1.25, "spread": 0.5}],
        "curve": [{"step": 5, "top-1": 0.25}],
        "alarms": ["It has collapsed."],
    }
    one = {"round": 0, "searches": {"normal": {"theorems": 4, "proved": 1}}, "pairs": 3, "new pairs": 3}
    one |= {"new pairs with a new tactic": 2, "policy": policy, "energy": energy, "arms": arms}
    one["states"] = {"states": 7, "width": 32, "dtype": "float16"}
    lines = markdown({"theorems": "few.lean", "rounds": [one]}).splitlines()
    assert "| local | 2 | 2 of 4 |  | 0 | 0 | 1 | 9 |  |" in lines
    assert "| local+energy | 2 | 2 of 4 | local | 0 | 0 | 1 | 9 | 0.50 (0.25 to 1.00) |" in lines
    assert "| written | 3 | 1.23 |" in lines
    assert "| gap | 0.5 |" in lines
    assert "Embeddings: states 7, width 32, dtype float16." in lines
    assert lines[lines.index("| step | loss | separation |") + 2 :][:2] == ["| 5 | 2.5 |  |", "| 10 | 2 | 0.75 |"]
    assert {
        "| 1 | 5 | 1.25 | 0.5 |",
        "| rank | 32 |",
        "| mix | [0.3, 0.4, 0.3] |",
        "| 5 | 0.25 |",
        "It has collapsed.",
    } <= set(lines)
    one["energy"] = {"skipped": "no states"}
    assert "No energy: no states." in markdown({"theorems": "few.lean", "rounds": [one]}).splitlines()
