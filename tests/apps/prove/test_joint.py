"""A policy that is trained together with an energy."""

import json
from pathlib import Path

import pytest
import torch
from test_causal import saved
from test_energy import wide_run
from test_finetune import SMALL, finetune

from monge.apps.prove.energy import EnergyLoss
from monge.apps.prove.joint import Joint, JointBatch, JointLoss, TokenizedStates, contrast_of, samplers
from monge.files import read_tensors
from monge.lm.load import causal
from monge.objective.contrastive import InfoNCE
from monge.objective.next_token import NextToken, Tokens
from monge.training.log import read_records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return wide_run(tmp_path / "run", range(5, 40))


def test_states_are_tokenized_once_and_cut_at_their_start(tmp_path):
    model = causal(saved(tmp_path / "model", "llama", alphabet="⊢ 0123456789of"))
    run = wide_run(tmp_path / "shared", range(5, 40), own=False)
    states = TokenizedStates([run], model.tokenizer, 3)
    rows = states.rows(torch.tensor([states.number("⊢ 7"), states.number("⊢ 12")]))
    assert rows.tolist() == [model.tokenizer("⊢ 7")["input_ids"], model.tokenizer("⊢ 12")["input_ids"][-3:]]
    assert states.number("⊢ x") is None
    longer = TokenizedStates([run], model.tokenizer, 9).rows(
        torch.tensor([states.number("⊢ 7"), states.number("⊢ 12")])
    )
    assert longer[0, -1] == -1


def test_the_energy_is_that_of_the_mean_hidden_state_and_the_losses_add_up(run, tmp_path):
    model = causal(saved(tmp_path / "model", "llama", alphabet="⊢ 0123456789of"))
    joint = Joint(model.model, 16).eval()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, -1, -1]])
    energy, depth = joint.both(ids)
    for k, row in enumerate(ids):
        known = row[row >= 0][None]
        pooled = model.model(input_ids=known, output_hidden_states=True).hidden_states[-1].mean(1)
        torch.testing.assert_close(energy[k], joint.energy.both(pooled)[0][0])
        torch.testing.assert_close(depth[k], joint.energy.both(pooled)[1][0])
    sampler = samplers([run], model.tokenizer, 16, validation_share=0.3, negatives=3)["training"]
    batch = JointBatch(Tokens(torch.tensor([[1, 2, 3, 4]])), contrast_of(sampler, 8, 0, 1))
    loss = JointLoss(0.4)(joint, batch)
    expected = NextToken()(joint, batch.tokens).value + 0.4 * EnergyLoss(InfoNCE())(joint, batch.contrast).value
    torch.testing.assert_close(loss.value, expected)
    assert len(batch.to("cpu")) == 1
    loss.value.backward()
    assert all(p.grad is not None for p in joint.parameters())


@pytest.mark.slow
def test_a_policy_learns_with_an_energy_and_resumes(run, tmp_path):
    out = tmp_path / "policy"
    flags = ("--save-every", 20, "--warmup-steps", 2, "--validation-share", 0.3, "--energy-weight", 1.0, "--lr", 0.01)
    assert finetune(run, "--out", out, *SMALL, *flags, "--steps", 20) == 0
    assert finetune("--out", out, "--resume", "--steps", 60) == 0
    records = [row for row in read_records(out / "metrics.jsonl") if "held-out loss" in row]
    assert [row["step"] for row in records] == [20, 40, 60]
    assert records[-1]["energy gap"] > records[0]["energy gap"] > 0 or records[-1]["energy top-1"] > 0.6
    assert records[-1]["held-out loss"] < records[0]["held-out loss"]
    assert causal(str(out / "model")).model(input_ids=torch.tensor([[1, 2]])).logits.isfinite().all()


@pytest.mark.slow
def test_adapters_learn_with_an_energy_and_the_merged_model_is_a_language_model(run, tmp_path):
    base, out = saved(tmp_path / "base", "llama", alphabet="⊢ 0123456789of=\n`lean4/-tcs:"), tmp_path / "policy"
    flags = ("--base", base, "--rank", 4, "--length", 64, "--batch-size", 2, "--lr", 0.005, "--validation-share", 0.3)
    steps = ("--steps", 60, "--save-every", 60, "--warmup-steps", 2, "--threads", 1)
    assert finetune(run, "--out", out, *flags, *steps, "--energy-weight", 1.0) == 0
    (record,) = [row for row in read_records(out / "metrics.jsonl") if "held-out loss" in row]
    assert record["energy gap"] > 0.05
    after, before = causal(str(out / "model")).model, causal(str(base)).model
    changed = [name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))]
    assert len(changed) == 7 * 2
    assert not any("energy" in name for name in read_tensors(out / "model" / "model.safetensors"))


def test_an_energy_needs_runs_of_searches(tmp_path, capsys):
    lines = [json.dumps({"state": f"⊢ {k}", "tactic": "rfl"}) for k in range(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    words = ("--out", tmp_path / "policy", *SMALL, "--validation-share", 0.3, "--energy-weight", 1.0)
    assert finetune("--pairs", tmp_path / "pairs.jsonl", *words) == 2
    assert "--energy-weight: no proved theorem, or no states off the paths of proofs" in capsys.readouterr().err
