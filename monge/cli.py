"""`monge APP VERB`: one application is imported, when its verb is called; `monge --help` imports nothing heavy."""

import errno
import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeGuard

APPS: dict[str, dict[str, str]] = {
    "generate": {
        "train": "learn a flow from noise to data",
        "sample": "draw samples from a run",
        "evaluate": "compare samples with the real data",
        "likelihood": "log-likelihood of held-out data",
        "reflow": "straighten a trained flow",
        "demo": "digits, from nothing to a picture, in three minutes",
    },
    "translate": {
        "data": "read natural-language and formal texts",
        "pretrain": "train a small language model on the formal texts",
        "embed": "texts to hidden states, token by token",
        "pair": "join two files of vectors by id",
        "calibrate": "measure the units of the cost",
        "couple": "solve the transport of every pair ahead of training",
        "train": "learn the flow between both sides",
        "hermes": "train with the seed's 313 M parameters",
        "run": "translate a file of vectors",
        "evaluate": "retrieval, lengths and likeness, beside baselines",
        "demo": "English to Metamath on 2,000 pairs",
    },
    "prove": {
        "setup": "make Lean 4 ready",
        "search": "search for proofs, and record every tactic tried",
        "probe": "which theorems one tactic proves",
        "summary": "what came of runs, with intervals",
        "compare": "two runs on the same theorems, paired",
        "export-proofs": "each proof of a run as a .lean file",
        "export-pairs": "theorems in English and Lean, for translate",
        "export-library": "the theorems of Init and Std",
        "view": "a run as an HTML page with its search trees",
        "demo": "thirty theorems about naturals",
    },
}


MISTAKES = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""What the operating system refuses and the user can mend."""


def _bare(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, MISTAKES) and error.filename is not None


def _extra(module: str | None) -> str | None:
    """The extra of monge that brings a module."""
    for requirement in importlib.metadata.requires("monge") or ():
        package, _, condition = requirement.partition(";")
        if re.split(r"[^\w.-]", package)[0] == module and (named := re.search(r"extra == .(\w+)", condition)):
            return named[1]
    return None


def usage() -> str:
    """What `monge --help` prints."""
    lines = ["usage: monge APP VERB [options]; monge APP VERB --help says which", ""]
    for app, verbs in APPS.items():
        lines += [app, *(f"  {verb:<16}{text}" for verb, text in verbs.items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. 0 if it worked, 2 for what the user can mend (one sentence says what), 1 when the machine failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    app = words[0]
    if app not in APPS or len(words) < 2 or words[1] not in APPS[app]:
        asked_for_help = app in APPS and len(words) > 1 and words[1] in ("-h", "--help")
        if not asked_for_help:
            print(f"monge: no {' '.join(words[:2])!r}; there are:\n", file=sys.stderr)
        print(usage(), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    verb, rest = words[1], words[2:]
    try:
        import tyro

        verbs = importlib.import_module(f"monge.apps.{app}.cli").VERBS
        tyro.cli(verbs[verb], args=rest, prog=f"monge {app} {verb}")
    except KeyboardInterrupt:
        print(f"monge {app} {verb}: stopped; what was saved stays", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        extra = _extra(error.name)
        if extra is None:
            raise
        print(f"monge {app} {verb}: {error.name} is not installed; pip install 'monge[{extra}]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("MONGE_TRACE"):
            raise
        ours = isinstance(error, OSError) and not isinstance(error, MISTAKES)
        said = str(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            said = f"the disk of {error.filename or 'what was being written'} is full; what was saved before stays"
        elif _bare(error):
            said = f"{error.filename2 or error.filename}: {error.strerror}; name another path"
        from monge.text import one_line

        print(f"monge {app} {verb}: {one_line(said)}", file=sys.stderr)
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


def run() -> None:
    """The command."""
    leave(main())


if __name__ == "__main__":
    run()
