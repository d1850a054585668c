"""Client of a server of embeddings, such as `monge prove serve-embeddings`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.prove.lm.circuit import RequestFailed
from monge.apps.prove.lm.endpoint import Endpoint, HTTPClient, RequestRejected


class EmbeddingClient:
    """The vectors of texts from a server; not finite for a text that the server rejects.

    `check` gets the fingerprint in each answer and raises a ValueError if it is not the expected one. RequestFailed or
    ConnectionError if the server does not answer, ValueError if its answer has no vectors.
    """

    def __init__(self, endpoint: Endpoint, width: int, check: Callable[[Mapping[str, Any]], None]) -> None:
        self._client = HTTPClient(endpoint, address=f"{endpoint.url.rstrip('/')}/embeddings")
        self._width, self._check = width, check

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        try:
            return self._ask(texts)
        except RequestRejected:
            if len(texts) == 1:
                return torch.full((1, self._width), torch.nan)
            return torch.cat([self([text]) for text in texts])  # one of them is rejected
        except RequestFailed as error:
            raise RequestFailed(f"{self._client.address}: {error}; check the server of embeddings") from error

    def _ask(self, texts: Sequence[str]) -> Float[Tensor, "n D"]:
        answer = self._client.ask({"model": self._client.endpoint.model, "input": list(texts)})
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = torch.tensor([row["embedding"] for row in rows], dtype=torch.float32)
            fingerprint = answer["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self._client.address}: no embeddings with a fingerprint in the answer ({error!r})"
            ) from error
        if vectors.shape != (len(texts), self._width):
            raise ValueError(f"{self._client.address}: vectors of shape {tuple(vectors.shape)} for {len(texts)} texts")
        self._check(fingerprint)
        return vectors
