"""`monge APP VERB` and `monge TOOL`: only the module of the command is imported; `monge --help` imports nothing heavy."""

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
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TypeGuard

APPS = ("generate", "translate", "compress", "prove", "molecules")
TOOLS = {"runs": "viewer.cli", "view": "viewer.cli", "completion": "completion"}
"""Commands for all applications, with the modules whose VERBS hold them."""

USER_ERRORS = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""Errors of the operating system that the user can fix with another path or other permissions."""


def _is_user_error(error: Exception) -> bool:
    return isinstance(error, USER_ERRORS) or (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG)


def _names_a_path(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and _is_user_error(error) and error.filename is not None


def _out_of_memory(error: Exception) -> bool:
    """True for MemoryError and torch's out-of-memory errors on a CPU or a GPU, recognised without importing torch."""
    from_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return from_torch or isinstance(error, MemoryError)


def _extra(module: str | None) -> str | None:
    """The extra of monge that installs a module; None if there is none."""
    for requirement in importlib.metadata.requires("monge") or ():
        package, _, condition = requirement.partition(";")
        if re.split(r"[^\w.-]", package)[0] == module and (match := re.search(r"extra == .(\w+)", condition)):
            return match[1]
    return None


def verbs_of(app: str) -> dict[str, str]:
    """Each verb of an application with the first clause of its docstring, read from the source without importing it."""
    return _verbs(Path(__file__).parent / "apps" / app / "cli.py")


def tools() -> dict[str, str]:
    """Each tool with the first clause of its docstring."""
    root = Path(__file__).parent
    return {tool: _verbs(root / (module.replace(".", "/") + ".py"))[tool] for tool, module in TOOLS.items()}


def _verbs(path: Path) -> dict[str, str]:
    """Each verb in the VERBS of a source file with the first clause of its docstring."""
    folder, tree = path.parent, ast.parse(path.read_text(encoding="utf-8"))
    origins = {
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
        text = _docstring(folder / f"{module or origins.get(name, path.stem)}.py", name)
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
        lines += [app, *(f"  {verb:<18}{text}" for verb, text in verbs_of(app).items())]
    return "\n".join([*lines, "all applications", *(f"  {tool:<18}{text}" for tool, text in tools().items())])


def _command(words: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """(module, verb, arguments) of a command line; None if there is no such command."""
    if words[0] in TOOLS:
        return f"monge.{TOOLS[words[0]]}", words[0], list(words[1:])
    if words[0] in APPS and len(words) > 1 and words[1] in verbs_of(words[0]):
        return f"monge.apps.{words[0]}.cli", words[1], list(words[2:])
    return None


def _reject(words: Sequence[str]) -> int:
    """Print the usage and return the exit code: 0 after `monge APP --help`, 2 for a command that is incomplete or unknown."""
    if words[0] in APPS and len(words) > 1 and words[1] in ("-h", "--help"):
        print(usage())
        return 0
    known = [*APPS, *TOOLS, *(f"{app} {verb}" for app in APPS for verb in verbs_of(app))]
    if words[0] in APPS and len(words) == 1:
        print(f"monge: {words[0]} needs a verb\n\n{usage()}", file=sys.stderr)
        return 2
    nearest = get_close_matches(" ".join(words[:2]), known, n=1) or get_close_matches(words[0], known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    print(f"monge: unknown command {' '.join(words[:2])!r}{hint}\n", file=sys.stderr)
    print(usage(), file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 on success, 2 for invalid input, 1 for failures at run time, such as a
    full disk or training that diverges.

    Failures print one line; if the environment variable MONGE_TRACE is set, they propagate, except for a missing package of an
    extra. Exceptions of other types, which are bugs, always propagate. Ctrl-C gives 130, and SIGTERM during training 143.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"monge {importlib.metadata.version('monge')}")
        return 0
    if (command := _command(words)) is None:
        return _reject(words)
    module, verb, rest = command
    prog = " ".join(["monge", *words[: len(words) - len(rest)]])
    try:
        from monge.flags import bind

        cli = importlib.import_module(module)
        function = cli.VERBS[verb]
        if (with_defaults := getattr(cli, "WITH_DEFAULTS", {}).get(verb)) is not None:
            function = with_defaults(rest)
        elif "--resume" in rest:  # flags default to the settings of the run
            function = importlib.import_module("monge.runs").with_stored_recipe(function, rest)
        values, named = bind(function, rest, prog)
        function(*values, **named)
    except KeyboardInterrupt as stop:
        if not (str(stop) and int(os.environ.get("RANK", 0))):  # all ranks stop at the same step, and rank zero says so
            print(f"{prog}: {stop or 'interrupted; files saved earlier are intact'}", file=sys.stderr)
        return getattr(stop, "code", 130)
    except BrokenPipeError:
        raise  # the reader of the output, such as `head`, has exited; `run` handles it
    except ModuleNotFoundError as error:
        extra = _extra(error.name)
        if extra is None:
            raise
        print(f"{prog}: {error.name} is not installed; pip install 'monge[{extra}]'", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error) or os.environ.get("MONGE_TRACE"):
            raise
        print(
            f"{prog}: out of memory; files saved earlier are intact. Use a smaller batch or network",
            file=sys.stderr,
        )
        return 1
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("MONGE_TRACE"):
            raise
        invalid = _is_user_error(error) if isinstance(error, OSError) else isinstance(error, ValueError)
        message = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            disk = f"the disk of {error.filename}" if error.filename else "the disk"
            message = f"{disk} is full; files saved earlier are intact"
        elif _names_a_path(error):
            message = f"{error.filename2 or error.filename}: {error.strerror}; choose another path"
        from monge.text import one_line

        print(f"{prog}: {one_line(message)}", file=sys.stderr)
        return 2 if invalid else 1
    return 0


def exit_process(code: int) -> NoReturn:
    """Exit with `code`. Under torchrun, skip interpreter shutdown.

    Otherwise the process may abort after all its work is done: gloo's threads may still be releasing tensors, for which they
    need the interpreter (torch 2.13).
    """
    if "WORLD_SIZE" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_streams() -> None:
    """Make both output streams usable: a closed one discards text, an open one escapes characters outside its encoding."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python reports it again at exit
        code = 128 + signal.SIGPIPE
    exit_process(code)


if __name__ == "__main__":
    run()
