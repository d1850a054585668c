"""A server of embeddings: its answers, batches, limits and errors, and the client of a search."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from torch import Tensor

from monge.apps.prove.lm.circuit import RequestFailed
from monge.apps.prove.lm.embeddings import EmbeddingClient
from monge.apps.prove.lm.endpoint import Endpoint
from monge.lm.embed import Embedding, pooled
from monge.lm.serve import MAX_BODY_BYTES, Batcher, Closed, EmbeddingServer, QueueFull, token_in

TEXTS = ["A e. B", "( A u. B ) = ( B u. A )", "ph"]


@contextmanager
def serving(embedding: Embedding, **limits: Any) -> Iterator[EmbeddingServer]:
    with EmbeddingServer(embedding, port=0, **limits) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def embedding(language_model: Path) -> Embedding:
    return Embedding(str(language_model), 2, 64, pooling="mean")


def ask(server: EmbeddingServer, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(f"http://127.0.0.1:{server.server_port}{path}", data, headers or {})
    try:
        with urlopen(request, timeout=60) as response:
            return json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"], error.headers.get("Retry-After")


def test_answers_are_the_offline_vectors(embedding: Embedding) -> None:
    expected = pooled(TEXTS, embedding)
    with serving(embedding) as server:
        assert ask(server, "/health") == {"status": "ok"}
        assert ask(server, "/model_info") == {"model_path": embedding.model, "fingerprint": embedding.fingerprint()}
        one = ask(server, "/encode", {"text": TEXTS[0]})
        several = ask(server, "/encode", {"text": TEXTS, "hidden_size": expected.shape[1]})
        openai = ask(server, "/v1/embeddings", {"input": TEXTS, "model": "any"})
    vectors = [torch.tensor(row["embedding"]) for row in openai["data"]]
    assert [row["index"] for row in openai["data"]] == [0, 1, 2]
    for found in (torch.tensor([one["embedding"]]), torch.tensor(several["embeddings"]), torch.stack(vectors)):
        assert (torch.cosine_similarity(found, expected[: len(found)]) > 1 - 1e-3).all()
        torch.testing.assert_close(found, expected[: len(found)].half().float(), rtol=1e-3, atol=1e-4)
    assert one["fingerprint"] == several["fingerprint"] == openai["fingerprint"] == embedding.fingerprint()


def test_concurrent_requests_get_their_own_vectors(embedding: Embedding) -> None:
    with serving(embedding, batch_size=8, linger=0.05) as server, ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda k: ask(server, "/encode", {"text": TEXTS[k % 3]})["embedding"], range(24)))
    for k, answer in enumerate(answers):
        torch.testing.assert_close(torch.tensor(answer), torch.tensor(answers[k % 3]), rtol=1e-2, atol=1e-3)


def test_texts_that_wait_are_embedded_together() -> None:
    sizes, going, started = list[int](), threading.Event(), threading.Event()

    def embed(texts: Any) -> Tensor:
        sizes.append(len(texts))
        started.set()
        assert going.wait(60)
        return torch.tensor([[float(text)] for text in texts])

    batcher = Batcher(embed, batch_size=4, queue_size=6, linger=0.0)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher, ["0"])
        assert started.wait(60)  # the next texts wait for the end of this batch
        others = [threads.submit(batcher, [str(2 * k + 1), str(2 * k + 2)]) for k in range(3)]
        while len(batcher._waiting) < 6:
            pass
        with pytest.raises(QueueFull, match="queue full: 6 of at most 6 texts waiting, and the request has 1"):
            batcher(["7"])
        going.set()
        values = [[float(x) for x in future.result()] for future in (first, *others)]
    assert values == [[0], [1, 2], [3, 4], [5, 6]]
    assert sizes == [1, 4, 2]
    batcher.close()
    with pytest.raises(Closed):
        batcher(["8"])


def test_an_error_of_the_model_reaches_the_clients_and_the_server_goes_on(
    embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(embedding) as server:
        monkeypatch.setattr("monge.lm.serve.pooled", lambda *_: 1 / 0)
        assert ask(server, "/encode", {"text": "A"})[:2] == (500, "ZeroDivisionError: division by zero")
        monkeypatch.undo()
        assert "embedding" in ask(server, "/encode", {"text": "A"})


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/nowhere", None, 404, "/nowhere: not served"),
        ("/nowhere", {}, 404, "/nowhere: not served"),
        ("/encode", b"{", 400, "the request is not JSON"),
        ("/encode", b"[" * 100_000, 400, "the request is not JSON"),
        ("/encode", [1], 400, "the request is not a JSON object"),
        ("/encode", {}, 422, "text must be a string or a list of strings"),
        ("/encode", {"text": []}, 422, "text must be a string or a list of strings"),
        ("/encode", {"text": ["A", 1]}, 422, "text must be a string or a list of strings"),
        ("/encode", {"text": "\ud800"}, 422, "text has characters that are not valid Unicode"),
        ("/encode", {"text": ["A"] * 9}, 422, "text has 9 texts; give at most 8"),
        ("/encode", {"text": "A", "hidden_size": 4096}, 422, "hidden_size is 4096, but the vectors have"),
        ("/encode", {"text": ["A", ""]}, 422, "text 1: vector 0 holds NaN"),
        ("/v1/embeddings", {"text": "A"}, 422, "input must be a string or a list of strings"),
    ],
)
def test_invalid_requests_get_one_sentence(
    embedding: Embedding, path: str, body: object, status: int, message: str
) -> None:
    with serving(embedding, queue_size=8) as server:
        answer = ask(server, path, body)
        assert (answer[0], message in answer[1]) == (status, True)
        assert "embedding" in ask(server, "/encode", {"text": "A"})


def test_a_request_that_is_too_long_is_refused_unread(embedding: Embedding) -> None:
    with serving(embedding) as server:
        for body, headers in (b"", {"Content-Length": str(MAX_BODY_BYTES + 1)}), (bytes(MAX_BODY_BYTES + 1), {}):
            answer = ask(server, "/encode", body, headers)
            assert (answer[0], f"at most {MAX_BODY_BYTES} bytes" in answer[1]) == (413, True)


def test_a_full_queue_is_answered_with_503_and_zero_vectors_with_422(
    embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(embedding) as server:
        monkeypatch.setattr(server, "batcher", lambda _: [torch.ones(3), torch.zeros(3)])
        server.batcher.queue_size = 9  # pyright: ignore
        assert ask(server, "/encode", {"text": ["A", "B"]})[:2] == (422, "text 1: vector 0 is zero")

        def full(_: object) -> None:
            raise QueueFull("9 texts are waiting, of at most 9")

        full.queue_size, full.close = 9, lambda: None  # pyright: ignore
        monkeypatch.setattr(server, "batcher", full)
        assert ask(server, "/encode", {"text": "A"}) == (503, "9 texts are waiting, of at most 9", "1")
        monkeypatch.undo()


def test_a_token_is_needed_beyond_this_machine_and_checked(
    embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError, match=r"--host 0\.0\.0\.0 can be reached from other machines; give --token-variable"
    ):
        EmbeddingServer(embedding, host="0.0.0.0", port=0)
    for limits in ({"port": 70_000}, {"port": 0, "linger": float("inf")}):
        with pytest.raises(ValueError, match="--port must be from 0 to 65535 and --linger from 0 to below 60 s"):
            EmbeddingServer(embedding, **limits)  # pyright: ignore
    with pytest.raises(ValueError, match="--token-variable NO_TOKEN: the environment variable holds no token; set it"):
        token_in("NO_TOKEN")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    with serving(embedding, token=token_in("SOME_TOKEN")) as server:
        assert ask(server, "/health") == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer other"}):
            assert ask(server, "/encode", {"text": "A"}, headers)[0] == 401
            assert ask(server, "/model_info", None, headers)[0] == 401
        assert "embedding" in ask(server, "/encode", {"text": "A"}, {"Authorization": "Bearer secret"})
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1", api_key_variable="SOME_TOKEN", retries=0)
        width = pooled(["A"], embedding).shape[1]
        assert EmbeddingClient(endpoint, width, lambda _: None)(["A"]).shape == (1, width)
        with pytest.raises(ValueError, match=r"127\.0\.0\.1:\d+: .*in use; choose another --host or --port"):
            EmbeddingServer(embedding, port=server.server_port)


def test_the_client_gets_the_vectors_and_checks_the_fingerprint(embedding: Embedding) -> None:
    expected = pooled(TEXTS, embedding)
    seen = list[Any]()
    with serving(embedding) as server:
        endpoint = Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1", retries=0)
        client = EmbeddingClient(endpoint, expected.shape[1], seen.append)
        torch.testing.assert_close(client(TEXTS), expected.half().float(), rtol=1e-3, atol=1e-4)
        assert seen == [embedding.fingerprint()]
        mixed = client([TEXTS[0], "", TEXTS[1]])
        assert mixed.isfinite().all(1).tolist() == [True, False, True]

        def refuse(_: object) -> None:
            raise ValueError("another model")

        with pytest.raises(ValueError, match="another model"):
            EmbeddingClient(endpoint, expected.shape[1], refuse)(TEXTS)
        with pytest.raises(ValueError, match=r"/v1/embeddings: vectors of shape \(3, \d+\) for 3 texts"):
            EmbeddingClient(endpoint, 5, seen.append)(TEXTS)
    with pytest.raises(RequestFailed, match=r"/v1/embeddings: .*refused; check the server"):
        client(TEXTS)
