"""A fake model server in a thread, which speaks both of OpenAI's protocols, and a clock on which waiting takes no time."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.lm.prompt import PLAIN, Style
from monge.apps.prove.state import Goal, State

STATES = [State((Goal(f"{k} = {k}"),)) for k in range(4)]
SIMP = [(" ", -8.0), ("si", -0.5), ("mp", -0.25), ("\n", -16.0), ("rfl", -32.0)]
RFL = [("rfl", -2.0)]
OMEGA = [("by", -4.0), (" omega", -1.0), ("</s>", -64.0)]


class Fake:
    """A model server that sends the responses queued in `troubles`, then `answers`: tokens with their log-probabilities."""

    def __init__(self) -> None:
        self.answers, self.asked, self.headers = [SIMP, RFL, OMEGA], [], []
        self.troubles: list[tuple[int, dict, object]] = []
        self.down = self.single = self.silent = False
        self.lock = threading.Lock()

    def answer(self, path: str, body: dict, headers: dict) -> tuple[int, dict, object]:
        with self.lock:
            self.asked.append(body)
            self.headers.append(headers)
            number = len(self.asked)
            if self.down:
                return 503, {}, {"error": {"message": "no worker"}}
            if self.troubles:
                return self.troubles.pop(0)
        chosen = [self.answers[(number - 1) % len(self.answers)]] if self.single else self.answers[: body["n"]]
        choice = self.chat if path == "/v1/chat/completions" else self.text
        return 200, {}, {"choices": [choice(tokens, path, body) for tokens in chosen]}

    def text(self, tokens: list, path: str, body: dict) -> dict:
        assert path == "/v1/completions"
        assert isinstance(body["prompt"], str)
        names, logps = [t for t, _ in tokens], [p for _, p in tokens]
        logprobs = {"tokens": names, "token_logprobs": logps}
        return {
            "text": "".join(names).removesuffix("</s>"),
            "logprobs": None if self.silent or "logprobs" not in body else logprobs,
        }

    def chat(self, tokens: list, path: str, body: dict) -> dict:
        assert [m["role"] for m in body["messages"]] == ["user"]
        content = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in tokens]
        text = "".join(t for t, _ in tokens).removesuffix("</s>")
        return {
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": content} if body.get("logprobs") is True and not self.silent else None,
        }


@contextmanager
def serving() -> Iterator[Fake]:
    """A fake server that listens while the block runs."""
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, payload = fake.answer(self.path, body, dict(self.headers))
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # clients that time out close the connection
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


class Time:
    """A clock that advances only when a caller sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def completions(fake: Fake, time: Time | None = None, seed: int = 0, style: Style = PLAIN, **settings) -> Completions:
    """A policy that queries the fake server; `settings` override those of its Endpoint."""
    time = time or Time()
    endpoint = Endpoint(**{"url": fake.url, "model": "m", **settings})
    return Completions(endpoint, seed, style=style, sleep=time.sleep, clock=time)
