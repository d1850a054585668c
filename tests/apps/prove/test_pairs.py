"""Pairs of states and tactics: from runs and published files, packed, and read back."""

import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_causal import END, letters
from test_finetune import run_of

from monge.apps.prove.contrast import groups_of
from monge.apps.prove.dpo import preferences_of
from monge.apps.prove.finetune import Data, FineTune, loss_of
from monge.apps.prove.lm.prompt import completion, prompt_ids, tactic_of
from monge.apps.prove.packing import Example, batch_of, example, packed
from monge.apps.prove.pairs import pairs_of
from monge.apps.prove.separation import probe_states
from monge.apps.prove.states import StateVectors
from monge.apps.prove.trajectories import attempts
from monge.objective.next_token import NextToken, Tokens
from monge.pretrain import neox


def test_pairs_are_the_positive_rows_each_once_with_counts(tmp_path):
    first, second = run_of(tmp_path / "a", range(4, 8)), run_of(tmp_path / "b", range(5, 9), "s")
    pairs, counts = pairs_of([first, second])
    assert {(pair.state, pair.tactic) for pair in pairs} >= {("⊢ 4", "3"), ("⊢ 1", "1")}
    assert len({(pair.state, pair.tactic) for pair in pairs}) == len(pairs)
    one, other = counts.values()
    assert (one.rows > one.positive, one.kept + one.duplicate) == (True, one.positive)
    assert other.duplicate > one.duplicate
    assert len(pairs) == one.kept + other.kept
    assert len({pair.theorem for pair in pairs if pair.source == str(first)}) == 4


def test_every_reader_of_runs_rejects_two_with_the_same_id(tmp_path):
    runs = [run_of(tmp_path / name, range(4, 8)) for name in ("a", "b")]
    vectors = StateVectors(tmp_path / "unread")
    for read in (
        pairs_of,
        partial(preferences_of, per_tactic=2),
        partial(probe_states, count=8, validation_share=0.5),
        partial(groups_of, vectors=vectors, validation_share=0.5),
    ):
        with pytest.raises(ValueError, match="have the same id r; give one of them"):
            read(runs)


@pytest.mark.parametrize(("content", "message"), [("short", "not a complete parquet file"), (None, "no column 'run'")])
def test_a_run_whose_part_is_damaged_or_of_another_schema_is_an_error(tmp_path, content, message):
    run = run_of(tmp_path / "a", range(4, 8))
    (part,) = run.glob("part-*.parquet")
    if content is None:
        pq.write_table(pq.read_table(part).drop_columns(["run"]), part)
    else:
        part.write_text(content)
    with pytest.raises(ValueError, match=rf"part-00000\.parquet: {message}"):
        pairs_of([run])


def test_a_run_that_is_given_twice_counts_once(tmp_path):
    run = run_of(tmp_path / "a", range(4, 24))
    (count,) = Data(FineTune((str(run), f"{run}/../a"))).counts.values()
    assert count.rows == attempts(run).num_rows


def test_published_pairs_are_filtered_and_counted(tmp_path):
    rows = [
        {"state_before": "⊢ 1 = 1", "tactic": "rfl", "theorem": "a"},
        {"state": "⊢ 1 = 1", "tactic": "rfl"},
        {"goal": "⊢ 2 = 2", "tactic": "sorry"},
        {"state": "⊢ 3 = 3", "tactic": " "},
    ]
    lines = tmp_path / "pairs.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist([{"state": "⊢ 4 = 4", "tactic": "rfl"}]), tmp_path / "pairs.parquet")
    pairs, counts = pairs_of([], [lines, tmp_path / "pairs.parquet"])
    assert [(pair.state, pair.tactic) for pair in pairs] == [("⊢ 1 = 1", "rfl"), ("⊢ 4 = 4", "rfl")]
    count = counts[str(lines)]
    assert (count.rows, count.positive, count.duplicate, count.forbidden, count.empty, count.kept) == (4, 4, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "pairs.jsonl",
            '{"tactic": "rfl"}\n',
            "row 1: needs a string tactic and a string state_before or state or goal",
        ),
        ("pairs.jsonl", "{\n", "pairs.jsonl: line 1: Expecting"),
        ("pairs.parquet", "no parquet", "pairs.parquet: "),
        ("pairs.csv", "", "give a .jsonl or .parquet file of pairs"),
    ],
)
def test_a_file_of_pairs_that_cannot_be_read_is_an_error(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        pairs_of([], [tmp_path / name])


@given(st.lists(st.integers(1, 20), max_size=200), st.integers(0, 3))
def test_packing_uses_each_example_once_and_respects_the_length(sizes, seed):
    rows = packed([Example((1,) * size, 0) for size in sizes], 20, seed=seed)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(sum(sizes[number] for number in row) <= 20 for row in rows)
    assert len(rows) <= 2 * sum(sizes) / 20 + 64


def test_the_loss_of_packed_examples_is_that_of_their_completions():
    torch.manual_seed(0)
    model = neox(32, 16, 2, 2, 32, 0).eval()
    examples = [Example(tuple(torch.randint(1, 32, (size,)).tolist()), size // 2) for size in (6, 9, 4)]
    total, count = 0.0, 0
    for one in examples:
        weight = (torch.arange(len(one.ids)) >= one.prompt).float()[None]
        total += NextToken()(model, Tokens(torch.tensor([one.ids]), weight)).value.item() * int(weight.sum())
        count += int(weight.sum())
    assert loss_of(model, examples, 16, 0) == pytest.approx(total / count, rel=1e-5)
    batch = batch_of([examples], 24, 0)
    assert NextToken()(model, batch).value.item() == pytest.approx(total / count, rel=1e-5)


def test_a_completion_is_read_back_as_its_tactic():
    tactics = (
        "rfl",
        "cases n with\n| z => ?_\n| s n => ?_",
        "have h : a = b := by\n  rw [c]\n  rfl",
        "if p then ?_\n  else ?_",
    )
    for tactic in tactics:
        assert tactic_of(completion(tactic)) == tactic


def test_a_tactic_that_would_be_cut_off_is_left_out(tmp_path):
    rows = [{"state": "⊢ p", "tactic": "if h : p then ?_\nelse ?_"}, {"state": "⊢ p\u2028", "tactic": "rfl"}]
    lines = tmp_path / "pairs.jsonl"
    lines.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    pairs, counts = pairs_of([], [lines])
    assert ([pair.tactic for pair in pairs], counts[str(lines)].unreadable) == (["rfl"], 1)


@pytest.mark.parametrize("room", [None, 100, 20, 3, 1])
def test_training_and_sampling_use_the_same_prompt_tokens(tmp_path, room):
    from tokenizers.processors import TemplateProcessing

    tokenizer = letters("abc⊢ =")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 6)])
    tokenizer.bos_token = END
    ids = prompt_ids(tokenizer, "⊢ a = b", room)
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == min(room or 10_000, len(prompt_ids(tokenizer, "⊢ a = b")))
    tactic = tokenizer(completion("abc"), add_special_tokens=False)["input_ids"]
    if room is not None:
        one = example(tokenizer, "⊢ a = b", "abc", room + len(tactic) + 1)
        assert list(one.ids) == [*ids, *tactic, tokenizer.eos_token_id]
        assert one.prompt == len(ids)


def test_a_run_that_may_hold_test_theorems_is_refused(tmp_path):
    run = run_of(tmp_path / "run", range(4, 24))
    (run / "settings.json").write_text(json.dumps({"theorems": {"split": "all"}}))
    with pytest.raises(ValueError, match="a run on split all; give runs with --split train"):
        FineTune((str(run),)).build()
    FineTune((str(run),), any_split=True, width=32, depth=1, heads=2).build()
