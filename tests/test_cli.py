"""`monge APP VERB`: help without heavy imports, one-line errors, and exit codes."""

import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial

import pytest
import torch

import monge
from monge.cli import APPS, main, verbs_of
from monge.flags import bind

VERBS = [(app, verb) for app in APPS for verb in verbs_of(app)]


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from monge.cli import main; code = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'scipy', 'tyro', 'rich', 'numba', 'matplotlib', 'monge.apps'} & sys.modules.keys()\n"
        "sys.exit(code or str(heavy) * bool(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert (result.stderr, result.returncode) == ("", 0)
    for app, verb in VERBS:
        assert re.search(rf"^{app}$", result.stdout, re.MULTILINE)
        assert re.search(rf"^  {verb} +\S", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("app", APPS)
def test_the_listed_verbs_are_those_of_the_application(app: str) -> None:
    verbs = importlib.import_module(f"monge.apps.{app}.cli").VERBS
    assert list(verbs) == list(verbs_of(app))
    for name, text in verbs_of(app).items():
        assert len(text) > 10
        assert " ".join(verbs[name].__doc__.split()).startswith(" ".join(text.split()))


@pytest.mark.parametrize(("app", "verb"), VERBS)
def test_every_verb_has_help(app: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([app, verb, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: monge {app} {verb}" in shown
    summary = importlib.import_module(f"monge.apps.{app}.cli").VERBS[verb].__doc__.split()
    assert " ".join(summary[:5]) in " ".join(shown.split())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"monge {monge.__version__}\n"


def test_python_m_monge_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "monge", "--version"], text=True, capture_output=True)
    assert (result.stdout, result.stderr, result.returncode) == (f"monge {monge.__version__}\n", "", 0)


def test_a_reader_that_closes_the_pipe_leaves_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "monge", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.stderr, result.returncode) == ("", 141)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["generate", "--help"], ["generate", "-h"]])
def test_asking_for_help_is_not_an_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: monge APP VERB")
    assert shown.err == ""


@pytest.mark.parametrize("words", [["generat"], ["generate", "trane"], ["generate", "trane", "--out", "x"], ["--out"]])
def test_an_unknown_command_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"monge: unknown command {' '.join(words[:2])!r}")
    assert ("did you mean 'generate train'?" in shown.err) == (len(words) > 1)


def test_an_application_without_a_verb_gives_the_list_of_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("monge: generate needs a verb\n")
    assert "train" in shown.err


@pytest.mark.slow
def test_a_missing_package_is_named_with_its_extra() -> None:
    script = "import sys; sys.modules['psutil'] = None; from monge.cli import main; sys.exit(main(['prove', 'setup']))"
    result = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    message = "monge prove setup: psutil is not installed; pip install 'monge[prove]'\n"
    assert (result.stderr, result.returncode) == (message, 2)


def test_an_app_without_a_verb_shows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"]) == 2
    assert "  train " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--stpes", "3"], "unknown option --stpes; did you mean --steps?"),
        (["train", "--train.lr", "3"], "unknown option --train.lr; did you mean --lr?"),
        (["train", "--zzz"], "unknown option --zzz; --help lists all options"),
        (["train", "--batch-size", "many"], "--batch-size many: give an integer"),
        (["train", "--lr", "fast"], "--lr fast: give a number"),
        (["train", "--lr"], "--lr needs a value"),
        (
            ["train", "--coupling", "none"],
            "--coupling none: choose from independent, ot, ot-across, entropic, semidiscrete",
        ),
        (["train", "more"], "unknown argument more; --help lists all arguments"),
        (["sample"], "missing PATH: "),
    ],
)
def test_a_wrong_option_gives_one_sentence_with_a_suggestion(words: list[str], message: str, capsys) -> None:
    assert main(["generate", *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"monge generate {words[0]}: {message}")
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_help_of_a_verb_with_stored_defaults_is_that_of_the_verb() -> None:
    def verb(*, steps: int = 3) -> None:
        """Train for some steps.

        Args:
            steps: Number of steps.
        """

    assert bind(partial(verb, steps=7), [], "verb") == ((), {"steps": 7})
    shown = io.StringIO()
    with pytest.raises(SystemExit), redirect_stdout(shown):
        bind(partial(verb, steps=7), ["--help"], "verb")
    assert "Train for some steps." in shown.getvalue()
    assert "Number of steps. (default: 7)" in shown.getvalue()


@pytest.mark.slow
def test_a_completion_script_completes_commands_and_options() -> None:
    """The script for bash, in bash."""
    script = """
    source <(python -m monge completion bash)
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _monge; echo "${COMPREPLY[@]}"; }
    try monge gen; try monge generate sam; try monge generate train --warm; try monge view --wa
    """
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    result = subprocess.run(["bash", "-c", script], text=True, capture_output=True, env={**os.environ, "PATH": path})
    assert (result.stdout.splitlines(), result.stderr) == (["generate", "sample", "--warmup-steps", "--watch"], "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("n: 0 do not fit; give 1"), 2),
        (FloatingPointError("loss: nan; lower the rate"), 1),
        (OSError("disk: full; free some"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=["value", "arithmetic", "machine", "stopped"],
)
def test_an_error_gives_one_sentence_and_an_exit_code(error, code, monkeypatch, capsys) -> None:
    def verb() -> None:
        raise error

    monkeypatch.setitem(importlib.import_module("monge.apps.generate.cli").VERBS, "demo", verb)
    monkeypatch.delenv("MONGE_TRACE", raising=False)
    assert main(["generate", "demo"]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"monge generate demo: {error}")
    assert shown.count("\n") == 1


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fill(*_: object, **__: object) -> None:
        with open("/dev/full", "w", buffering=1) as file:
            file.write("more\n")

    monkeypatch.delenv("MONGE_TRACE", raising=False)
    monkeypatch.setattr("tyro.cli", fill)
    assert main(["generate", "train"]) == 1
    message = capsys.readouterr().err
    assert message == "monge generate train: the disk is full; files saved earlier are intact\n"


def test_a_path_that_is_too_long_is_invalid_input(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("MONGE_TRACE", raising=False)
    assert main(["generate", "sample", "x" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_running_out_of_memory_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        torch.empty(2**50)

    monkeypatch.setitem(importlib.import_module("monge.apps.generate.cli").VERBS, "demo", verb)
    monkeypatch.delenv("MONGE_TRACE", raising=False)
    assert main(["generate", "demo"]) == 1
    message = "monge generate demo: out of memory; files saved earlier are intact. Use a smaller batch or network\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_output_stream_is_not_an_error(number: int) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m monge --version {number}>&-"
    result = subprocess.run(["sh", "-c", command], text=True, capture_output=True)
    assert (result.stderr, result.returncode) == ("", 0)


def test_a_character_outside_the_encoding_of_the_terminal_is_escaped() -> None:
    script = "import monge.cli; monge.cli.main = lambda: print('runs/\u00e9') or 0; monge.cli.run()"
    result = subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (result.stdout, result.stderr, result.returncode) == ("runs/\\xe9\n", "", 0)


def test_an_environment_variable_shows_the_full_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb() -> None:
        raise ValueError("inside")

    monkeypatch.setitem(importlib.import_module("monge.apps.generate.cli").VERBS, "demo", verb)
    monkeypatch.setenv("MONGE_TRACE", "1")
    with pytest.raises(ValueError, match="inside"):
        main(["generate", "demo"])


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb() -> None:
        raise TypeError("a bug")

    monkeypatch.setitem(importlib.import_module("monge.apps.generate.cli").VERBS, "demo", verb)
    with pytest.raises(TypeError, match="a bug"):
        main(["generate", "demo"])
