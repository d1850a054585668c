"""HTTP client for a language model server: requests, retries, and a circuit breaker."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from monge.apps.prove.lm.circuit import Circuit, RequestFailed


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and the settings of requests to it."""

    url: str = "http://localhost:8000/v1"
    """Base URL of the server, up to its version, such as http://localhost:8000/v1."""
    model: str = ""
    """Name of the model, as the server knows it."""
    chat: bool = False
    """Send the prompt as a user message to /chat/completions, rather than as text to continue to /completions."""
    temperature: float = 1.0
    """Sampling temperature; at 0 each prompt gets a single answer."""
    top_p: float = 1.0
    """Total probability of the likeliest next tokens to sample from; 1 samples from all tokens."""
    max_tokens: int = 128
    """Maximum number of tokens per answer."""
    uniform: bool = False
    """Treat all distinct tactics as equally likely and request no log-probabilities."""
    send_seed: bool = True
    """Send a seed with each request, derived from the search's seed and the prompt. Some servers reject this field."""
    api_key_variable: str = ""
    """Name of the environment variable that holds the API key; if empty, no key is sent."""
    timeout_seconds: float = 120.0
    """Timeout per request in seconds."""
    retries: int = 4
    """Maximum number of retries per request, after connection errors, HTTP 429 and HTTP 5xx."""
    backoff_seconds: float = 1.0
    """Seconds before the first retry; doubles with each further retry and varies randomly by up to 50 %."""
    max_backoff_seconds: float = 60.0
    """Maximum number of seconds between retries; if the server asks for more, the request fails."""
    breaker_failures: int = 3
    """Number of consecutive requests that must fail, after all their retries, to trip the circuit breaker."""
    breaker_cooldown_seconds: float = 60.0
    """Seconds before a tripped circuit breaker lets a request through again."""
    max_concurrent: int = 8
    """Maximum number of concurrent requests."""
    cache_size: int = 10_000
    """Maximum number of prompts whose suggestions are cached in memory; the least recently used are evicted."""
    cache_file: Path | None = None
    """SQLite file that caches the suggestions for all prompts; several processes may share it. Default: no file."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        complete = parts.scheme in ("http", "https") and parts.hostname and not parts.path.endswith("/completions")
        if not complete or parts.username is not None or parts.query:  # not shown: it may hold a key
            raise ValueError(
                "url must be a server's address up to its version, without a key, such as http://localhost:8000/v1"
            )
        if self.api_key_variable and not self.api_key_variable.isidentifier():  # not shown: it may be the key itself
            raise ValueError("api_key_variable must be the name of an environment variable that holds the key")
        for name in (
            "max_tokens",
            "timeout_seconds",
            "top_p",
            "breaker_failures",
            "breaker_cooldown_seconds",
            "max_concurrent",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("temperature", "retries", "backoff_seconds", "max_backoff_seconds", "cache_size"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    @property
    def address(self) -> str:
        """URL that requests are sent to."""
        return f"{self.url.rstrip('/')}/{'chat/' if self.chat else ''}completions"


def with_flags(base: Endpoint | None, url: str, token_variable: str) -> Endpoint | None:
    """The settings of the server of embeddings, with the flags that are given. ValueError for a token without a URL."""
    if not url and not token_variable:
        return base
    if base is None and not url:
        raise ValueError("--embeddings-token-variable needs --embeddings-url")
    base = base or Endpoint()
    return replace(base, url=url or base.url, api_key_variable=token_variable or base.api_key_variable)


MAX_RESPONSE_BYTES = 16 << 20
"""Maximum size of a response in bytes."""


class RequestRejected(ValueError):
    """The server rejected this request or its answer is unusable; other requests may succeed."""


class _Retry(Exception):
    """A failure that may be temporary. `after` is the delay in seconds that the server asks for."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        """Follow no redirect: the key is meant for this server only."""


_OPENER = build_opener(_NoRedirect)


class HTTPClient:
    """Sends requests to `address`, by default that of the endpoint, from any number of threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        seed: int = 0,
        *,
        address: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint, self._sleep, self._clock = endpoint, sleep, clock
        self.address = address or endpoint.address
        self.circuit = Circuit(self.address, endpoint.breaker_failures, endpoint.breaker_cooldown_seconds, clock)
        self._draws = random.Random(seed)

    def ask(self, body: Mapping[str, Any]) -> Any:
        """The server's answer, parsed from JSON.

        RequestRejected or another ValueError with the server's message if it rejects the request; RequestFailed if
        every attempt fails or the server asks for too long a delay; ConnectionError while the circuit is open.
        """
        with self.circuit.guard():
            return self._with_retries(body)

    def _with_retries(self, body: Mapping[str, Any]) -> Any:
        endpoint, attempt = self.endpoint, 0
        while True:
            self.circuit.check()
            try:
                return self._once(body)
            except _Retry as retry:
                delay = min(endpoint.backoff_seconds * 2.0 ** min(attempt, 30), endpoint.max_backoff_seconds / 1.5)
                if attempt == endpoint.retries or retry.after > endpoint.max_backoff_seconds:
                    raise RequestFailed(str(retry)) from retry
                self._sleep(max(delay * self._draws.uniform(0.5, 1.5), retry.after))
                attempt += 1

    def _once(self, body: Mapping[str, Any]) -> Any:
        address, secret = self.address, self._key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {secret}"} if secret else {})}
        request = Request(address, json.dumps(body).encode(), headers)
        start = self._clock()
        try:
            with _OPENER.open(request, timeout=self.endpoint.timeout_seconds) as response:
                text = self._read(response, start)
        except HTTPError as error:
            with error:
                message = f"HTTP {error.code}: {_message(error, secret)}"
            if error.code == 429 or error.code >= 500:
                raise _Retry(message, _retry_after(error.headers)) from None
            raise (RequestRejected if error.code in (400, 413, 422) else ValueError)(f"{address}: {message}") from None
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise _Retry(str(reason) or type(reason).__name__) from error
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{address}: the answer is not JSON; is this an OpenAI-compatible server?") from error

    def _read(self, response: HTTPResponse, start: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MAX_RESPONSE_BYTES:
                raise RequestRejected(f"{self.address}: the answer has more than {MAX_RESPONSE_BYTES >> 20} MiB")
            if self._clock() - start > self.endpoint.timeout_seconds:  # the socket's timeout applies to each part
                raise TimeoutError("timed out")
        if response.length:
            raise ConnectionResetError("the answer is incomplete")
        return b"".join(parts)

    def _key(self) -> str:
        name = self.endpoint.api_key_variable
        secret = os.environ.get(name, "").strip() if name else ""
        if name and not (secret and secret.isascii() and secret.isprintable()):
            raise ValueError(f"{self.address}: the environment variable {name} holds no key; set it")
        return secret


def _message(error: HTTPError, secret: str) -> str:
    """The server's message in one line, without the key, which some servers repeat."""
    try:
        text = error.read(1 << 16).decode(errors="replace")
    except (OSError, HTTPException):
        text = ""
    try:
        payload = json.loads(text)
        payload = payload.get("error", payload)
        text = payload if isinstance(payload, str) else str(payload.get("message") or payload["detail"])
    except (ValueError, AttributeError, KeyError, RecursionError):
        pass
    text = text.replace(secret, "(the key)") if secret else text
    return " ".join(text.split())[:300] or str(error.reason)


def _retry_after(headers: Message) -> float:
    """Seconds that the server asks the client to wait; 0 if it does not ask."""
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
