"""A tactic policy learns from runs: training, adapters, prompts and export."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_causal import direct, saved
from toy import Countdown, down, result

from monge.apps.prove.config import Local, SearchConfig
from monge.apps.prove.copying import Copying
from monge.apps.prove.finetune import PRESETS, Data, FineTune, trained
from monge.apps.prove.learning import with_preset
from monge.apps.prove.lm.causal import Causal, Sampling
from monge.apps.prove.lm.prompt import Style, completion, prompt, prompt_ids
from monge.apps.prove.packing import batch_of
from monge.apps.prove.pairs import read_examples
from monge.apps.prove.scores import scores_of
from monge.apps.prove.search import search
from monge.apps.prove.state import Goal, Hypothesis, State
from monge.apps.prove.trajectories import Recorder, table
from monge.apps.prove.tree import Search
from monge.apps.prove.worker import LocalModel, _model
from monge.cli import main
from monge.flags import bind
from monge.lm.load import causal
from monge.runs import reopen


def run_of(directory: Path, numbers: range, run: str = "r") -> Path:
    """A run of countdowns, all proved, with one theorem for each number."""
    directory.mkdir()
    with Recorder(directory) as recorder:
        for number, n in enumerate(numbers):
            outcome = search(Countdown(n), down, Search(batch_size=1))
            rows = table(outcome, run=run, number=number, theorem=f"t{n}", worker="w", seed=0, policy="template")
            recorder.add(result(number, name=f"t{n}", tactics=outcome.proof.tactics, signature=f": {n}"), rows)
    (directory / "settings.json").write_text(json.dumps({"theorems": {"split": "train"}}))
    return directory


SMALL = ("--width", 32, "--depth", 2, "--heads", 2, "--vocabulary", 300, "--length", 128)
QUICK = ("--steps", 4, "--save-every", 2, "--log-every", 2, "--warmup-steps", 1, "--validation-share", 0.3)


def finetune(*words: object) -> int:
    return main(["prove", "finetune", *map(str, words)])


def test_renamed_copies_follow_the_examples_and_leave_held_out_ones_alone(tmp_path):
    states = [f"a b : N\nh : a = {k} + b\n⊢ b = {k}" for k in range(40)]
    lines = [json.dumps({"state": state, "tactic": f"exact foo_{k} h"}) for k, state in enumerate(states)]
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join([*lines, json.dumps({"state": "c n : N\n⊢ c = n", "tactic": "rfl"})])
    )
    recipe = FineTune(pairs=(str(tmp_path / "pairs.jsonl"),), width=16, heads=2, vocabulary=400)
    plain, copied = Data(recipe), Data(replace(recipe, renamed_copies=3))
    count = len(plain.training)
    assert copied.training[:count] == plain.training
    assert copied.held_out == plain.held_out
    assert (plain.num_renamed, copied.num_renamed) == (0, 3 * count)
    assert copied.training[count : 2 * count] != copied.training[2 * count : 3 * count]
    decode = copied.tokenizer.decode
    assert "a b : N" in decode(copied.training[0].ids)
    assert {"c", "n"} & set(re.findall(r"\b[a-z]\b", decode(copied.training[count].ids)))


def test_pairs_in_the_tails_of_an_earlier_policy_weigh_less(tmp_path, monkeypatch):
    monkeypatch.setattr("monge.apps.prove.scores.cache_directory", lambda: tmp_path)
    run, policy = run_of(tmp_path / "run", range(4, 40)), causal(saved(tmp_path / "policy", "llama"))
    recipe = FineTune(runs=(str(run),), width=16, heads=2, vocabulary=400, length=300, validation_share=0.3)
    recipe = replace(recipe, scored_by=policy.name, tails=(0.25, 0.5), tail_weight=0.2, renamed_copies=1)
    data = Data(recipe)
    pairs = data.split["training"]
    scores = scores_of(pairs, policy, 300)
    for pair, score in list(zip(pairs, scores, strict=True))[:5]:
        after = [*policy.tokenizer(completion(pair.tactic))["input_ids"], policy.tokenizer.eos_token_id]
        expected = direct(policy, prompt_ids(policy.tokenizer, pair.state), after) / len(after)
        assert score == pytest.approx(expected, abs=1e-4)
    order = sorted(range(len(pairs)), key=lambda k: scores[k])
    low, high = round(0.25 * len(order)), round(0.5 * len(order))
    expected = [1.0 if k in order[low : len(order) - high] else 0.2 for k in range(len(pairs))]
    assert [one.weight for one in data.training] == expected * 2
    assert {one.weight for one in data.held_out} == {1.0}
    assert len(list((tmp_path / "scores").iterdir())) == 1  # computed once
    weights = [replace(recipe, tails=tails).build().constants["weights"] for tails in ((0.25, 0.5), (0.25, 0.4))]
    assert weights[0] != weights[1]
    assert "weights" not in replace(recipe, scored_by="").build().constants
    batch = batch_of([data.training[:2]], 300, data.pad)
    assert set(batch.weight.unique().tolist()) <= {0.0, *map(float, torch.tensor(expected))}
    with pytest.raises(ValueError, match="tails must be two shares with a sum of at most 1"):
        replace(recipe, tails=(0.7, 0.5))


@pytest.mark.slow
def test_a_policy_with_numbered_names_suggests_tactics_with_the_names_of_the_state(tmp_path):
    lines = []
    for k in range(60):
        first, second = "abcdefgk"[k % 8], "mnpqrstu"[k // 8]
        state = f"{first} {second} : N\n{first}{second} : {first} = {second}\n⊢ {second} = {first}"
        lines.append(json.dumps({"state": state, "tactic": f"rw [{first}{second}]"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    flags = ["--steps", 60, "--save-every", 30, "--warmup-steps", 5, "--validation-share", 0.3, "--lr", 0.01]
    words = ["--pairs", tmp_path / "pairs.jsonl", "--out", tmp_path / "out", *SMALL, *flags, "--names", "numbered"]
    assert finetune(*words) == 0
    model = causal(str(tmp_path / "out" / "model"))
    assert Style.of(model.model) == Style("first", "numbered")
    goal = Goal(
        "ww = zz", (Hypothesis("zz", "N", False), Hypothesis("ww", "N", False), Hypothesis("new", "zz = ww", True))
    )
    (found,) = Causal(model, generator=torch.Generator().manual_seed(0))([State((goal,))], 4)
    assert found[0].tactic == "rw [new]"  # names that occur in no pair


@pytest.mark.slow
def test_a_policy_sees_tactics_of_similar_states_of_other_theorems(tmp_path):
    run, out = run_of(tmp_path / "run", range(4, 24)), tmp_path / "out"
    assert finetune(run, "--out", out, *SMALL, *QUICK, "--retrieved", 3) == 0
    recipe = reopen(out, app="policy").rebuilt(FineTune)
    data, model = Data(recipe), causal(str(out / "model"))
    pair = data.split["training"][0]
    (others,) = Copying(data.split["training"]).without(pair.theorem)([pair.state], 3)
    text = model.tokenizer.decode(data.training[0].ids)
    tactics = "\n".join(one.tactic for one in others)
    assert f"/- tactics of similar states:\n{tactics}\n-/\n/- tactic state:\n{pair.state}" in text
    assert read_examples(out / "model") == data.split["training"]
    loaded = _model("local", SearchConfig(policy="local", local=Local(name=str(out / "model"))))
    assert isinstance(loaded, LocalModel)
    assert loaded.examples is not None
    similar = loaded.examples.without(pair.theorem)
    policy = Causal(loaded.language_model, generator=torch.Generator(), similar=similar)
    assert tuple(policy.prompt_ids(State((Goal(pair.state[2:]),)))) == data.training[0].ids[: data.training[0].prompt]
    with pytest.raises(ValueError, match="its prompts have tactics of similar states; only a search provides them"):
        Causal(model, generator=torch.Generator())
    (out / "model" / "examples.jsonl").unlink()
    with pytest.raises(ValueError, match=r"examples\.jsonl: .*; .*need the examples that `monge prove finetune` saves"):
        _model("local", SearchConfig(policy="local", local=Local(name=str(out / "model"))))
    for verb, flag in (("dpo", "--model"), ("finetune", "--scored-by")):
        words = ["prove", verb, str(run), flag, str(out / "model"), "--out", str(tmp_path / verb), "--length", "100"]
        assert main(words) == 2


@pytest.mark.slow
def test_a_policy_reranks_the_tactics_of_other_theorems(tmp_path):
    run, out = run_of(tmp_path / "run", range(4, 24)), tmp_path / "out"
    assert finetune(run, "--out", out, *SMALL, *QUICK) == 0
    settings = Local(name=str(out / "model"), sampling=Sampling(reranked=8, answers=False))
    loaded = _model("local", SearchConfig(policy="local", local=settings))
    assert loaded.examples is not None
    pair = Data(reopen(out, app="policy").rebuilt(FineTune)).split["training"][0]
    similar = loaded.examples.without(pair.theorem)
    policy = Causal(loaded.language_model, generator=torch.Generator(), sampling=settings.sampling, similar=similar)
    (found,) = policy([State((Goal(pair.state[2:]),))], 20)
    (copied,) = similar([pair.state], 8)
    assert {one.tactic for one in found} == {one.tactic for one in copied}
    assert _model("local", SearchConfig(policy="local", local=Local(name=str(out / "model")))).examples is None


@pytest.mark.slow
def test_the_prompt_shows_the_goals_that_the_model_was_trained_on(tmp_path):
    run = run_of(tmp_path / "run", range(4, 24))
    state = State((Goal("3"), Goal("17")))
    for goals in ("first", "all"):
        out = tmp_path / goals
        assert finetune(run, "--out", out, *SMALL, *QUICK, "--goals", goals) == 0
        model = causal(str(out / "model"))
        ids = Causal(model, generator=torch.Generator()).prompt_ids(state)
        assert ("17" in model.tokenizer.decode(ids)) == (goals == "all")
        assert "⊢ 3" in model.tokenizer.decode(ids)


@pytest.mark.slow
def test_finetune_trains_resumes_and_saves_a_policy(tmp_path, capsys):
    run = run_of(tmp_path / "run", range(4, 24))
    out = tmp_path / "policy"
    assert finetune(run, "--out", out, *SMALL, *QUICK, "--lr", 0.01) == 0
    assert finetune("--out", out, "--resume", "--steps", 40, "--save-every", 20) == 0
    assert "held-out" in capsys.readouterr().out
    content = json.loads((out / "policy.json").read_text())
    (source,) = content["sources"]
    assert source["kept"] == sum(content["examples"].values())
    assert content["held-out loss"][str(run)]["examples"] == content["examples"]["held-out"]
    model = causal(str(out / "model"))
    policy = Causal(model, generator=torch.Generator().manual_seed(0))
    (suggestions,) = policy([State((Goal("7"),))], 8)
    assert {"1", "3"} & {one.tactic for one in suggestions}
    data, network = trained(reopen(out, app="policy").rebuilt(FineTune), reopen(out, app="policy"))
    ids = torch.tensor([model.tokenizer(prompt("⊢ 5"))["input_ids"]])
    torch.testing.assert_close(model.model(input_ids=ids).logits, network(input_ids=ids).logits, rtol=0, atol=1e-5)
    theorems = [{pair.theorem for pair in data.split[name]} for name in ("training", "validation")]
    assert not theorems[0] & theorems[1]


@pytest.mark.slow
def test_lora_trains_a_llama_and_is_merged_into_its_weights(tmp_path):
    base, run = (
        saved(tmp_path / "base", "llama", alphabet="135 =\n⊢`lean4/-tcsoe:"),
        run_of(tmp_path / "run", range(4, 24)),
    )
    out = tmp_path / "policy"
    flags = (
        "--base",
        base,
        "--rank",
        4,
        "--length",
        128,
        *QUICK,
        "--lr",
        0.05,
        "--gradient-accumulation",
        2,
        "--dtype",
        "float32",
    )
    assert finetune(run, "--out", out, "--preset", "deepseek-prover-7b", *flags, "--batch-size", 2) == 0
    recipe = reopen(out, app="policy").rebuilt(FineTune)
    assert (recipe.alpha, recipe.dropout, len(recipe.modules)) == (64.0, 0.05, 7)
    files = list(out.glob("checkpoints/*/model.safetensors"))
    assert all(file.stat().st_size < 100_000 for file in files)
    merged, before = causal(str(out / "model")).model, causal(base).model
    assert merged.config.model_type == "llama"
    changed = [
        name for name, weight in merged.named_parameters() if not torch.equal(weight, before.get_parameter(name))
    ]
    assert len(changed) == 7 * 2
    network = reopen(out, app="policy").weights(recipe.network(Data(recipe).model), which="best")
    ids = torch.arange(12)[None]
    torch.testing.assert_close(merged(input_ids=ids).logits, network(input_ids=ids).logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_quantised_base_is_fine_tuned_and_merged_unquantised(tmp_path):
    base = saved(tmp_path / "base", "llama", alphabet="135 =\n⊢`lean4/-tcsoe:")
    run, out = run_of(tmp_path / "run", range(4, 24)), tmp_path / "policy"
    flags = ("--base", base, "--rank", 4, "--quantize", "--length", 128, *QUICK, "--lr", 0.05)
    assert finetune(run, "--out", out, *flags) == 0
    recipe = reopen(out, app="policy").rebuilt(FineTune)
    linear = Data(recipe).model.model.layers[0].self_attn.q_proj
    assert linear.weight.dtype == torch.uint8
    after, before = causal(str(out / "model")).model, causal(base).model
    changed = [name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))]
    assert len(changed) == 7 * 2
    assert {weight.dtype for weight in after.parameters()} == {torch.float32}


@pytest.mark.parametrize("flag", [["--preset", "scratch"], ["--preset=scratch"]])
def test_a_preset_cannot_be_given_with_resume(flag, tmp_path, capsys):
    assert finetune("--out", tmp_path / "policy", "--resume", *flag) == 2
    assert "--resume continues with the run's settings; omit --preset" in capsys.readouterr().err


def test_published_pairs_are_mixed_in_by_their_share(tmp_path):
    run = run_of(tmp_path / "run", range(4, 24))
    rows = [{"state": f"⊢ {n} = {n}", "tactic": "rfl"} for n in range(500)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = FineTune((str(run),), (str(tmp_path / "pairs.jsonl"),), pair_share=0.4)
    split = Data(recipe).split
    pairs = [*split["training"], *split["validation"]]
    assert sum(pair.tactic == "rfl" for pair in pairs) / len(pairs) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    recipe = FineTune(("run",), **PRESETS[name])
    assert recipe.train.precision == ("bfloat16" if name == "deepseek-prover-7b" else "float32")
    assert (recipe.rank, recipe.alpha) == (None if name == "scratch" else 32, 64)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no training data; give directories of runs, or --pairs FILE"),
        (("missing",), "missing"),
        (("RUN", "--rank", 4), "--rank 4: LoRA needs a rank of at least 1 and a pretrained --base"),
        (("RUN", "--validation-share", 0), "validation_share must be between 0 and 1, got 0"),
        (("RUN", "--validation-share", 1e-9), "no pairs for validation"),
        (("RUN", "--base", "nowhere"), "nowhere: no complete Hugging Face model"),
        (("RUN", "--pair-share", 1), "pair_share must be at least 0 and below 1"),
        (("RUN", "--heads", 0), "heads must be at least 1"),
        (("RUN", "--width", 100, "--heads", 3), "width 100 does not divide into 3 heads"),
        (("RUN", "--length", 3), "--length 3: every tactic for training is longer"),
        (("RUN", "--quantize"), "--quantize needs --rank"),
        (("RUN", "--dtype", "bfloat16"), "--dtype bfloat16 rounds small updates away unless --rank is given"),
    ],
)
def test_bad_input_gives_one_sentence(tmp_path, capsys, flags, message):
    run = run_of(tmp_path / "run", range(4, 7))
    words = [run if flag == "RUN" else flag for flag in flags]
    given = [*SMALL, *QUICK, "--out", tmp_path / "policy"]
    kept = [part for k in range(0, len(given), 2) if given[k] not in flags for part in given[k : k + 2]]
    assert finetune(*words, *kept) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "policy" / "recipe.json").exists()


@pytest.mark.parametrize("flag", [["--preset", "smollm2-135m"], ["--preset=smollm2-135m"]])
def test_other_flags_are_checked_with_the_settings_of_the_preset(flag):
    """A base in half precision needs the rank that the preset gives."""
    words = ["run", "--out", "policy", "--dtype", "bfloat16", *flag]
    _, named = bind(with_preset(words), words, "finetune")
    assert (named["recipe"].rank, named["recipe"].dtype) == (32, "bfloat16")


def test_flags_of_a_resumed_run_are_checked_with_its_settings(tmp_path):
    """A base in half precision needs the rank that the run has."""
    base = saved(tmp_path / "base", "llama", alphabet="135 =\n⊢`lean4/-tcsoe:")
    run, out = run_of(tmp_path / "run", range(4, 24)), tmp_path / "policy"
    assert finetune(run, "--out", out, "--base", base, "--rank", 4, "--length", 128, *QUICK) == 0
    words = ["--out", str(out), "--resume", "--dtype", "bfloat16"]
    _, named = bind(with_preset(words), words, "finetune")
    assert (named["recipe"].rank, named["recipe"].dtype) == (4, "bfloat16")
