"""`monge prove search --resume` needs the run alone; settings that are given again must agree. One Lean reads all theorems."""

import json
from contextlib import nullcontext

import pytest
from toy import result

from monge.apps.prove import cli, sources
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.split import Splitter
from monge.apps.prove.trajectories import SCHEMA, results
from monge.cli import main

pytestmark = pytest.mark.slow
ROWS = [{"formal_statement": f"theorem t{k} : {k} = {k} := by sorry", "header": "import Init"} for k in range(4)]


class Half:
    """A fleet that is interrupted after so many theorems."""

    def __init__(self, most):
        self.most = most

    def __call__(self, function, tasks):
        for number, task in enumerate(tasks):
            if number == self.most:
                raise KeyboardInterrupt
            yield number, (result(task.number, "out of nodes", name=task.theorem.name), SCHEMA.empty_table())


@pytest.fixture(scope="module")
def splitter(lean):
    with Splitter(lambda: lean) as splitter:
        yield splitter


@pytest.fixture
def search(tmp_path, monkeypatch, splitter):
    """search(*flags, most=...): the exit code of a search that is interrupted after so many theorems."""
    monkeypatch.setattr(sources, "Splitter", lambda lean: nullcontext(splitter))
    monkeypatch.setattr(SearchConfig, "toolchain", lambda self: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def search(*flags, most=9):
        monkeypatch.setattr(cli, "_fleets", lambda workers, ray: lambda: Half(most))
        try:
            return main(["prove", "search", *flags, "--out", str(tmp_path / "run")])
        except SystemExit as stopped:
            return stopped.code

    return search


BEGUN = ("some.jsonl", "--nodes", "7", "--most", "3", "--fallback", "rfl", "simp", "--budget.seconds", "4")


def test_a_search_is_resumed_from_its_directory_alone(search, tmp_path, monkeypatch):
    assert search(*BEGUN, most=1) == 130
    before = (tmp_path / "run" / "settings.json").read_text()
    monkeypatch.chdir(tmp_path)  # the file of theorems is found from anywhere
    assert search("--resume") == 0
    assert [r.name for r in results(tmp_path / "run")] == ["t0", "t1", "t2"]
    assert (tmp_path / "run" / "settings.json").read_text() == before


def test_settings_that_agree_may_be_given_again(search):
    assert search(*BEGUN, most=1) == 130
    assert search(*BEGUN, "--resume") == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--nodes", "300"), "search.nodes = 7, not 300"),  # the default, which is given
        (("--budget.seconds", "9"), "budget.seconds = 4.0, not 9.0"),
        (("--policy", "probes"), "policy = 'template', not 'probes'"),
        (("--most", "2"), "theorems.most = 3, not 2"),
        (("other.jsonl",), "theorems.path = "),
    ],
)
def test_a_setting_that_differs_is_rejected_by_name(search, tmp_path, flags, named, capsys, monkeypatch):
    assert search(*BEGUN, most=1) == 130
    (tmp_path / "here" / "other.jsonl").write_text((tmp_path / "here" / "some.jsonl").read_text())
    monkeypatch.setattr(cli, "LeanServer", lambda *_: nullcontext())
    monkeypatch.setattr(cli, "known", lambda *_: ())
    assert search(*flags, "--resume") == 2
    assert f"settings.json: made with {named}" in capsys.readouterr().err
    assert len(results(tmp_path / "run")) == 1


def test_a_theorem_that_has_changed_since_is_named(search, tmp_path, capsys):
    assert search(*BEGUN, most=1) == 130
    path = tmp_path / "here" / "some.jsonl"
    path.write_text(path.read_text().replace("1 = 1", "1 = 2"))
    assert search("--resume") == 2
    assert "settings.json: made with theorems.texts.00001 t1 = " in capsys.readouterr().err


def test_without_resume_a_run_is_left_alone(search, capsys):
    assert search(*BEGUN, most=1) == 130
    assert search(*BEGUN) == 2
    assert "already holds a run; resume it with --resume" in capsys.readouterr().err


def test_a_run_without_results_is_resumed_too_and_takes_other_settings(search, tmp_path):
    assert search(*BEGUN, most=0) == 130
    assert search("--resume", most=0) == 130
    assert search("--resume", "--most", "4") == 0
    assert len(results(tmp_path / "run")) == 4


def test_where_there_is_no_run_there_is_none_to_resume(search, tmp_path, capsys):
    assert search("some.jsonl", "--resume") == 2
    assert "no run of `monge prove search` here to resume" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
