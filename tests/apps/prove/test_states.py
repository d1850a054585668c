"""Embeddings of proof states."""

import json
import re

import torch
from test_causal import saved
from test_energy import wide_run

from monge.apps.prove.states import states_of
from monge.cli import main
from monge.lm.load import causal
from monge.lm.ragged import Ragged
from monge.training.log import read_records


def test_states_with_unusable_vectors_are_rejected_and_counted(tmp_path, capsys):
    path, states = saved(tmp_path / "model", "llama", alphabet="⊢ 0123456789of"), tmp_path / "states"
    model = causal(path)
    (nine,) = model.tokenizer("9")["input_ids"]
    with torch.no_grad():
        model.model.get_input_embeddings().weight[nine] = torch.nan
    model.model.save_pretrained(path)
    run = wide_run(tmp_path / "run", range(5, 30))
    texts = states_of([run])
    bad = [key for key, text in texts.items() if "9" in text]
    assert main(["prove", "embed", str(run), "--model", str(path), "--out", str(states)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(texts) - len(bad)} states embedded, {len(bad)} rejected" in printed
    assert re.search(r"rejected: .*9.* \(vector 0 holds NaN\)", printed)
    assert set(Ragged(states).ids) == texts.keys() - set(bad)
    flags = ["--embeddings", str(states), "--out", str(tmp_path / "energy"), "--hidden", "16", "--loss", "margin"]
    steps = ["--steps", "100", "--log-every", "10", "--warmup-steps", "2", "--validation-share", "0.3", "--lr", "0.01"]
    assert main(["prove", "energy", str(run), *flags, *steps]) == 0
    content = json.loads((tmp_path / "energy" / "energy.json").read_text())
    assert sum(part["missing"] for part in content["states"].values()) >= len(bad)
    records = read_records(tmp_path / "energy" / "metrics.jsonl")
    assert records[-1]["loss"] - 0.3 * records[-1]["depth error"] < 0.8  # 1 for equal energies
