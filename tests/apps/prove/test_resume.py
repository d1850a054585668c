"""`monge prove search --resume` needs only the run; settings that are repeated must agree. One Lean reads all theorems."""

import json
from contextlib import nullcontext

import pytest
from toy import result

from monge.apps.prove import searching, sources
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.policy import PROBES
from monge.apps.prove.split import Splitter
from monge.apps.prove.trajectories import SCHEMA, results
from monge.cli import main

pytestmark = pytest.mark.slow
ROWS = [{"formal_statement": f"theorem t{k} : {k} = {k} := by sorry", "header": "import Init"} for k in range(4)]


class Half:
    """A fleet that is interrupted after the given number of theorems."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, function, tasks):
        for number, task in enumerate(tasks):
            if number == self.limit:
                raise KeyboardInterrupt
            yield number, (result(task.number, "out of nodes", name=task.theorem.name), SCHEMA.empty_table())


@pytest.fixture(scope="module")
def splitter(lean):
    with Splitter(lambda: lean) as splitter:
        yield splitter


@pytest.fixture
def search(tmp_path, monkeypatch, splitter):
    """search(*flags, limit=...): the exit code of a search that is interrupted after `limit` theorems."""
    monkeypatch.setattr(sources, "Splitter", lambda lean: nullcontext(splitter))
    monkeypatch.setattr(SearchConfig, "toolchain", lambda self: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "here" / "config.json").write_text('{"search": {"fallback_tactics": ["rfl", "simp"]}}')

    def search(*flags, limit=9):
        monkeypatch.setattr(searching, "fleets_of", lambda workers, ray: lambda: Half(limit))
        try:
            return main(["prove", "search", *flags, "--out", str(tmp_path / "run")])
        except SystemExit as stopped:
            return stopped.code

    return search


FLAGS = ("some.jsonl", "--max-states", "7", "--limit", "3", "--config", "config.json", "--tactic-seconds", "4")


def test_a_search_is_resumed_from_its_directory_alone(search, tmp_path, monkeypatch):
    assert search(*FLAGS, limit=1) == 130
    before = (tmp_path / "run" / "settings.json").read_text()
    monkeypatch.chdir(tmp_path)  # the path of the theorems does not depend on the current directory
    assert search("--resume") == 0
    assert json.loads(before)["search"]["fallback_tactics"] == ["rfl", "simp"]
    assert [r.name for r in results(tmp_path / "run")] == ["t0", "t1", "t2"]
    assert (tmp_path / "run" / "settings.json").read_text() == before


def test_settings_that_agree_may_be_repeated(search):
    assert search(*FLAGS, limit=1) == 130
    assert search(*FLAGS, "--resume") == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--max-states", "300"), "search.max_states = 7, not 300"),  # the default, given explicitly
        (("--tactic-seconds", "9"), "budget.seconds = 4.0, not 9.0"),
        (("--policy", "probes"), "policy = 'template', not 'probes'"),
        (("--limit", "2"), "theorems.limit = 3, not 2"),
        (("other.jsonl",), "theorems.path = "),
    ],
)
def test_a_setting_that_differs_is_rejected_by_name(search, tmp_path, flags, named, capsys, monkeypatch):
    assert search(*FLAGS, limit=1) == 130
    (tmp_path / "here" / "other.jsonl").write_text((tmp_path / "here" / "some.jsonl").read_text())
    monkeypatch.setattr(searching, "LeanServer", lambda *_: nullcontext())
    monkeypatch.setattr(searching, "known", lambda *_: ("rfl",))
    assert search(*flags, "--resume") == 2
    assert f"settings.json: made with {named}" in capsys.readouterr().err
    assert len(results(tmp_path / "run")) == 1


def test_a_theorem_that_has_changed_is_reported_by_name(search, tmp_path, capsys):
    assert search(*FLAGS, limit=1) == 130
    path = tmp_path / "here" / "some.jsonl"
    path.write_text(path.read_text().replace("1 = 1", "1 = 2"))
    assert search("--resume") == 2
    assert "settings.json: made with theorems.texts.00001 t1 = " in capsys.readouterr().err


def test_without_resume_a_run_is_not_modified(search, capsys):
    assert search(*FLAGS, limit=1) == 130
    assert search(*FLAGS) == 2
    assert "already holds a run; resume it with --resume" in capsys.readouterr().err


def test_a_run_without_results_can_be_resumed_with_other_settings(search, tmp_path):
    assert search(*FLAGS, limit=0) == 130
    assert search("--resume", limit=0) == 130
    assert search("--resume", "--limit", "4") == 0
    assert len(results(tmp_path / "run")) == 4


def test_resuming_without_a_run_is_an_error(search, tmp_path, capsys):
    assert search("some.jsonl", "--resume") == 2
    assert "holds no run to resume" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_are_printed_and_read_back(search, tmp_path, capsys):
    """A file of --print-config, and the settings.json of a run, give the same settings; flags override them."""
    assert search("--print-config", "--order", "puct", "--policy", "local", "--model", "m", "--temperature", "0.5") == 0
    printed = capsys.readouterr().out
    (tmp_path / "full.json").write_text(printed)
    assert search("--print-config", "--config", str(tmp_path / "full.json")) == 0
    assert capsys.readouterr().out == printed
    assert search("--print-config", "--config", str(tmp_path / "full.json"), "--order", "best") == 0
    changed = json.loads(capsys.readouterr().out)
    assert changed["search"].pop("order") == "best"
    expected = json.loads(printed)
    assert expected["search"].pop("order") == "puct"
    assert expected["local"]["name"] == "m"
    assert expected["local"]["sampling"]["temperature"] == 0.5
    assert changed == expected
    assert search(*FLAGS, limit=1) == 130
    capsys.readouterr()
    assert search("--print-config", "--config", str(tmp_path / "run" / "settings.json")) == 0
    assert json.loads(capsys.readouterr().out)["search"]["max_states"] == 7


def test_the_server_of_embeddings_and_its_token_are_settings(search, tmp_path, capsys):
    words = ["--embeddings-url", "http://host/v1", "--embeddings-token-variable", "TOKEN"]
    assert search("--print-config", *words) == 0
    (tmp_path / "config.json").write_text(printed := capsys.readouterr().out)
    given = json.loads(printed)["embeddings"]
    assert (given["url"], given["api_key_variable"]) == ("http://host/v1", "TOKEN")
    file = ("--print-config", "--config", str(tmp_path / "config.json"))
    assert search(*file, "--embeddings-token-variable", "OTHER") == 0
    changed = json.loads(capsys.readouterr().out)["embeddings"]
    assert (changed["url"], changed["api_key_variable"]) == ("http://host/v1", "OTHER")
    assert search("--print-config", "--embeddings-token-variable", "TOKEN") == 2
    assert "--embeddings-token-variable needs --embeddings-url" in capsys.readouterr().err


def test_probe_tactics_come_from_the_settings_file(search, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"policy": "probes", "tactics": ["intro h", "rfl"]}')
    assert search("--print-config", "--config", str(tmp_path / "config.json")) == 0
    assert json.loads(capsys.readouterr().out)["tactics"] == ["intro h", "rfl"]
    assert search("--print-config", "--policy", "probes") == 0
    assert json.loads(capsys.readouterr().out)["tactics"] == list(PROBES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"search": {"nodes": 3}}', "config.json: Search.__init__() got an unexpected keyword argument 'nodes'"),
        ('{"search": {"max_states": 0}}', "config.json: max_states must be above 0, got 0"),
        ("[1]", "config.json"),
    ],
)
def test_an_invalid_file_of_settings_is_an_error(search, tmp_path, capsys, text, message):
    (tmp_path / "config.json").write_text(text)
    assert search("--config", str(tmp_path / "config.json")) == 2
    assert message in capsys.readouterr().err
