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
            raise FileNotFoundError("Chromium is not installed")
        output, commands = os.pipe(), os.pipe()  # (read end, write end)

        def pipes() -> None:
            # by way of 103 and 104, since an end may already be 3 or 4
            for end, number in ((commands[0], 3), (output[1], 4)):
                os.dup2(end, number + 100)
            for number in (3, 4):
                os.dup2(number + 100, number)

        self._process = subprocess.Popen(
            [
                *(command, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
                *("--window-size=1240,1000", "--disable-dev-shm-usage"),
            ],
            preexec_fn=pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(output[1])
        self._from, self._to, self._number = os.fdopen(output[0], "rb"), os.fdopen(commands[1], "wb"), 0
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
            reply = json.loads(self._message())
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(reply["error"])
                return reply["result"]

    def _message(self) -> bytes:
        message = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            if not byte:
                raise EOFError("Chromium exited")
            message += byte
        return bytes(message)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        reply = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(reply["exceptionDetails"])
        return reply["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write a screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
