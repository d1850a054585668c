"""The separation probe of a policy's training."""

import pytest
import torch
from test_causal import saved
from test_energy import wide_run
from test_finetune import QUICK, SMALL, finetune, run_of

from monge.apps.prove.separation import probe_states, separation
from monge.apps.prove.trajectories import attempts
from monge.lm.load import causal
from monge.training.log import read_records


def test_the_states_are_those_on_and_off_the_paths_of_held_out_proofs(tmp_path):
    run = wide_run(tmp_path / "run", range(5, 40))
    on, off = probe_states([run], 1000, validation_share=0.5)
    rows = attempts(run).to_pylist()
    positive = {row["state_before"] for row in rows if row["label"] == "positive"}
    assert set(on) < positive
    assert not set(on) & set(off)
    assert len(on) == len(set(on))
    assert [len(part) for part in probe_states([run], 6, validation_share=0.5)] == [6, 6]
    with pytest.raises(ValueError, match=r"--probe-states: \d states on and \d off the paths of held-out proofs"):
        probe_states([wide_run(tmp_path / "shared", range(5, 40), own=False)], 1000, validation_share=0.5)
    with pytest.raises(ValueError, match=r"--probe-states: \d+ states on and \d off the paths of held-out proofs"):
        probe_states([run_of(tmp_path / "other", range(4, 24))], 10, validation_share=0.5)


def test_separation_is_measured_on_mean_hidden_states(tmp_path):
    model = causal(saved(tmp_path / "model", "llama"))
    on, off = [f"{'a' * k}b" for k in range(5, 25)], [f"{'c' * k}b" for k in range(5, 25)]
    found = separation(model.model, model.tokenizer, on, off, length=16)

    def embedded(text: str) -> torch.Tensor:
        ids = torch.tensor([model.tokenizer(text)["input_ids"][-16:]])
        return model.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].mean(0).detach()

    x, y = (torch.stack([embedded(text) for text in texts]) for texts in (on, off))
    assert found["centroid distance"] == pytest.approx(float((x.mean(0) - y.mean(0)).norm()), rel=1e-4)
    assert found["positive norm"] == pytest.approx(float(x.norm(dim=1).mean()), rel=1e-4)
    assert found["negative norm"] == pytest.approx(float(y.norm(dim=1).mean()), rel=1e-4)
    assert found["separation"] == 1
    mixed = separation(model.model, model.tokenizer, on[::2] + off[::2], on[1::2] + off[1::2], length=16)
    assert mixed["separation"] < 0.9


@pytest.mark.slow
def test_each_evaluation_of_a_policy_has_the_probe(tmp_path):
    run = wide_run(tmp_path / "run", range(5, 40))
    assert finetune(run, "--out", tmp_path / "out", *SMALL, *QUICK, "--probe-states", 8) == 0
    records = [row for row in read_records(tmp_path / "out" / "metrics.jsonl") if "held-out loss" in row]
    assert len(records) == 2
    assert all(0 <= row["separation"] <= 1 and row["centroid distance"] > 0 for row in records)
