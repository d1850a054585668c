"""One self-contained HTML page for many runs: curves, settings, tables, pictures and links."""

import base64
import json
import os
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from monge.viewer.collect import RunInfo, runs_in

PAGE = Path(__file__).parent / "page.html"
MAX_EMBEDDED_BYTES = 4 << 20
"""Maximum size in bytes of an embedded picture; larger ones become links."""


def page(directory: Path, *, out: Path | None = None, refresh: float = 0.0) -> str:
    """The HTML of the page for all runs in a directory. Links are relative to the folder of `out`, by default to `directory`.

    If `refresh` is positive, the page reloads its data from /data.json at this interval in seconds.
    """
    data = page_data(directory, out=out)
    text = PAGE.read_text(encoding="utf-8").replace("/*REFRESH*/0", json.dumps(refresh))
    return text.replace("/*DATA*/null", _in_script(data))


def page_data(directory: Path, *, out: Path | None = None) -> dict[str, Any]:
    """The contents of the page, ready for JSON."""
    base = (out.parent if out else directory).resolve()
    return {
        "directory": str(directory.resolve()),
        "runs": [_run(run, directory, base) for run in runs_in(directory)],
    }


def _run(run: RunInfo, directory: Path, base: Path) -> dict[str, Any]:
    name = run.path.relative_to(directory).as_posix()
    embedded = [path for path in run.pictures if path.stat().st_size <= MAX_EMBEDDED_BYTES]
    links = [*run.pages, *(path for path in run.pictures if path not in embedded)]
    return asdict(run) | {
        "path": run.path.resolve().name if name == "." else name,
        "pictures": [
            {"name": path.name, "data": base64.b64encode(path.read_bytes()).decode("ascii")} for path in embedded
        ],
        "pages": [
            {"name": path.name, "href": Path(os.path.relpath(path.resolve(), base)).as_posix()} for path in links
        ],
    }


def _in_script(data: object) -> str:
    """`data` as JSON, escaped so that no text in it can close the script element."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def server(directory: Path, *, port: int = 0, refresh: float = 5.0) -> ThreadingHTTPServer:
    """An HTTP server on the loopback interface: / is the page, /data.json its data; both are read from disk at each request.

    Files below `directory` are served only if they are HTML or PNG. Port 0 picks a free one. OSError if the port is in use.
    """
    root = directory.resolve()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                self.send_error(403, explain="open the page at 127.0.0.1 or localhost")  # against DNS rebinding
                return
            try:
                body, kind = self._answer()
            except (ValueError, OSError) as error:
                self.send_error(404, explain=str(error))
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def _answer(self) -> tuple[bytes, str]:
            if self.path == "/":
                return page(directory, refresh=refresh).encode(), "text/html; charset=utf-8"
            if self.path == "/data.json":
                return json.dumps(page_data(directory)).encode(), "application/json"
            file = (root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
            kinds = {".html": "text/html; charset=utf-8", ".png": "image/png"}
            if root not in file.parents or file.suffix not in kinds:
                raise ValueError("no such page")
            return file.read_bytes(), kinds[file.suffix]

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: a page that refreshes would fill the terminal."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
