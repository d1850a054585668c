"""An energy over proof states: embeddings, contrastive samples, training, and its use in a search."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from test_finetune import run_of
from toy import Countdown, all_ways, result

from monge.apps.prove.contrast import Group, Positive, Sampler, groups_of
from monge.apps.prove.energy import EnergyLoss, Scorer, StateEnergy
from monge.apps.prove.energy_measures import quality
from monge.apps.prove.pairs import digest
from monge.apps.prove.policy import Probes
from monge.apps.prove.search import search
from monge.apps.prove.state import Goal, State
from monge.apps.prove.states import StateVectors, check_same_model, states_of, write
from monge.apps.prove.trajectories import Recorder, attempts, table
from monge.apps.prove.tree import Search
from monge.cli import main
from monge.fleet import sequential
from monge.lm.embed import Embedding
from monge.lm.ragged import Ragged
from monge.nets.energy import EnergyMLP
from monge.objective.contrastive import IndexedCandidates, InfoNCE
from monge.training.config import TrainConfig


def wide_run(directory: Path, numbers: range, *, own: bool = True) -> Path:
    """A run in which every state has siblings that are on no proof; theorems share states unless they are their own."""
    directory.mkdir()
    with Recorder(directory) as recorder:
        for number, n in enumerate(numbers):
            outcome = search(Countdown(n, own=own), all_ways, Search(batch_size=1, max_states=40))
            assert outcome.proof is not None
            rows = table(outcome, run="w", number=number, theorem=f"t{n}", worker="w", seed=0, policy="template")
            recorder.add(result(number, name=f"t{n}", tactics=outcome.proof.tactics, signature=f": {n}"), rows)
    (directory / "settings.json").write_text(json.dumps({"theorems": {"split": "train"}}))
    return directory


def stored(directory: Path, states: dict[str, str], width: int = 6) -> StateVectors:
    """States with random embeddings."""
    generator = torch.Generator().manual_seed(0)
    rows = ((key, torch.randn(1, width, generator=generator)) for key in states)
    Ragged.write(directory, rows, dtype="float16", fingerprint={"model": "none"})
    return StateVectors(directory)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return wide_run(tmp_path / "run", range(5, 30))


def test_the_states_of_a_run_are_distinct_and_have_goals(run):
    states = states_of([run, run])
    assert {row["state_before"] for row in attempts(run).to_pylist()} < set(states.values())
    assert "no goals" not in states.values()
    assert all(digest(text) == key for key, text in states.items())


def test_positives_are_on_proofs_and_siblings_share_their_parents(run, tmp_path):
    vectors = stored(tmp_path / "states", states_of([run]))
    groups, counts = groups_of([run], vectors, validation_share=0.3)
    assert min(len(part) for part in groups.values()) > 1
    texts = {vectors.number(text): text for text in states_of([run]).values()}
    rows = attempts(run).to_pylist()
    positive = {row["state_before"] for row in rows if row["label"] == "positive"}
    for group in [*groups["training"], *groups["validation"]]:
        for one in group.positives:
            assert texts[one.state] in positive
            assert set(one.siblings) <= set(group.negatives)
            assert one.remaining >= 1
            for sibling in one.siblings:
                mine, theirs = (
                    {row["state_before"] for row in rows if row["state_after"] == texts[number]}
                    for number in (one.state, sibling)
                )
                assert mine & theirs
    assert sum(count.positives for count in counts.values()) == sum(
        len(group.positives) for part in groups.values() for group in part
    )
    assert all(count.missing == count.shared == 0 for count in counts.values())


def test_states_of_training_theorems_are_not_in_validation(tmp_path):
    run = wide_run(tmp_path / "run", range(5, 30), own=False)
    vectors = stored(tmp_path / "states", states_of([run]))
    groups, counts = groups_of([run], vectors, validation_share=0.3)
    rows = {split: set().union(*(group.rows for group in part)) for split, part in groups.items()}
    siblings = set().union(*(one.siblings for group in groups["validation"] for one in group.positives))
    assert not rows["training"] & (rows["validation"] | siblings)
    assert counts["validation"].shared > 0 == counts["training"].shared


def test_a_state_on_the_proof_of_a_theorem_is_no_negative_of_another(tmp_path):
    run = wide_run(tmp_path / "run", range(5, 30), own=False)
    vectors = stored(tmp_path / "states", states_of([run]))
    groups, counts = groups_of([run], vectors, validation_share=0.3)
    both = [*groups["training"], *groups["validation"]]
    positive = {one.state for group in both for one in group.positives}
    assert not positive & {number for group in both for number in group.negatives}
    assert sum(count.contradictions for count in counts.values()) > 10
    assert sum(count.negatives for count in counts.values()) > 10


def test_a_state_without_embedding_is_counted_and_left_out(run, tmp_path):
    states = states_of([run])
    kept = dict(list(states.items())[::2])
    groups, counts = groups_of([run], stored(tmp_path / "states", kept), validation_share=0.3)
    assert sum(count.missing for count in counts.values()) > 0
    assert all(one.state < len(kept) for part in groups.values() for group in part for one in group.positives)


def test_the_mix_decides_the_kind_of_the_negatives(tmp_path):
    vectors = stored(tmp_path / "states", {str(k): "" for k in range(30)})
    groups = [Group([Positive(0, 3, (1, 2))], [1, 2, 3, 4]), Group([Positive(10, 1, ())], [11, 12])]
    for mix, allowed in (((1, 0, 0), {1, 2}), ((0, 1, 0), {1, 2, 3, 4}), ((0, 0, 1), {11, 12})):
        sampler, seen = Sampler(groups, vectors, negatives=4, mix=mix), set()
        batch = sampler.batch(200, np.random.default_rng(0))
        first = batch.candidates.index[:, 0]
        # rows whose positive state is 0: its row in x is the one with the vector of state 0
        is_zero = (batch.candidates.x[first] == vectors.rows(torch.tensor([0]))).all(1)
        assert 50 < int(is_zero.sum()) < 150
        table_of = {tuple(vectors.rows(torch.tensor([k]))[0].tolist()): k for k in range(30)}
        for row in batch.candidates.index[is_zero][:, 1:].flatten().tolist():
            seen.add(table_of[tuple(batch.candidates.x[row].tolist())])
        assert seen == allowed
    with pytest.raises(ValueError, match="no proved theorem, or no states off the paths"):
        Sampler([Group([Positive(0, 1, ())], [])], vectors)


def test_each_distinct_state_of_a_batch_goes_through_the_network_once(run, tmp_path):
    vectors = stored(tmp_path / "states", states_of([run]))
    groups, _ = groups_of([run], vectors, validation_share=0.3)
    batch = Sampler(groups["training"], vectors).batch(64, np.random.default_rng(0))
    sizes = []
    model = EnergyMLP(vectors.width, (8,), dropout=0.0)
    model.trunk.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    value = EnergyLoss(InfoNCE(), weight=0.0)(model, batch).value
    assert sizes == [len(batch.candidates.x)]
    assert sizes[0] < batch.candidates.index.numel()
    spread = model(batch.candidates.x[batch.candidates.index.flatten()]).reshape(batch.candidates.index.shape)
    assert batch.candidates.mask is not None
    expected = -(-spread.masked_fill(~batch.candidates.mask, torch.inf)).log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(value, expected)


def test_a_state_s_own_children_are_not_its_siblings(tmp_path):
    with Recorder(tmp_path) as recorder:
        outcome = search(Countdown(5), Probes(("0", "1", "3", "double")), Search(batch_size=1))
        rows = table(outcome, run="w", number=0, theorem="t", worker="w", seed=0)
        assert "no progress" in rows.column("outcome").to_pylist()
        recorder.add(result(0, tactics=outcome.proof.tactics), rows)
    vectors = stored(tmp_path / "states", states_of([tmp_path]))
    groups, _ = groups_of([tmp_path], vectors, validation_share=0.5)
    (group,) = groups["training"] + groups["validation"]
    root = next(one for one in group.positives if one.state == vectors.number("⊢ 5"))
    assert root.siblings == ()


def test_a_random_energy_is_at_chance(run, tmp_path):
    vectors = stored(tmp_path / "states", states_of([run]), width=64)
    groups, _ = groups_of([run], vectors, validation_share=0.3)
    sampler = Sampler(groups["training"], vectors)
    for batches in ([sampler.batch(512, np.random.default_rng(0))], sampler.sibling_sets(np.random.default_rng(0))):
        found = [quality(EnergyMLP(64, (32,)).eval(), batches) for _ in range(40)]
        tops = [one["top-1"] for one in found]
        assert np.mean(tops) == pytest.approx(found[0]["chance"], abs=4 * np.std(tops) / 40**0.5)


def test_a_resumed_energy_needs_the_same_runs(run, tmp_path, capsys):
    stored(tmp_path / "states", states_of([run]))
    flags = [
        "--embeddings",
        str(tmp_path / "states"),
        "--hidden",
        "8",
        "--validation-share",
        "0.3",
        "--out",
        str(tmp_path / "e"),
    ]
    steps = ["--save-every", "2", "--warmup-steps", "1", "--batch-size", "8"]
    assert main(["prove", "energy", str(run), *flags, *steps, "--steps", "2"]) == 0
    other = wide_run(tmp_path / "other", range(5, 20))
    assert main(["prove", "energy", str(other), *flags, *steps, "--steps", "4", "--resume"]) == 2
    assert "states does not match the current data" in capsys.readouterr().err


def test_masked_candidates_have_infinite_energy():
    candidates = IndexedCandidates(torch.ones(2, 1), torch.tensor([[0, 1]]), torch.tensor([[True, False]]))
    assert candidates.energies(lambda x: x[:, 0]).tolist() == [[1.0, float("inf")]]


def test_no_parameter_is_a_scalar_which_fsdp_does_not_shard():
    assert all(p.ndim for p in EnergyMLP(6, (8, 4)).parameters())


def test_compile_is_rejected():
    with pytest.raises(ValueError, match="--compile has no effect on an energy"):
        StateEnergy(train=TrainConfig(compile=True))


def test_spectral_norm_bounds_each_hidden_layer():
    model = EnergyMLP(6, (8, 4), spectral=True).eval()
    linear = [part for part in model.trunk if isinstance(part, torch.nn.Linear)]
    for part in linear:
        part.parametrizations.weight.original.data *= 10
    model.train()
    for _ in range(30):
        model(torch.randn(2, 6))
    assert all(
        float(torch.linalg.matrix_norm(part.weight.detach(), 2)) == pytest.approx(1, abs=0.05) for part in linear
    )


def test_with_a_goal_each_candidate_is_followed_by_the_first_state_of_the_theorem(run, tmp_path):
    vectors = stored(tmp_path / "states", states_of([run]))
    groups, _ = groups_of([run], vectors, validation_share=0.2)
    roots = {group.root for group in groups["training"]}
    assert roots <= {vectors.number(f"⊢ {n} of {n}") for n in range(5, 30)}
    assert len(roots) == len(groups["training"]) > 10
    plain, conditioned = (
        Sampler(groups["training"], vectors, goal=goal).batch(64, np.random.default_rng(0)) for goal in (False, True)
    )
    x, index = conditioned.candidates.x, conditioned.candidates.index
    assert x.shape[1] == 12
    torch.testing.assert_close(x[index][..., :6], plain.candidates.x[plain.candidates.index])
    assert (x[index][..., 6:] == x[index][:, :1, 6:]).all()  # one goal for all candidates of a row
    known = vectors.rows(torch.tensor(sorted(roots)))
    assert all((known == row).all(1).any() for row in x[:, 6:])
    assert len(x.unique(dim=0)) == len(x)


@pytest.mark.slow
def test_an_energy_with_a_goal_depends_on_the_theorem(run, tmp_path, language_model):
    states, out = tmp_path / "states", tmp_path / "energy"
    assert main(["prove", "embed", str(run), "--model", str(language_model), "--out", str(states)]) == 0
    flags = ["--embeddings", str(states), "--out", str(out), "--hidden", "16", "--validation-share", "0.3", "--goal"]
    assert main(["prove", "energy", str(run), *flags, "--steps", "10", "--save-every", "5", "--batch-size", "16"]) == 0
    scorer, state = Scorer(out), State((Goal("7"),))
    one, other = (scorer.towards(State((Goal(str(n)),)))([state]) for n in (12, 20))
    assert one != other
    assert scorer.towards(State((Goal("12"),)))([state]) == one

    shutil.rmtree(states)
    again = ["--model", str(language_model), "--pooling", "last", "--out", str(states)]
    assert main(["prove", "embed", str(run), *again]) == 0
    with pytest.raises(ValueError, match="trained on other embeddings than those now in"):
        Scorer(out)


@pytest.mark.slow
def test_stored_embeddings_are_served(run, tmp_path, language_model):
    states = tmp_path / "states"
    assert main(["prove", "embed", str(run), "--model", str(language_model), "--out", str(states)]) == 0
    text = next(iter(states_of([run]).values()))
    words = ["serve-embeddings", str(states), "--port", "0", "--batch-size", "4", "--queue-size", "8", "--linger", "0"]
    flags = ["--host", "127.0.0.1", "--token-variable", "TOKEN"]
    with subprocess.Popen(
        [sys.executable, "-m", "monge", "prove", *words, *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKEN": "secret"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores Ctrl-C
    ) as process:
        assert process.stdout is not None
        *_, url, flag, variable = process.stdout.readline().split()
        assert (flag, variable) == ("--embeddings-token-variable", "TOKEN")
        url = url.removesuffix("/v1")
        headers = {"Authorization": "Bearer secret"}
        with urlopen(Request(f"{url}/encode", json.dumps({"text": text}).encode(), headers)) as response:
            served = torch.tensor(json.loads(response.read())["embedding"])
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
    vectors = StateVectors(states)
    number = vectors.number(text)
    assert number is not None
    torch.testing.assert_close(served, vectors.rows(torch.tensor([number]))[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_states_are_embedded_and_an_energy_orders_a_search(run, tmp_path, language_model, capsys):
    states, out = tmp_path / "states", tmp_path / "energy"
    model = ("--model", str(language_model))
    assert main(["prove", "embed", str(run), *model, "--out", str(states)]) == 0
    assert f"{len(states_of([run]))} states embedded, 0 rejected" in capsys.readouterr().out
    flags = ["--embeddings", str(states), "--out", str(out), "--hidden", "32", "--validation-share", "0.3"]
    steps = ["--steps", "200", "--save-every", "100", "--warmup-steps", "5", "--batch-size", "64", "--lr", "0.01"]
    assert main(["prove", "energy", str(run), *flags, *steps]) == 0
    content = json.loads((out / "energy.json").read_text())
    assert content["quality"]["sampled"]["gap"] > 0
    assert content["states"]["training"]["positives"] > content["states"]["validation"]["positives"] > 0
    assert 1 / 8 <= content["quality"]["sampled"]["chance"] < 0.5
    assert "chance" in capsys.readouterr().out
    scorer = Scorer(out)
    near, far = scorer([State((Goal("1"),)), State((Goal("96"),))])
    assert np.isfinite([near, far]).all()
    orders = []
    for sign in (1, -1):
        settings = Search(batch_size=1, max_states=8, alpha=0.0)
        outcome = search(
            Countdown(96), all_ways, settings, lambda states, sign=sign: [sign * e for e in scorer(states)]
        )
        expanded = list(dict.fromkeys(attempt.parent for attempt in outcome.attempts))
        reached = [
            attempt.child
            for attempt in outcome.attempts
            if attempt.outcome == "state" and attempt.parent is expanded[0]
        ]
        assert expanded[1].energy == min(one.energy for one in reached)
        orders.append([node.text for node in expanded])
    assert orders[0] != orders[1]
    assert main(["prove", "energy", "--out", str(out), "--resume", "--steps", "220"]) == 0


@pytest.mark.parametrize("measure", ["shuffled", "noise"])
def test_a_control_depends_on_the_state_but_not_on_its_embedding(measure):
    scorer = Scorer.__new__(Scorer)
    scorer.measure, scorer.known, scorer.median = measure, torch.arange(1000.0), 500.0
    states = [State((Goal(str(k)),)) for k in range(300)]
    values = scorer(states)
    assert scorer(states[7:9]) == values[7:9]
    mean, spread = (0, 1) if measure == "noise" else (-0.5, 288.7)
    assert abs(np.mean(values) - mean) < 4 * spread / 300**0.5
    assert np.std(values) == pytest.approx(spread, rel=0.15)


def test_the_depth_measure_is_the_second_head():
    scorer = Scorer.__new__(Scorer)
    scorer.embed, scorer.median, scorer.measure = lambda _: torch.tensor([[1.0, 1.0], [2.0, 0.0]]), 1.0, "depth"
    scorer.model = SimpleNamespace(both=lambda x: (x.sum(1), x[:, 0]))
    assert scorer([State(())] * 2) == [0.0, 1.0]


def test_a_state_that_cannot_be_embedded_has_infinite_energy():
    scorer = Scorer.__new__(Scorer)
    scorer.embed = lambda _: torch.tensor([[1.0, 1.0], [0.0, 0.0], [torch.nan, 1.0]])
    scorer.median, scorer.measure = 1.0, "energy"
    scorer.model = SimpleNamespace(both=lambda x: (x.sum(1), x[:, 0]))
    assert scorer([State(())] * 3) == [1.0, float("inf"), float("inf")]


def test_embeddings_of_another_model_are_rejected(tmp_path, language_model):
    embedding = Embedding(str(language_model), 1, 16, pooling="mean")
    dropped = []
    assert list(write(tmp_path / "states", {"a": "ph", "b": "ps"}, embedding, sequential, dropped=dropped)) == [(1, 1)]
    vectors = StateVectors(tmp_path / "states")
    assert (len(vectors), dropped, vectors.embedding) == (2, [], embedding)
    check_same_model(vectors, embedding.fingerprint())
    with pytest.raises(ValueError, match=r"the embeddings differ in layer \(1, not 2\); embed the states again"):
        check_same_model(vectors, Embedding(str(language_model), 2, 16, pooling="mean").fingerprint())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("energy",), "an energy needs directories of runs, and --embeddings DIR of `monge prove embed`"),
        (("energy", "RUN", "--embeddings", "nowhere"), "nowhere: no vectors here"),
        (("energy", "RUN", "--mix", "0", "0", "0"), "mix must be three shares, not all zero"),
        (("embed", "missing", "--model", "m"), "missing"),
        (("embed", "RUN", "--model", "nowhere"), "nowhere: no complete Hugging Face model"),
        (("search", "--energy", "nowhere"), "nowhere: no run here"),
    ],
)
def test_bad_input_gives_one_sentence(tmp_path, capsys, flags, message):
    run = run_of(tmp_path / "run", range(4, 7))
    words = [str(run) if flag == "RUN" else flag for flag in flags]
    assert main(["prove", *words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "settings.json").exists()
