"""HTTP server of pooled embeddings. Concurrent requests share batches."""

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jaxtyping import Float
from torch import Tensor

from monge.lm.embed import Embedding, pooled
from monge.lm.store import DTYPES, problem

Embed = Callable[[Sequence[str]], Float[Tensor, "n D"]]
LOOPBACK = ("127.0.0.1", "localhost")
MAX_BODY_BYTES = 16 << 20
"""Maximum size of a request in bytes."""
DRAIN = 5.0
"""Seconds for which the rest of a refused request is read."""


class QueueFull(RuntimeError):
    """Raised if the texts of a request do not fit in the queue."""


class Closed(RuntimeError):
    """Raised for texts that were waiting when the server stopped."""


class Batcher:
    """Embeds the texts of several threads together, in one thread of its own.

    A batch starts `linger` seconds after the thread sees a text, or once it has `batch_size` texts. At most `queue_size`
    texts wait; `__call__` raises QueueFull beyond that.
    """

    def __init__(self, embed: Embed, *, batch_size: int, queue_size: int, linger: float) -> None:
        self._embed, self._batch_size, self.queue_size, self._linger = embed, batch_size, queue_size, linger
        self._waiting: deque[tuple[str, Future[Tensor]]] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, texts: Sequence[str]) -> list[Float[Tensor, "D"]]:
        """The vector of each text. Errors of `embed` are raised in each thread whose text is in the batch."""
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            if len(self._waiting) + len(texts) > self.queue_size:
                waiting = f"{len(self._waiting)} of at most {self.queue_size} texts waiting"
                raise QueueFull(f"queue full: {waiting}, and the request has {len(texts)}")
            futures = [Future[Tensor]() for _ in texts]
            self._waiting.extend(zip(texts, futures, strict=True))
            self._changed.notify()
        return [future.result() for future in futures]

    def close(self) -> None:
        """Stop after the current batch. Texts that are waiting raise Closed in their threads."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                vectors = self._embed([text for text, _ in batch])
            except Exception as error:  # it belongs to the threads that wait for it
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), vector in zip(batch, vectors, strict=True):
                    future.set_result(vector)

    def _next(self) -> list[tuple[str, Future[Tensor]]]:
        """The next batch; empty once the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            end = time.monotonic() + self._linger
            while len(self._waiting) < self._batch_size and not self._closed and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._closed:
                for _, future in self._waiting:
                    future.set_exception(Closed("the server is stopping"))
                return []
            return [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]


class Rejected(Exception):
    """A request that gets an error as its answer. A client may try again after `retry_after` seconds."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class EmbeddingServer(ThreadingHTTPServer):
    """Serves `POST /encode`, `POST /v1/embeddings`, `GET /health` and `GET /model_info`.

    Every answer with vectors has the fingerprint of the embedding. A request whose text has a zero or non-finite vector, or
    no tokens, is answered with status 422. ValueError for an address other than loopback without a token, or if it is in use.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        embedding: Embedding,
        *,
        host: str = "127.0.0.1",
        port: int = 8001,
        token: str = "",
        batch_size: int = 32,
        queue_size: int = 1024,
        linger: float = 0.005,
    ) -> None:
        if not 0 <= port <= 65535 or not 0 <= linger < 60:
            raise ValueError(f"--port must be from 0 to 65535 and --linger from 0 to below 60 s, got {port}, {linger}")
        if host not in LOOPBACK and not token:
            raise ValueError(f"--host {host} can be reached from other machines; give --token-variable")
        self.embedding, self.token, self.fingerprint = embedding, token, embedding.fingerprint()
        self.batcher = Batcher(self._vectors, batch_size=batch_size, queue_size=queue_size, linger=linger)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ValueError(f"{host}:{port}: {error.strerror or error}; choose another --host or --port") from error

    def _vectors(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        return pooled(texts, self.embedding).to(DTYPES[self.embedding.dtype]).float()  # as they are stored

    def server_close(self) -> None:
        """Release the address and stop the batches."""
        super().server_close()
        self.batcher.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: most errors here are clients that closed their connection."""


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 60  # of a client that sends nothing
    protocol_version = "HTTP/1.1"
    refused = False

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self._send(200, {"status": "ok"})
            case "/model_info":
                self._answer(
                    lambda: {"model_path": self.server.embedding.model, "fingerprint": self.server.fingerprint}
                )
            case _:
                self._send(404, {"error": f"{self.path}: not served; GET /health or /model_info"})

    def do_POST(self) -> None:
        match self.path:
            case "/encode":
                self._answer(self._encode)
            case "/v1/embeddings":
                self._answer(self._openai)
            case _:
                self._refuse_body()
                self._send(404, {"error": f"{self.path}: not served; POST /encode or /v1/embeddings"})

    def _answer(self, content: Callable[[], dict[str, Any]]) -> None:
        try:
            self._authorize()
            self._send(200, content())
        except Rejected as error:
            self._send(error.status, {"error": str(error)}, error.retry_after)
        except Exception as error:  # the server goes on
            self._send(500, {"error": f"{type(error).__name__}: {error}"})

    def _encode(self) -> dict[str, Any]:
        body = self._body()
        vectors = self._embedded(body, "text")
        if (wanted := body.get("hidden_size")) not in (None, len(vectors[0])):
            raise Rejected(422, f"hidden_size is {wanted}, but the vectors have {len(vectors[0])} entries")
        one = isinstance(body["text"], str)
        content = {"embedding": vectors[0].tolist()} if one else {"embeddings": [x.tolist() for x in vectors]}
        return {**content, "fingerprint": self.server.fingerprint}

    def _openai(self) -> dict[str, Any]:
        vectors = self._embedded(self._body(), "input")
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": k, "embedding": x.tolist()} for k, x in enumerate(vectors)],
            "model": self.server.embedding.model,
            "fingerprint": self.server.fingerprint,
        }

    def _embedded(self, body: dict[str, Any], name: str) -> list[Float[Tensor, "D"]]:
        texts = body.get(name)
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Rejected(422, f"{name} must be a string or a list of strings")
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            raise Rejected(422, f"{name} has characters that are not valid Unicode")
        if len(texts) > self.server.batcher.queue_size:
            raise Rejected(422, f"{name} has {len(texts)} texts; give at most {self.server.batcher.queue_size}")
        try:
            vectors = self.server.batcher(texts)
        except (QueueFull, Closed) as error:
            raise Rejected(503, str(error), 1) from None
        for number, vector in enumerate(vectors):
            if reason := problem(vector[None], len(vector)):
                raise Rejected(422, f"{name} {number}: {reason}")
        return vectors

    def _authorize(self) -> None:
        token, given = self.server.token, self.headers.get("Authorization", "")
        if token and not compare_digest(given.encode(), f"Bearer {token}".encode()):
            self._refuse_body()
            raise Rejected(401, "give the token as `Authorization: Bearer TOKEN`")

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._refuse_body()
            raise Rejected(413, f"give a Content-Length of at most {MAX_BODY_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Rejected(400, f"the request is not JSON ({error})") from None
        if not isinstance(body, dict):
            raise Rejected(400, "the request is not a JSON object")
        return body

    def _send(self, status: int, content: dict[str, Any], retry_after: int | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)

    def _refuse_body(self) -> None:
        """Close the connection after the answer, without using the rest of the request."""
        self.close_connection = self.refused = True

    def finish(self) -> None:
        """Close the connection. If a body was refused, first drop what arrives for DRAIN seconds, so that a client that is
        still sending sees the answer and not a reset connection."""
        if self.refused:
            end = time.monotonic() + DRAIN
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(DRAIN)
                while time.monotonic() < end and self.rfile.read1(1 << 20):
                    pass
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def token_in(variable: str) -> str:
    """The token in an environment variable; empty if `variable` is. ValueError if it holds none."""
    token = os.environ.get(variable, "").strip() if variable else ""
    if variable and not (token and token.isascii() and token.isprintable()):
        raise ValueError(f"--token-variable {variable}: the environment variable holds no token; set it")
    return token
