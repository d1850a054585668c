"""`monge APP VERB`: one application is imported, when its verb is called; `monge --help` imports nothing heavy."""

import ast
import errno
import importlib
import importlib.metadata
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeGuard

APPS = ("generate", "translate", "prove")


MISTAKES = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""Errors of the operating system that the user can fix, by another path or other permissions."""


def _is_mistake(error: Exception) -> bool:
    return isinstance(error, MISTAKES) or (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG)


def _bare(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and _is_mistake(error) and error.filename is not None


def _out_of_memory(error: Exception) -> bool:
    """True for Python's MemoryError and what torch raises on a CPU or a GPU, recognised without importing torch."""
    torchs = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return torchs or isinstance(error, MemoryError)


def _extra(module: str | None) -> str | None:
    """The extra of monge that brings a module."""
    for requirement in importlib.metadata.requires("monge") or ():
        package, _, condition = requirement.partition(";")
        if re.split(r"[^\w.-]", package)[0] == module and (named := re.search(r"extra == .(\w+)", condition)):
            return named[1]
    return None


def verbs_of(app: str) -> dict[str, str]:
    """Each verb of an application with the first sentence of its docstring, read from the source without importing it."""
    folder = Path(__file__).parent / "apps" / app
    tree = ast.parse((folder / "cli.py").read_text(encoding="utf-8"))
    homes = {
        alias.asname or alias.name: (node.module or "").rpartition(".")[-1]
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERBS" and isinstance(node.value, ast.Dict)
    )
    verbs: dict[str, str] = {}
    for key, value in zip(table.keys, table.values, strict=True):
        module, _, name = ast.unparse(value).rpartition(".")
        text = _docstring(folder / f"{module or homes.get(name, 'cli')}.py", name)
        verbs[str(ast.literal_eval(key or value))] = re.split(r"(?<=[a-z)])[.:;] |\.?\n|\.$", text)[0]
    return verbs


def _docstring(path: Path, function: str) -> str:
    (node,) = (
        n
        for n in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(n, ast.FunctionDef) and n.name == function
    )
    return ast.get_docstring(node) or ""


def usage() -> str:
    """The text of `monge --help`."""
    lines = ["usage: monge APP VERB [options]", "       monge APP VERB --help lists the options of a verb", ""]
    for app in APPS:
        lines += [app, *(f"  {verb:<16}{text}" for verb, text in verbs_of(app).items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. 0 on success, 2 for invalid input (with a message of one line), 1 for failures of the machine."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"monge {importlib.metadata.version('monge')}")
        return 0
    app = words[0]
    if app not in APPS or len(words) < 2 or words[1] not in verbs_of(app):
        asked_for_help = app in APPS and len(words) > 1 and words[1] in ("-h", "--help")
        if not asked_for_help:
            print(f"monge: no {' '.join(words[:2])!r}; there are:\n", file=sys.stderr)
        print(usage(), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    verb, rest = words[1], words[2:]
    try:
        import tyro

        cli = importlib.import_module(f"monge.apps.{app}.cli")
        function = cli.VERBS[verb]
        if "--resume" in rest:  # flags default to the settings of the run
            own = getattr(cli, "RESUMED", {}).get(verb)
            function = own(rest) if own else importlib.import_module("monge.runs").with_stored_recipe(function, rest)
        tyro.cli(function, args=rest, prog=f"monge {app} {verb}")
    except KeyboardInterrupt as stop:
        print(f"monge {app} {verb}: {stop or 'interrupted; files saved earlier are intact'}", file=sys.stderr)
        return getattr(stop, "code", 130)
    except BrokenPipeError:
        raise  # the reader of the output has gone, as `head` does: no error of ours
    except ModuleNotFoundError as error:
        extra = _extra(error.name)
        if extra is None:
            raise
        print(f"monge {app} {verb}: {error.name} is not installed; pip install 'monge[{extra}]'", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error) or os.environ.get("MONGE_TRACE"):
            raise
        print(
            f"monge {app} {verb}: out of memory; files saved earlier are intact. Use a smaller batch or network",
            file=sys.stderr,
        )
        return 1
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("MONGE_TRACE"):
            raise
        ours = isinstance(error, OSError) and not _is_mistake(error)
        message = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = (
                f"the disk of {error.filename or 'what was being written'} is full; files saved earlier are intact"
            )
        elif _bare(error):
            message = f"{error.filename2 or error.filename}: {error.strerror}; name another path"
        from monge.text import one_line

        print(f"monge {app} {verb}: {one_line(message)}", file=sys.stderr)
        return 1 if ours else 2
    return 0


def leave(code: int) -> NoReturn:
    """End the process. A rank of torchrun ends at once, without the interpreter's own end: gloo's threads may still drop
    tensors, for which they want the interpreter, and the process would abort after all its work is done (torch 2.13)."""
    if "WORLD_SIZE" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_streams() -> None:
    """Make both output streams usable: a closed one discards text, and characters outside its encoding are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as by a daemon or `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the life of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run() -> None:
    """Run the command line and end the process with its exit code."""
    _open_streams()
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports it again at exit
        code = 128 + signal.SIGPIPE
    leave(code)


if __name__ == "__main__":
    run()
