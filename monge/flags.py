"""Command-line arguments of a verb, parsed by tyro. An error is a ValueError of one sentence instead of tyro's box."""

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from difflib import get_close_matches
from functools import wraps
from itertools import dropwhile, takewhile
from typing import Any

import tyro


def at_least_one(**numbers: int) -> None:
    """ValueError if one of the options, passed by their Python names, is below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number}: give at least 1")


def bind(verb: Callable[..., object], words: Sequence[str], prog: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments for `verb`. ValueError if they are invalid; SystemExit after `--help`.

    >>> def verb(steps: int = 3): ...
    >>> bind(verb, ["--steps", "4"], "verb")
    ((), {'steps': 4})
    >>> bind(verb, ["--stpes", "4"], "verb")
    Traceback (most recent call last):
    ValueError: unknown option --stpes; did you mean --steps?
    """

    @wraps(verb)
    def collect(*values: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return values, named

    inner = getattr(verb, "func", verb)  # the docstring of a partial is not that of the verb inside it
    collect.__doc__ = inner.__doc__
    if {"-h", "--help"} & set(words):
        return tyro.cli(collect, args=list(words), prog=prog)
    box = io.StringIO()
    try:
        with _wide_terminal(), redirect_stderr(box):
            return tyro.cli(collect, args=list(words), prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        message = sentence(box.getvalue())
        if unknown := re.match(r"unknown option ([^\s;]+)", message):
            nearest = _nearest(unknown[1], tyro.extras.get_parser(collect)._option_string_actions)
            message += f"; did you mean {nearest}?" if nearest else "; --help lists all options"
        raise ValueError(message) from None


@contextmanager
def _wide_terminal() -> Iterator[None]:
    """Make the terminal so wide that tyro does not break lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def sentence(box: str) -> str:
    """The error in a box printed by tyro, as one sentence."""
    lines = [line.strip(" │|") for line in box.splitlines()[1:]]  # without the title
    content = dropwhile(_is_rule, lines)
    message = " ".join(takewhile(lambda line: not _is_rule(line), content))
    for pattern, form in _FORMS.items():
        if match := re.fullmatch(pattern, message):
            message = form(match.groupdict())
            break
    return message


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"[─╭╮╰╯+-]{3,}", line) is not None


def _nearest(option: str, options: Iterable[str]) -> str | None:
    """The option most similar to `option` once its section is dropped, such as --lr for --train.lr; None if none is similar."""
    wanted = "--" + option.lstrip("-").rpartition(".")[2].replace("_", "-")
    matches = get_close_matches(wanted, list(options), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _unknown(parts: Mapping[str, str]) -> str:
    words = parts["words"].split(", ")
    options = [word for word in words if word.startswith("-")]
    return (
        f"unknown option {options[0]}" if options else f"unknown argument {' '.join(words)}; --help lists all arguments"
    )


def _choice(parts: Mapping[str, str]) -> str:
    return f"{parts['option']} {parts['value']}: choose from {parts['choices'].replace(chr(39), '')}"


_FORMS: dict[str, Callable[[Mapping[str, str]], str]] = {
    r"Unrecognized options: (?P<words>.*)": _unknown,
    r"Error parsing (?P<option>-[\w.-]*): invalid literal for int\(\) with base 10: '(?P<value>.*)'": lambda parts: (
        f"{parts['option']} {parts['value']}: give an integer"
    ),
    r"Error parsing (?P<option>-[\w.-]*): could not convert string to float: '(?P<value>.*)'": lambda parts: (
        f"{parts['option']} {parts['value']}: give a number"
    ),
    r"Error parsing (?P<option>-[\w.-]*): Could not find valid parse for arguments: \['(?P<value>.*)'\]": lambda parts: (
        f"{parts['option']} {parts['value']}: not a valid value"
    ),
    r"Error parsing (?P<option>-[\w.-]*): (?P<reason>.*)": lambda parts: f"{parts['option']}: {parts['reason']}",
    r"Error parsing (?P<name>[\w.]+): (?P<reason>.*)": lambda parts: parts["reason"],
    r"invalid choice '(?P<value>.*?)' for argument '(?P<option>.*?)'\. Expected one of \((?P<choices>.*?),?\)\.": _choice,
    r"Missing value for argument '(?P<option>.*?)'\. Expected .*": lambda parts: f"{parts['option']} needs a value",
    r"Missing from .*?: (?P<name>--\S+ \S+|\S+) (?P<help>.*?)\.? \(required\).*": lambda parts: (
        f"missing {parts['name']}: {parts['help']}; --help lists all arguments"
    ),
}
