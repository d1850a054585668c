"""A server of language models over HTTP: how it is asked, asked again, and left alone for a while."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from monge.apps.prove.lm.circuit import Circuit, Lost


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, and what it is asked for."""

    url: str = "http://localhost:8000/v1"
    """Up to its version, as http://localhost:8000/v1."""
    model: str = ""
    chat: bool = False
    """Whether the prompt is a user's message, at /chat/completions; if not it is a text to go on with, at /completions."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    uniform: bool = False
    """Ask for no log-probabilities: all different tactics count as equally likely."""
    seeded: bool = True
    """Send a seed with each request, of the search's seed and the prompt. Some servers refuse what they do not know."""
    key_variable: str = ""
    """Environment variable that holds the key; no key is sent if empty."""
    seconds: float = 120.0
    """For a request."""
    retries: int = 4
    """Of a request that met no server, a busy one (429) or a broken one (5xx)."""
    wait: float = 1.0
    """Seconds before the first retry, then twice as many each time, give or take a half."""
    longest: float = 60.0
    """Seconds between retries at most; a server that asks for more is given up."""
    breaker: int = 3
    """Failed requests in a row, their retries spent, after which the server is left alone."""
    rest: float = 60.0
    """Seconds for which it is."""
    workers: int = 8
    """Requests at once."""
    remembered: int = 10_000
    """Answers kept in memory at most, the latest used."""
    cache: Path | None = None
    """A file that keeps them all; several processes may share it."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        whole = parts.scheme in ("http", "https") and parts.hostname and not parts.path.endswith("/completions")
        if not whole or parts.username is not None or parts.query:  # it is not said back: it may hold a key
            raise ValueError(
                "url must be a server's address up to its version, without a key: http://localhost:8000/v1"
            )
        if self.key_variable and not self.key_variable.isidentifier():  # nor is this: it may be the key itself
            raise ValueError("key_variable must be the name of an environment variable that holds the key")
        for name in ("max_tokens", "seconds", "top_p", "breaker", "rest", "workers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("temperature", "retries", "wait", "longest", "remembered"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"{self.url.rstrip('/')}/{'chat/' if self.chat else ''}completions"


RESPONSE = 16 << 20
"""Maximum size of a response in bytes."""


class Refused(ValueError):
    """A request without a usable answer; other requests may have one."""


class _Again(Exception):
    """What may be different next time, and the seconds to wait that the server asks for."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        """Nowhere: the key is for this server."""


_OPENER = build_opener(_Stay)


class HTTPClient:
    """Requests to a server, one or many at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        seed: int = 0,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint, self._sleep, self._clock = endpoint, sleep, clock
        self.circuit = Circuit(endpoint.address, endpoint.breaker, endpoint.rest, clock)
        self._draws = random.Random(seed)

    def ask(self, body: Mapping[str, Any]) -> Any:
        """The JSON that the server answers.

        Refused or another ValueError with its message where it will not, Lost where it cannot be reached, ConnectionError
        while left alone.
        """
        with self.circuit.guard():
            return self._patiently(body)

    def _patiently(self, body: Mapping[str, Any]) -> Any:
        most, longest = self.endpoint.retries, self.endpoint.longest
        attempt = 0
        while True:
            self.circuit.check()
            try:
                return self._once(body)
            except _Again as again:
                drawn = min(self.endpoint.wait * 2.0 ** min(attempt, 30), longest / 1.5) * self._draws.uniform(0.5, 1.5)
                if attempt == most or again.after > longest:
                    raise Lost(str(again)) from again
                self._sleep(max(drawn, again.after))
                attempt += 1

    def _once(self, body: Mapping[str, Any]) -> Any:
        address, secret = self.endpoint.address, self._key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {secret}"} if secret else {})}
        request = Request(address, json.dumps(body).encode(), headers)
        began = self._clock()
        try:
            with _OPENER.open(request, timeout=self.endpoint.seconds) as response:
                read = self._read(response, began)
        except HTTPError as error:
            with error:
                said = f"HTTP {error.code}: {_message(error, secret)}"
            if error.code == 429 or error.code >= 500:
                raise _Again(said, _retry_after(error.headers)) from None
            raise (Refused if error.code in (400, 413, 422) else ValueError)(f"{address}: {said}") from None
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise _Again(str(reason) or type(reason).__name__) from error
        try:
            return json.loads(read)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{address}: the answer is no JSON; is this an OpenAI-compatible server?") from error

    def _read(self, response: HTTPResponse, began: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > RESPONSE:
                raise Refused(f"{self.endpoint.address}: the answer has more than {RESPONSE >> 20} MiB")
            if self._clock() - began > self.endpoint.seconds:  # the socket's time-out is for each part
                raise TimeoutError("timed out")
        if response.length:
            raise ConnectionResetError("the answer broke off")
        return b"".join(parts)

    def _key(self) -> str:
        name = self.endpoint.key_variable
        secret = os.environ.get(name, "").strip() if name else ""
        if name and not (secret and secret.isascii() and secret.isprintable()):
            raise ValueError(f"{self.endpoint.address}: the environment variable {name} holds no key; set it")
        return secret


def _message(error: HTTPError, secret: str) -> str:
    """The server's message in one line, without the key, which some servers repeat."""
    try:
        text = error.read(1 << 16).decode(errors="replace")
    except (OSError, HTTPException):
        text = ""
    try:
        told = json.loads(text)
        told = told.get("error", told)
        text = told if isinstance(told, str) else str(told.get("message") or told["detail"])
    except (ValueError, AttributeError, KeyError, RecursionError):
        pass
    text = text.replace(secret, "(the key)") if secret else text
    return " ".join(text.split())[:300] or str(error.reason)


def _retry_after(headers: Message) -> float:
    """Seconds that the server asks to wait; 0 if it does not."""
    said = headers.get("Retry-After", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
