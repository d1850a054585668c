"""Arms at equal budgets: their measures, and the command on real Lean."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import NATURALS
from test_energy import wide_run
from toy import result

from monge.apps.prove.arms import Arm
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.evaluating import _runs_behind, orders
from monge.apps.prove.evaluation import expansions, markdown, oracle, paired, pass_at, states_until_proof, table
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.trajectories import results
from monge.cli import main
from monge.files import write_tensors
from monge.lm.ragged import Ragged
from monge.runs import rebuild

NO = math.inf
EMBEDDING = {"layer": 1, "max_length": 8, "dtype": "float16", "pooling": "mean"}


def test_a_proof_counts_within_its_budget():
    found = [result(0, tactics=("a", "b"), expanded=5), result(1, ended="out of nodes", expanded=9)]
    assert states_until_proof(found) == [5, NO]
    rows = table({"base": [[5, NO, 2, 9]], "arm": [[4, 8, 20, NO], [16, 8, NO, NO]]}, (4, 16))
    assert [(row["arm"], row["states"], row["proved"]) for row in rows] == [
        ("base", 4, 1),
        ("arm", 4, 0.5),
        ("base", 16, 3),
        ("arm", 16, 2),
    ]
    last = rows[-1]
    assert (last["pass@2"], last["more"], last["fewer"], last["p"]) == (0.5, 1, 2, 1.0)
    assert last["share"].startswith("2 of 4")
    assert last["ratio"]["searches"] == 2
    assert last["ratio"]["value"] == 2.0
    assert "| arm | 16 | 2 | 2 of 4, 50.0%" in markdown(rows, "title")


def test_an_arm_is_compared_with_its_base():
    passes = {"a": [[1.0, NO, NO]], "b": [[NO, 4.0, 2.0]], "b by energy": [[NO, 2.0, 2.0]]}
    rows = table(passes, (4,), bases={"b by energy": "b"})
    assert [(row["base"], row["more"], row["fewer"]) for row in rows] == [("a", 0, 0), ("a", 2, 1), ("b", 0, 0)]
    assert rows[-1]["ratio"]["value"] == pytest.approx(4 / 6)
    assert "| b by energy | 4 | 2 | " in (text := markdown(rows, "title"))
    assert "|  | b | 0 | 0 | 1 | 0.67 (" in text


def test_the_interval_of_the_expansions_covers_the_ratio():
    base = [[float(k) for k in range(1, 40)]]
    ratio = expansions([[2 * k for k in base[0]]], base, 100)
    assert (ratio.value, ratio.low, ratio.high, ratio.searches) == (2, 2, 2, 39)
    other = expansions([list(reversed(base[0]))], base, 100)
    assert other.low < other.value == 1 < other.high
    assert math.isnan(expansions([[NO]], [[1]], 5).value)


def test_repeated_passes_add_no_evidence():
    arm, base = [1.0, 2, 3, 9, 9, NO], [5.0, 4, NO, 3, 2, NO]
    assert paired([arm] * 3, [base], 10) == paired([arm], [base], 10)
    one, three = expansions([arm], [base], 10), expansions([arm] * 3, [base], 10)
    assert one[:3] == three[:3]
    assert (one.searches, three.searches) == (4, 12)
    with pytest.raises(ValueError, match="arms with 2 and 3 passes"):
        expansions([[1]] * 2, [[1]] * 3, 5)


def test_pass_at_k_is_the_mean_over_all_choices():
    assert pass_at(5, 0, 3) == 0
    assert pass_at(5, 3, 3) == pytest.approx(1 - 0)
    assert pass_at(3, 1, 1) == pytest.approx(1 / 3)


def test_the_oracle_takes_the_shortest_proof_of_any_run():
    one = [result(0, tactics=("a", "b", "c")), result(1, ended="out of time")]
    other = [result(0, tactics=("d",)), result(1, ended="out of nodes")]
    assert oracle([one, other]) == [1, NO]


def test_arms_have_the_settings_that_they_need():
    base = SearchConfig()
    given = {"model": "m", "energy": "e", "examples": ["x"]}
    template = Arm("template").config(base, **given)
    assert (template.local.name, template.energy, template.examples) == ("", "", ())
    both = Arm("copy+local", "depth", 0.25).config(base, **given)
    assert (both.local.name, both.energy, both.examples, both.energy_measure) == ("m", "e", ("x",), "depth")
    assert (both.search.alpha, both.search.beta) == (0.75, 0.25)
    kept = Arm("local", "energy").config(replace(base, search=replace(base.search, alpha=0.9, beta=0.2)), **given)
    assert (kept.search.alpha, kept.search.beta) == (0.9, 0.2)
    names = [arm.name for arm in orders("local", (0.5, 1.0, 0.5))]
    assert names == [
        *("local+energy-0.5", "local+energy-1", "local+depth", "local+shuffled", "local+noise"),
        *("local-breadth", "local-random"),
    ]
    assert all(replace(arm, policy="template").sampled == (arm.order == "random") for arm in orders("template", (1.0,)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--budgets", "0"), "--budgets, --passes and --limit must be at least 1"),
        (("--passes", "0"), "--budgets, --passes and --limit must be at least 1"),
        (("--limit", "0"), "--budgets, --passes and --limit must be at least 1"),
        (("--weights", "2"), "--weights 2: give numbers between 0 and 1"),
        (("--policies", "written"), "`monge prove replay` replays written proofs"),
        (("--policies", "local"), "--policies local needs --model"),
        (("--policies", "template+copy"), "--policies template+copy needs --examples"),
        (("--policies", "server"), "--policies server needs a settings file with server.model; give --config"),
        (
            ("--policies", "server", "local", "--model", "m", "--config", "server.json"),
            "local.sampling.max_new_tokens is 64 and server.max_tokens 128; set both to the same number in --config",
        ),
        (("--policies", "guess"), "--policy guess: unknown"),
        (("--energy", "nowhere"), "nowhere: no run here"),
        (("--model", "policy/model"), "nearly the same as few.same (similarity 1.00)"),
        (("--model", "preferred/model"), "nearly the same as few.same (similarity 1.00)"),
        (("--policies", "template", "copy", "--examples", "run"), "nearly the same as few.same (similarity 1.00)"),
        (("--energy", "energy"), "nearly the same as few.same (similarity 1.00)"),
    ],
)
def test_bad_input_gives_one_sentence(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("server.json").write_text('{"server": {"model": "m"}}')
    Path("few.lean").write_text(NATURALS + "-- theorems\n\n/-- One. -/\ntheorem same : 9 := by\n  rfl\n")
    wide_run(tmp_path / "run", range(9, 10))
    recipes = {
        "policy": ("policy", {"runs": [str(tmp_path / "run")]}),
        "preferred": ("preferences", {"runs": [], "model": str(tmp_path / "policy/model")}),
    }
    for name, (app, recipe) in recipes.items():
        Path(name, "model").mkdir(parents=True)
        write_tensors(Path(name, "constants.safetensors"), {"one": torch.ones(1)})
        Path(name, "recipe.json").write_text(json.dumps({"app": app, "recipe": {**recipe, "train": {}}}))
    Ragged.write(
        tmp_path / "states",
        [("s", torch.ones(1, 2))],
        dtype="float16",
        fingerprint={**EMBEDDING, "model": "policy/model"},
    )
    energy = {"runs": [], "embeddings": str(tmp_path / "states"), "train": {}}
    Path("energy").mkdir()
    write_tensors(Path("energy/constants.safetensors"), {"one": torch.ones(1)})
    Path("energy/recipe.json").write_text(json.dumps({"app": "energy", "recipe": energy}))
    assert main(["prove", "evaluate", "few.lean", "--split", "all", *flags, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_orders_are_compared_on_the_same_theorems(tmp_path, language_model, capsys):
    run, states, energy, out = (tmp_path / name for name in ("run", "states", "energy", "out"))
    wide_run(run, range(5, 30))
    assert main(["prove", "embed", str(run), "--model", str(language_model), "--out", str(states)]) == 0
    flags = ["--embeddings", str(states), "--hidden", "16", "--validation-share", "0.3"]
    steps = ["--steps", "20", "--save-every", "10", "--warmup-steps", "5", "--batch-size", "16"]
    assert main(["prove", "energy", str(run), "--out", str(energy), *flags, *steps]) == 0
    statements = ("(a : N) : z + a = a", "(p q : Prop) (h : p) (k : q) : p ∧ q", "(a b : N) : a = b")
    theorems = "\n".join(f"theorem t{k} {text} := by sorry\n" for k, text in enumerate(statements))
    (tmp_path / "few.lean").write_text(NATURALS + theorems)
    words = ["prove", "evaluate", str(tmp_path / "few.lean"), "--split", "all", "--energy", str(energy)]
    words += ["--weights", "1", "--budgets", "1", "4", "--passes", "2", "--out", str(out)]
    assert main(words) == 0
    rows = json.loads((out / "evaluate.json").read_text())["rows"]
    names = ["template", *(arm.name for arm in orders("template", (1.0,))), "oracle order"]
    assert [(row["arm"], row["states"]) for row in rows] == [(name, budget) for budget in (1, 4) for name in names]
    by_name = {(row["arm"], row["states"]): row for row in rows}
    assert by_name["template", 4]["proved"] == 2
    assert by_name["template-random", 4]["passes"] == 2
    assert all(by_name["oracle order", b]["proved"] >= by_name[name, b]["proved"] for name in names for b in (1, 4))
    assert {one.proved for one in results(out / "template" / "seed-0")} == {True, False}
    text = (out / "evaluate.md").read_text()
    capsys.readouterr()
    assert main(words) == 0
    assert "to do" not in capsys.readouterr().out
    assert (out / "evaluate.md").read_text() == text


def test_settings_with_a_server_of_embeddings_are_read_back():
    for config in (SearchConfig(), SearchConfig(embeddings=Endpoint(url="http://localhost:9/v1", retries=1))):
        assert rebuild(SearchConfig, json.loads(json.dumps(asdict(config), default=str))) == config


def test_a_policy_without_a_model_has_no_runs_behind_it_wherever_it_is_called(tmp_path: Path, monkeypatch) -> None:
    """An empty path is the current directory, which may hold a run."""
    (tmp_path / "recipe.json").write_text('{"app": "generate"}')
    monkeypatch.chdir(tmp_path)
    assert list(_runs_behind("")) == []
