"""Preference training of a tactic policy on toy runs."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_causal import saved
from test_energy import wide_run
from tokenizers.processors import TemplateProcessing

from monge.apps.prove import dpo
from monge.apps.prove.dpo import Prefer, Preference, preferences_of
from monge.apps.prove.trajectories import attempts
from monge.cli import main
from monge.lm.load import causal
from monge.runs import reopen
from monge.training.log import read_records

ALPHABET = "13double⊢ 0245\n`"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return wide_run(tmp_path / "run", range(5, 30))


def test_a_tactic_of_a_proof_is_preferred_to_those_that_failed_on_its_state(run):
    rows = attempts(run).to_pylist()
    positive = {(row["state_before"], row["tactic"]) for row in rows if row["label"] == "positive"}
    failed = {(row["state_before"], row["tactic"]) for row in rows if row["outcome"] == "tactic"}
    found = preferences_of([run], 5)
    assert len(found) == len(set(found)) >= 5
    assert all((one.state, one.chosen) in positive and (one.state, one.rejected) in failed for one in found)
    assert {one.state for one in found} == {state for state, _ in positive} & {state for state, _ in failed}
    assert preferences_of([run], 5) == found
    assert len(preferences_of([run, run], 5)) == len(found)


def test_crashes_and_tactics_of_proofs_in_other_runs_are_not_rejected(run, tmp_path):
    (part,) = run.glob("part-*.parquet")
    rows = pq.read_table(part).to_pylist()
    (one, *_) = preferences_of([run], 1)

    def written(name: str, **changes: str | None) -> Path:
        """The run with other outcomes of the rejected tactic."""
        other = tmp_path / name
        shutil.copytree(run, other)
        mine = [
            row | {"run": name} | (changes if (row["state_before"], row["tactic"]) == (one.state, one.rejected) else {})
            for row in rows
        ]
        pq.write_table(pa.Table.from_pylist(mine, pq.read_schema(part)), other / part.name)
        return other

    def rejected(*runs: Path) -> bool:
        return (one.state, one.rejected) in {(other.state, other.rejected) for other in preferences_of(runs, 50)}

    assert rejected(run)
    assert not rejected(written("crashed", outcome="crash"))
    assert not rejected(run, written("proved", outcome="proof", label="positive"))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--rank", "4", "--modules", "q_proj", "v_proj", "--dropout", "0"]])
def test_a_policy_learns_the_preferences_and_resumes(run, tmp_path, capsys, flags):
    model, out = saved(tmp_path / "policy", "llama", alphabet=ALPHABET), tmp_path / "out"
    words = [
        "prove",
        "dpo",
        str(run),
        "--model",
        model,
        "--out",
        str(out),
        "--length",
        "160",
        "--validation-share",
        "0.3",
    ]
    words += ["--warmup-steps", "2", "--save-every", "10", "--lr", "0.02", *flags]
    assert main([*words, "--steps", "10"]) == 0
    resumed = ["prove", "dpo", "--out", str(out), "--resume", "--steps", "30"]
    other = saved(tmp_path / "other", "llama", alphabet=ALPHABET)
    changed = causal(other)
    next(changed.model.parameters()).data += 0.1
    changed.model.save_pretrained(other)
    assert main([*resumed, "--model", other]) == 2
    assert "model" in capsys.readouterr().err
    assert main(resumed) == 0
    records = [row for row in read_records(out / "metrics.jsonl") if "held-out loss" in row]
    assert [row["step"] for row in records] == [10, 20, 30]
    assert records[-1]["held-out accuracy"] > 0.9
    assert records[-1]["held-out loss"] < 0.6931
    before, after = causal(model), causal(str(out / "model"))
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.equal(before.model(input_ids=ids).logits, after.model(input_ids=ids).logits)
    assert "next: monge prove search --policy local" in capsys.readouterr().out
    assert reopen(out, app="preferences").recipe["model"] == str(Path(model).resolve())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no policy to start from; give --model"),
        (["--model", "POLICY", "--beta", "0"], "beta must be above 0"),
        (["--model", "POLICY", "--length", "900"], "has 400 positions; give at most that many"),
        (["--model", "nowhere"], "nowhere: no complete Hugging Face model"),
        (["--model", "POLICY", "--length", "3"], "no preferences for"),
    ],
)
def test_bad_input_gives_one_sentence(run, tmp_path, capsys, flags, message):
    model = saved(tmp_path / "policy", "llama", alphabet=ALPHABET)
    capsys.readouterr()
    words = [model if flag == "POLICY" else flag for flag in flags]
    assert main(["prove", "dpo", str(run), *words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_runs_on_other_splits_are_rejected(run, tmp_path, capsys):
    (run / "settings.json").write_text(json.dumps({"theorems": {"split": "test"}}))
    model = saved(tmp_path / "policy", "llama", alphabet=ALPHABET)
    assert main(["prove", "dpo", str(run), "--model", model, "--out", str(tmp_path / "out")]) == 2
    assert "a run on split test; give runs with --split train" in capsys.readouterr().err


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("tactics", [("rfl", "simp [a, b, c, d]"), ("simp [a, b, c, d]", "rfl")])
def test_both_answers_continue_the_same_prompt(run, language_model, monkeypatch, tactics, bos):
    """A prompt that is cut has room for the longer answer, whichever that is."""
    loaded = causal(str(language_model))
    if bos:
        tokenizer = loaded.tokenizer
        tokenizer.bos_token = tokenizer.eos_token  # a prompt that is cut keeps it
        first = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{first[0]} $A", special_tokens=[first])
    long = [Preference("a b c " * 40, *tactics, f"theorem {k}") for k in range(30)]
    monkeypatch.setattr(dpo, "preferences_of", lambda *_: long)
    for part in Prefer(runs=(str(run),), model=str(language_model), length=64).examples(loaded).values():
        for chosen, rejected in part:
            assert max(len(chosen.ids), len(rejected.ids)) == 64
            assert chosen.ids[: chosen.prompt] == rejected.ids[: rejected.prompt]
            assert (chosen.ids[0] == loaded.tokenizer.bos_token_id) == bos
            assert len(chosen.ids) != len(rejected.ids)
