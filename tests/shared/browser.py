"""Headless Chromium over its debugging pipe: JSON with a zero byte after each message."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def needs_chromium() -> None:
    """Skip the test if there is no Chromium."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("needs Chromium: apt install chromium")


class Browser:
    """One page. `run` evaluates JavaScript in it."""

    def __init__(self, page: Path) -> None:
        command = shutil.which("chromium") or shutil.which("google-chrome")
        if command is None:
            raise FileNotFoundError("no Chromium here")
        mine, theirs = os.pipe(), os.pipe()

        def pipes() -> None:
            for far, near in ((theirs[0], 3), (mine[1], 4)):  # by a third number: they may be 3 and 4 already
                os.dup2(far, near + 100)
            for near in (3, 4):
                os.dup2(near + 100, near)

        self._process = subprocess.Popen(
            [
                *(command, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
                *("--window-size=1240,1000", "--disable-dev-shm-usage"),
            ],
            preexec_fn=pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs[0])
        os.close(mine[1])
        self._from, self._to, self._number = os.fdopen(mine[0], "rb"), os.fdopen(theirs[1], "wb"), 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while self.run("document.readyState") != "complete":
            pass

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            found = json.loads(self._message())
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(found["error"])
                return found["result"]

    def _message(self) -> bytes:
        found = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            if not byte:
                raise EOFError("Chromium ended")
            found += byte
        return bytes(found)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write what it shows as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
