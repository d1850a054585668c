"""Reports: proved shares with intervals, and comparisons of two runs under equal conditions."""

import json

import pytest
from toy import result, rows_of

from monge.apps.prove.report import comparison, mcnemar, share, summary_of
from monge.apps.prove.trajectories import Recorder


def test_statistics_match_textbook_values():
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(0, 0) == 1
    assert mcnemar(6, 3) == pytest.approx(0.5078125)
    assert share(39, 83) == "39 of 83, 47.0% (36.6% to 57.6%)"


def make_run(path, proved, count=10, **settings):
    """The directory of a run in which the theorems with numbers in `proved` are proved; `settings` override the defaults."""
    path.mkdir()
    stored = {
        "search": {"max_states": 300, "order": "best"},
        "budget": {"heartbeats": 2000},
        "policy": "template",
        **settings,
    }
    (path / "settings.json").write_text(json.dumps(stored))
    with Recorder(path) as recorder:
        for k in range(count):
            one = result(k, tactics=("rfl",)) if k in proved else result(k, "out of nodes")
            recorder.add(one, rows_of(3, k))
    return path


def test_runs_are_compared_under_equal_budgets(tmp_path):
    first = make_run(tmp_path / "a", {0, 1, 2, 3})
    second = make_run(tmp_path / "b", {0, 1, 9}, policy="probes", search={"max_states": 300, "order": "breadth"})
    cells = [list(column.cells) for column in comparison(first, second).columns]
    assert cells[1][:3] == [share(4, 10), "2", "1"]
    assert not any("left out" in cell for cell in cells[0])
    fewer = make_run(tmp_path / "d", {0}, count=7)
    cells = [list(column.cells) for column in comparison(first, fewer).columns]
    assert [cell[1] for cell in cells] == ["left out: not finished in the other", "3", "0"]
    third = make_run(tmp_path / "c", {0}, search={"max_states": 100, "order": "best"})
    with pytest.raises(ValueError, match=r"differ in search\.max_states"):
        comparison(first, third)
    assert "search.max_states" in str(comparison(first, third, unequal=True).title)
    assert str(share(4, 10)) in list(summary_of(first).columns[1].cells)
    with pytest.raises(FileNotFoundError, match="no run"):
        comparison(first, tmp_path / "nothing")


def test_decoding_settings_of_two_runs_must_agree(tmp_path):
    """A server can be compared with a local model; settings that the policy in use ignores may differ."""

    def decoding(policy, server=0.6, local=0.6, tokens=64):
        return {
            "policy": policy,
            "server": {"temperature": server, "top_p": 1.0, "max_tokens": tokens, "url": policy},
            "local": {"name": "", "sampling": {"temperature": local, "top_p": 1.0, "max_new_tokens": 64, "tokens": 9}},
        }

    runs = [
        make_run(tmp_path / str(k), {k}, **decoding(*arguments))
        for k, arguments in enumerate([("server",), ("local", 2.0), ("local", 0.6, 1.0), ("server", 0.6, 0.6, 128)])
    ]
    comparison(runs[0], runs[1])
    with pytest.raises(ValueError, match=r"differ in server\.temperature"):
        comparison(runs[0], runs[2])
    with pytest.raises(ValueError, match=r"differ in local\.max_tokens"):
        comparison(runs[1], runs[3])
    template = make_run(tmp_path / "t", {0}, **decoding("template", 2.0))
    comparison(template, make_run(tmp_path / "u", {0}, **decoding("template")))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_settings_are_reported(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json: "):
        summary_of(tmp_path)
