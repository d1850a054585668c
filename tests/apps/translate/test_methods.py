"""Options without effect are rejected, the configured metric selects the best checkpoint, unusable texts are dropped."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from monge.apps.translate.conditional import ConditionalMethod
from monge.apps.translate.data import Text, public, read_texts, write_texts
from monge.apps.translate.field import FieldShape
from monge.apps.translate.methods import METHODS, BranchingMethod, FlowMatchingMethod, FlowWalkingMethod
from monge.apps.translate.output import listed
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate
from monge.apps.translate.tables import table
from monge.cli import main
from monge.files import ensure_writable
from monge.fleet import sequential
from monge.lm.embed import Embedding, embed
from monge.lm.store import Dropped, Vectors
from monge.math.interval import Interval
from monge.run import fit
from monge.training.config import TrainConfig

SHAPE = FieldShape(64, 1)
TINY = TrainConfig(steps=4, warmup_steps=1, save_every=2, device="cpu", loader_threads=0)


def test_a_recipe_builds_its_method_with_its_options() -> None:
    assert Translate(shape=SHAPE, walking_steps=3).trainer == FlowWalkingMethod(SHAPE, 3, 0.1)
    options = {"shape": SHAPE, "method": "flow-matching", "sigma": 0.5}
    assert Translate(**options, additive=True).trainer == FlowMatchingMethod(SHAPE, 0.5, additive=True)
    assert Translate(**options, source_condition=True).trainer == FlowMatchingMethod(
        SHAPE, 0.5, 0.1, source_condition=True
    )
    assert Translate(shape=SHAPE, method="branching-flows").trainer == BranchingMethod(SHAPE)
    assert [
        Translate(method=method).trainer.solver_steps
        for method in ("flow-walking", "flow-matching", "branching-flows", "conditional")
    ] == [1, 8, 8, 16]
    assert METHODS.keys() == {"flow-walking", "flow-matching", "branching-flows", "conditional"}
    assert Translate(shape=SHAPE, method="conditional").trainer == ConditionalMethod(SHAPE, 0.1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sigma": 0.5}, "sigma 0.5 has no effect with --method flow-walking; use --method flow-matching"),
        (
            {"method": "flow-matching", "walking_steps": 3},
            "walking_steps 3 has no effect with --method flow-matching; use --method flow-walking",
        ),
        (
            {"method": "branching-flows", "contrast": 0.3},
            "contrast 0.3 has no effect with --method branching-flows; use --method flow-walking or flow-matching or",
        ),
        ({"source_condition": True}, "source_condition True has no effect with --method flow-walking"),
        ({"method": "flow-matching", "source_condition": True}, "source_condition needs sigma above 0"),
        ({"method": "flow-matching", "additive": True, "contrast": 0.1}, "contrast compares mean contents"),
        (
            {"method": "branching-flows", "epsilon": 0.1},
            "epsilon 0.1 has no effect with --method branching-flows; use --method flow-walking or flow-matching",
        ),
        ({"method": "branching-flows", "additive": True}, "additive True has no effect with --method branching-flows"),
        (
            {"method": "branching-flows", "shape": FieldShape(separate_reverse=True)},
            "separate_reverse has no effect with --method branching-flows",
        ),
        ({"walking_steps": 0}, "walking_steps must be at least 1, got 0"),
        ({"additive": True, "contrast": 0.1}, "set contrast to 0"),
        ({"sigma": -1.0}, "sigma must not be negative"),
        ({"couplings": "c", "epsilon": 0.1}, "use only one of them"),
    ],
)
def test_an_option_without_effect_is_rejected(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Translate(**options)


@pytest.mark.parametrize(
    ("best_by", "metric", "pick"),
    [("mrr", "held-out MRR", max), ("loss", "held-out loss", min), ("length", "held-out length error", min)],
)
def test_the_best_checkpoint_is_the_best_by_the_configured_metric(
    pairs: Pairs, tmp_path: Path, best_by: Any, metric: str, pick: Any
) -> None:
    recipe = Translate(pairs=str(pairs.directory), shape=SHAPE, batch_size=8, best_by=best_by, train=TINY)
    state = fit(recipe, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = {record["step"]: record[metric] for record in records if metric in record}
    assert values.keys() == {2, 4}
    assert all(0 < record["held-out MRR"] <= 1 for record in records if metric in record)
    assert state.best["value"] == pytest.approx(pick(values.values()))


def test_a_table_fits_80_columns_without_truncated_names() -> None:
    names = ("R@1 of 1000", "R@1 of 2000", "Chamfer R@1 of 1000", "length error", "matched cosine", "Kendall tau")
    cells = {name: Interval(0.123456, 0.1, 0.15) for name in names}
    rows = {"flow, 1 step": cells, "canonical correlations, pooled": {"R@1 of 1000": cells["R@1 of 1000"]}}
    for width in (80, 40):
        console = Console(file=io.StringIO(), width=width)
        console.print(table(rows, "run: source to target"))
        lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
        assert sum("canonical correlations, pooled" in line for line in lines) == (width == 80)  # folded if narrower
        assert all(len(line) <= width and "…" not in line for line in lines)
    assert sum("0.12 ±0.03" in line or "0.12 ±0.02" in line for line in lines) == 6
    assert not any("Kendall" in line for line in lines)


def test_a_check_of_a_path_leaves_nothing_behind(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "a" / "b" / "c.parquet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/x: cannot be written \(Not a directory\); choose another path"):
        ensure_writable(tmp_path / "file" / "x")
    assert listed(["a", "b", "c"], count=2) == "a, b and 1 more"


def test_the_demo_explains_how_to_install_its_data_and_accepts_a_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monge.apps.translate.prepare.INSTALLED", tmp_path / "nowhere.mm")
    assert main(["translate", "demo", "--out", str(tmp_path / "demo")]) == 2
    message = capsys.readouterr().err
    assert "install it with `sudo apt install metamath-databases`" in message
    assert "--input" in message
    (tmp_path / "other.mm").write_text("no theorem")
    assert main(["translate", "demo", "--out", str(tmp_path / "demo"), "--input", str(tmp_path / "other.mm")]) == 2
    assert "other.mm: no theorem with a comment" in capsys.readouterr().err


def test_the_demo_does_not_mix_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(tmp_path / "demo" / "texts.jsonl", [Text("a", "g", "x", "y")])
    (tmp_path / "other.mm").write_text("no theorem")
    command = ["translate", "demo", "--out", str(tmp_path / "demo"), "--input", str(tmp_path / "other.mm")]
    assert main(command) == 2  # one text is too few
    assert "prepared.json" not in capsys.readouterr().err
    settings = json.loads((tmp_path / "demo" / "prepared.json").read_text())
    assert (settings["limit"], settings["input"]) == (2000, str(tmp_path / "other.mm"))
    for _ in range(2):
        assert main([*command, "--limit", "50"]) == 2
        assert "prepared.json: made with limit = 2000, not 50" in capsys.readouterr().err
        (tmp_path / "demo" / "texts.jsonl").unlink(missing_ok=True)  # new texts would be mixed with the old vectors


def test_unusable_texts_are_dropped_and_integer_ids_are_accepted(tmp_path: Path) -> None:
    path, dropped = tmp_path / "texts.jsonl", list[Dropped]()
    write_texts(path, [Text("a", "g", "x", "y")])
    more = [
        '{"id": 7, "nl": "x", "formal": "y"}',
        "",
        '{"id": "b", "nl": " ", "formal": "y"}',
        '{"nl": "x"}',
        "{",
        "[1]",
    ]
    path.write_text(path.read_text() + "\n".join(more) + "\n")
    assert [(text.id, text.group) for text in read_texts(path, dropped)] == [("a", "g"), ("7", "7")]
    assert [key for key, _ in dropped] == ["b", "line 5", "line 6", "line 7"]
    with pytest.raises(ValueError, match="line 4: nl is ' '"):
        read_texts(path)


def test_rows_of_a_public_set_without_a_text_are_dropped(tmp_path: Path) -> None:
    path, dropped = tmp_path / "p.jsonl", list[Dropped]()
    rows = [{"name": f"t{k}", "informal_prefix": f"x {k}", "formal_statement": f"t {k}"} for k in range(3)]
    rows[1]["formal_statement"] = None  # pyright: ignore[reportArgumentType]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [text.id for text in public("proofnet", path, dropped)] == ["t0", "t2"]
    assert dropped == [("row 1 (rows count from 0)", "no formal_statement")]
    with pytest.raises(
        ValueError, match=r"row 1 \(rows count from 0\) has no text in formal_statement; add it, or remove"
    ):
        public("proofnet", path)
    with pytest.raises(ValueError, match="informal_theorem"):
        public("herald", path, dropped)


def test_texts_without_vectors_are_dropped_from_an_embedding(language_model: Path, tmp_path: Path) -> None:
    keys, texts = [f"id-{k}" for k in range(5)], ["A e. B", "( ph -> ps )", "", "A", ""]
    embedding, out, dropped = Embedding(str(language_model), 1), tmp_path / "x.parquet", list[Dropped]()
    with pytest.raises(ValueError, match="id 'id-2': no vectors"):
        list(embed(keys, texts, embedding, tmp_path / "y.parquet", sequential, size=2))
    steps = embed(keys, texts, embedding, out, sequential, size=2, dropped=dropped)
    assert next(steps) == (1, 3)
    steps.close()
    assert list(embed(keys, texts, embedding, out, sequential, size=2, dropped=dropped)) == [(2, 3), (3, 3)]
    assert Vectors(out).ids() == ["id-0", "id-1", "id-3"]
    assert [key for key, _ in dropped] == ["id-2", "id-4"]
    assert [path.name for path in tmp_path.iterdir() if "x" in path.name] == ["x.parquet"]
