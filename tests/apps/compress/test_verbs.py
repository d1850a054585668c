"""`monge compress` from text to a smaller model, and what it says about bad input."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from monge.apps.compress import measuring
from monge.apps.compress.evaluate import Quality
from monge.apps.compress.measuring import _qualities
from monge.apps.compress.recipes import opened_student
from monge.cli import main
from monge.lm.load import causal
from monge.runs import reopen
from monge.training.log import read_records
from monge.viewer.collect import describe

Train = Callable[..., int]


@pytest.fixture
def train(language_model: Path, text: Path, tmp_path: Path) -> Train:
    """train(*flags): the exit code of a short training run in `tmp_path / "run"`."""

    def run(*flags: object) -> int:
        words = [
            "--teacher",
            language_model,
            "--data",
            text,
            "--start",
            1,
            "--end",
            3,
            "--length",
            16,
            "--out",
            tmp_path / "run",
        ]
        small = ["--steps", 6, "--save-every", 3, "--log-every", 3, "--eval-sequences", 4, "--map-sequences", 8]
        return main(["compress", "train", *map(str, [*words, *small, *flags])])

    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kl", "sfm", "fw", "hybrid", "regress"])
def test_every_method_trains_evaluates_and_exports(train: Train, tmp_path: Path, capsys, method: str) -> None:
    assert train("--method", method, "--flow-steps", 2, "--solver", "midpoint") == 0
    assert main(["compress", "evaluate", str(tmp_path / "run"), "--limit", "3", "--prompts", "0"]) == 0
    rows = json.loads((tmp_path / "run/evaluation.json").read_text())["quality"]
    assert list(rows) == ["teacher", "skip the layers", "least-squares map", "flow, 2 midpoint"]
    assert rows["teacher"]["kl"] == 0
    assert rows["skip the layers"]["error"] == pytest.approx(1)
    assert main(["compress", "export", str(tmp_path / "run"), "--out", str(tmp_path / "smaller")]) == 0
    assert "million parameters" in capsys.readouterr().out

    from monge.apps.compress.modeling import load

    smaller = load(tmp_path / "smaller")
    assert (smaller.flow.steps, smaller.flow.solver) == (2, "midpoint")
    assert smaller.base.config.num_hidden_layers == 2
    assert main(["compress", "export", str(tmp_path / "run"), "--out", str(tmp_path / "smaller")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--parts", "map"],
        ["--parts", "layer", "--init", "layer", "--method", "regress"],
        pytest.param(["--init", "average", "--rank", "None"], marks=pytest.mark.long),
        ["--init", "joint"],
        ["--method", "meanflow", "--then", "kl", "--then-after", 4],
        ["--layers", 2, "--flow-steps", 2],
        ["--method", "sfm", "--then", "kl", "--then-after", 4],
        ["--method", "sfm", "--waypoints", "--scale-dimensions"],
        pytest.param(["--method", "hybrid", "--scale-dimensions"], marks=pytest.mark.long),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_every_kind_of_student_trains_evaluates_and_exports(train: Train, tmp_path: Path, flags: list) -> None:
    from monge.apps.compress.modeling import load

    assert train(*flags) == 0
    assert main(["compress", "evaluate", str(tmp_path / "run"), "--limit", "3", "--prompts", "0"]) == 0
    for name, merge in (("smaller", []), ("merged", ["--merge"])):
        assert main(["compress", "export", str(tmp_path / "run"), "--out", str(tmp_path / name), *merge]) == 0
    smaller, merged = load(tmp_path / "smaller"), load(tmp_path / "merged")
    assert smaller.base.config.num_hidden_layers == merged.base.config.num_hidden_layers == 2
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, smaller(input_ids=ids).logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_evaluate_sweeps_solvers_and_steps_and_compares_with_removal(
    train: Train, language_model: Path, text: Path, tmp_path: Path, capsys
) -> None:
    words = ["--teacher", language_model, "--data", text, "--length", 16, "--limit", 8, "--num-layers", 1, 2]
    assert main(["compress", "select", *map(str, words), "--out", str(tmp_path / "select")]) == 0
    assert train() == 0
    flags = ["--flow-steps", "1", "3", "--solvers", "euler", "heun", "--prompts", "2"]
    flags += ["--select", str(tmp_path / "select/select.json"), "--limit", "4"]
    assert main(["compress", "evaluate", str(tmp_path / "run"), *flags]) == 0
    content = json.loads((tmp_path / "run/evaluation.json").read_text())
    flows = [f"flow, {steps} {solver}" for solver in ("euler", "heun") for steps in (1, 3)]
    assert list(content["quality"])[3:] == list(content["equivalent_skip"]) == flows
    teacher, flow = content["models"]["teacher"], content["models"]["flow"]
    assert flow["cache_bytes"] == pytest.approx(teacher["cache_bytes"] * 2 / 3)  # two of three layers
    assert 0 < flow["flops"] < teacher["flops"]
    assert content["models"]["flow, merged"]["parameters"] < flow["parameters"] < teacher["parameters"]
    assert 0 <= flow["repetition"] <= 1
    out = capsys.readouterr().out
    assert "skip" in out
    assert "tokens/s, decode" in out
    assert [table.title for table in describe(tmp_path / "run").tables] == ["quality", "models"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--select", "gone.json"], "gone.json"),
        (["--prompts", "-1"], "--prompts -1: give at least 0"),
        (["--limit", "0"], "--limit 0: give at least 1"),
    ],
)
def test_invalid_options_of_evaluate_give_one_sentence(tmp_path: Path, capsys, flags, message) -> None:
    assert main(["compress", "evaluate", str(tmp_path / "run"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_second_stage_is_the_last_steps_with_another_loss(language_model: Path, text: Path) -> None:
    from monge.apps.compress.recipes import Compress

    settings = {
        "teacher": str(language_model),
        "data": str(text),
        "start": 1,
        "end": 3,
        "length": 16,
        "map_sequences": 8,
    }
    recipe = Compress(**settings, method="sfm", then="kl", then_after=3)
    for accumulation in (1, 3):
        config = replace(recipe.train, steps=5, gradient_accumulation=accumulation)
        run = replace(recipe, train=config).build()
        stages = [run.batches(number).stage for number in range(5 * accumulation)]
        assert stages == [0] * 3 * accumulation + [1] * 2 * accumulation
    torch.manual_seed(0)
    first, second = (run.objective(run.model, replace(run.batches(0), stage=stage)).value for stage in (0, 1))
    alone = replace(recipe, method="kl", then=None, then_after=0).build()
    expected = alone.objective(alone.model, alone.batches(0)).value
    assert second.item() == pytest.approx(expected.item(), rel=1e-5)
    assert first.item() != pytest.approx(second.item())


@pytest.mark.slow
def test_training_on_the_divergence_lowers_it(train: Train, tmp_path: Path) -> None:
    assert train("--steps", 60, "--save-every", 20, "--lr", 0.01, "--init", "layer", "--batch-size", 8) == 0
    losses = [
        record["held-out loss"] for record in read_records(tmp_path / "run/metrics.jsonl") if "held-out loss" in record
    ]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("init", ["map", "layer", "random"])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(train: Train, tmp_path: Path, init: str) -> None:
    assert train("--init", init) == 0
    shutil.move(tmp_path / "run", tmp_path / "uninterrupted")
    assert train("--init", init, "--steps", 3) == 0
    assert main(["compress", "train", "--out", str(tmp_path / "run"), "--resume", "--steps", "6"]) == 0
    first, second = (
        next((tmp_path / name / "checkpoints").glob("step-*6/model.safetensors")).read_bytes()
        for name in ("uninterrupted", "run")
    )
    assert first == second


@pytest.mark.slow
def test_before_training_the_flow_is_the_least_squares_map(language_model: Path, text: Path) -> None:
    from monge.apps.compress.recipes import Compress

    recipe = Compress(teacher=str(language_model), data=str(text), start=1, end=3, length=16, map_sequences=8)
    run = recipe.build()
    x_0 = torch.randn(2, 16, 32)
    expected = x_0 + x_0 @ run.constants["map.matrix"].mT + run.constants["map.bias"]
    torch.testing.assert_close(recipe.student(run.model)(x_0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--start", 2, "--end", 2], "layers [2, 2): the model has 3; give 0 <= start < end <= 3"),
        (["--end", 4], "layers [1, 4): the model has 3; give 0 <= start < end <= 3"),
        (["--length", 100_000], "less than one sequence of 100000; give more text or shorter sequences"),
        (["--data", "nothing.txt"], "/nothing.txt: no such file or folder"),
        (["--teacher", "no-model"], "no-model: no complete Hugging Face model here"),
        (["--flow-steps", 0], "flow_steps must be at least 1, got 0"),
        (["--method", "meanflow", "--solver", "heun"], "--method meanflow learns Euler steps, but --solver is heun"),
        (["--layers", "3"], "--layers 3 needs as many steps; give --flow-steps 3 or more"),
        (
            ["--init", "joint", "--layers", "2", "--flow-steps", "2"],
            "--init joint fits one layer, but --layers is 2; give --init map",
        ),
        (["--parts", "layer"], "--parts layer has no map to start from; give --init layer, average or random"),
        (["--parts", "map", "--init", "layer"], "--init layer starts from layers, but --parts map has none"),
        (["--layers", 2, "--flow-steps", 2, "--method", "sfm"], "several --layers need --method kl or regress"),
        (["--waypoints"], "--waypoints has no effect with --method kl; use --method sfm"),
        (["--scale-dimensions"], "--scale-dimensions has no effect with --method kl"),
        (["--then", "kl"], "--then kl --then-after 0: give both, with --then-after from 1 to below --steps"),
        (["--then-after", 3], "--then None --then-after 3: give both"),
        (
            ["--layers", 2, "--flow-steps", 2, "--solver", "heun"],
            "--solver heun mixes evaluations of several layers in a step",
        ),
    ],
)
def test_bad_input_is_one_sentence(train: Train, tmp_path: Path, capsys, monkeypatch, flags, message) -> None:
    assert train(*flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_another_family_is_named(tmp_path: Path, language_model: Path, text: Path, capsys) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        hidden_size=32, ffn_dim=64, num_hidden_layers=3, num_attention_heads=2, vocab_size=300, word_embed_proj_dim=32
    )
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    causal(str(language_model)).tokenizer.save_pretrained(tmp_path / "opt")
    words = [
        "--teacher",
        tmp_path / "opt",
        "--data",
        text,
        "--start",
        "1",
        "--end",
        "2",
        "--length",
        "16",
        "--out",
        tmp_path / "run",
    ]
    assert main(["compress", "train", *map(str, words)]) == 2
    assert "opt: unknown model type; use one of gpt2, gpt_neox, llama, qwen2, qwen3" in capsys.readouterr().err


def test_the_table_fits_into_80_columns() -> None:
    console = Console(width=80, file=io.StringIO())
    names = ("teacher", "skip the layers", "least-squares map", "flow, 3 midpoint")
    rows = {name: Quality(1.06, 12345.6, 0.485, 0.827, 0.576) for name in names}
    console.print(_qualities(rows, "title", {"flow, 3 midpoint": 2.5}))
    assert all(name in console.file.getvalue() for name in (*names, "12345.6"))
    assert "…" not in console.file.getvalue()


@pytest.mark.long  # a network and a student are trained twice; the demo with the packaged teacher is a test of the README
def test_the_demo_trains_its_own_teacher(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"( ph -> ps ) {number} ( A u. B ) = ( B u. {number % 7} ) -. ch" for number in range(900))
    )
    sizes = ["--steps", "4", "--teacher-steps", "4", "--map-sequences", "8", "--limit", "4"]
    words = ["--teacher", "own", "--data", str(text), "--out", str(tmp_path / "run"), *sizes]
    assert main(["compress", "demo", *words]) == 0
    rows = json.loads((tmp_path / "run/evaluation.json").read_text())["quality"]
    assert list(rows) == ["teacher", "skip the layers", "least-squares map", "flow, 1 euler"]
    assert json.loads((tmp_path / "run-teacher/model/config.json").read_text())["num_hidden_layers"] == 6
    shutil.rmtree(tmp_path / "run")  # as after an interruption
    assert main(["compress", "demo", *words]) == 0
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["quality"] == rows


@pytest.mark.slow
def test_a_teacher_whose_weights_have_changed_is_rejected(
    train: Train, language_model: Path, tmp_path: Path, capsys
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(language_model, teacher)
    assert train("--teacher", teacher) == 0
    model = causal(str(teacher)).model
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    model.save_pretrained(teacher)
    for verb, flags in (("evaluate", []), ("export", ["--out", str(tmp_path / "smaller")])):
        assert main(["compress", verb, str(tmp_path / "run"), *flags]) == 2
        assert "has other weights than the teacher in training" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("selecting", [4, 1000])
def test_scores_leave_out_the_sequences_that_selected_the_checkpoint(
    train: Train, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, selecting: int
) -> None:
    seen = list[torch.Tensor]()
    measure = measuring.qualities
    monkeypatch.setattr(
        measuring, "qualities", lambda *args, **options: seen.append(args[1]) or measure(*args, **options)
    )
    assert train("--eval-sequences", selecting) == 0
    assert main(["compress", "evaluate", str(tmp_path / "run"), "--limit", "1000", "--prompts", "0"]) == 0
    _, prepared, _ = opened_student(reopen(tmp_path / "run", app="compress"))
    held_out = prepared.texts.held_out
    assert 4 < len(held_out) < 1000
    assert torch.equal(seen[0], held_out[:-4] if selecting == 4 else held_out)
    assert (f"selected on all {len(held_out)} held-out" in " ".join(capsys.readouterr().out.split())) == (selecting > 4)
