"""A policy that asks an OpenAI-compatible server, once for each state."""

import json
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from itertools import accumulate
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

from monge.apps.prove.lm.cache import SuggestionCache
from monge.apps.prove.lm.circuit import Lost
from monge.apps.prove.lm.endpoint import Endpoint, HTTPClient, Refused
from monge.apps.prove.lm.prompt import Found, fingerprint, found_in, prompt
from monge.apps.prove.policy import merged
from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

HOW = ("key_variable", "seconds", "retries", "wait", "longest", "breaker", "rest", "workers", "remembered", "cache")
"""Settings that do not change what is answered."""
PLAIN = prompt(State((Goal("True"),)))
"""What any server answers."""
READING = 1
"""Goes up when answers are read in another way, so that what is kept of the old one is not used."""


class Completions:
    """Suggests the first tactic of each of a server's answers.

    Its logp is the sum over the tokens that the tactic stands in, as the server says them, given all before it; over all tokens
    of the answer where it cannot be told which these are. Of answers with the same tactic the likeliest counts. A state whose
    request was lost, or is refused by a server that answers others (too long for it, say), gets what had come before, maybe
    nothing; `missed` says why, a line for each. What is drawn depends on the seed, if the server minds it, and what is
    remembered was drawn with the same one.
    """

    def __init__(
        self,
        settings: Endpoint,
        seed: int = 0,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.seed = settings, seed
        self.missed: list[str] = []
        self._line = HTTPClient(settings, seed, sleep=sleep, clock=clock)
        self._memory = SuggestionCache(settings.remembered, settings.cache)
        self._told = False

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        """ValueError where the server refuses or gives no log-probabilities, ConnectionError while it is left alone."""
        prompts = [prompt(state) for state in states]
        different = list(dict.fromkeys(prompts))
        with ThreadPool(min(self.settings.workers, len(different) or 1)) as pool:  # whose end waits for no request
            answers = pool.map(lambda text: self._said(text, most), different, chunksize=1)
        said = dict(zip(different, answers, strict=True))
        return [list(said[text]) for text in prompts]

    def _said(self, text: str, most: int) -> list[Suggestion]:
        key = self._key(text, most)
        known = self._memory.get(key)
        if known is not None:
            return known
        answers, whole = self._answers(text, most)
        if self.settings.uniform:
            tactics = list(dict.fromkeys(found.tactic for answer in answers if (found := found_in(answer.text)).tactic))
            said = [Suggestion(tactic, -math.log(len(tactics[:most]))) for tactic in tactics[:most]]
        else:
            found = [(found_in(answer.text), answer) for answer in answers]
            said = merged((Suggestion(f.tactic, logp_of(a, f)) for f, a in found if f.tactic), most)
        if whole:
            self._memory.put(key, said)
        return said

    def _answers(self, text: str, most: int) -> "tuple[list[Answer], bool]":
        """So many, in as many requests at most; and whether none was lost or refused."""
        settings = self.settings
        most = most if settings.temperature > 0 else 1  # they would all be the same
        answers: list[Answer] = []
        for number in range(most):
            try:
                answers += self._read(self._line.ask(self._body(text, most - len(answers), number)))
            except (Lost, Refused) as error:
                if isinstance(error, Refused):  # what is wrong with any prompt ends the run
                    with suppress(Lost):
                        self._line.ask(self._body(PLAIN, most - len(answers)))
                self.missed.append(str(error))
                return answers, False
            if len(answers) >= most:
                break
        return answers, True

    def _body(self, text: str, count: int, number: int = 0) -> dict[str, Any]:
        """The request for so many answers; its number tells it from those of the same prompt before it."""
        settings = self.settings
        body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if settings.chat else {"prompt": text}
        body |= {name: getattr(settings, name) for name in ("model", "temperature", "top_p", "max_tokens")}
        if not settings.uniform:
            body["logprobs"] = True if settings.chat else 1
        if settings.temperature > 0 and settings.seeded:
            drawn = sha256(f"{self.seed} {number} {text}".encode(errors="replace")).digest()
            body["seed"] = int.from_bytes(drawn[:4], "big") >> 1
        return {**body, "n": count}

    def _read(self, said: Any) -> "list[Answer]":
        settings = self.settings
        try:
            answers = [(chat_answer if settings.chat else text_answer)(choice) for choice in said["choices"]]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{settings.address}: its answer has no choices to read; is it OpenAI-compatible?"
            ) from error
        told = answers if settings.uniform else [answer for answer in answers if answer.logps or not answer.text]
        self._told = self._told or settings.uniform or any(answer.logps for answer in answers)
        if not self._told and any(answer.text for answer in answers):
            raise ValueError(
                f"{settings.address}: {settings.model} came without log-probabilities; "
                "start the server with them, or set uniform to hold all tactics equally likely"
            )
        self.missed += ["an answer came without log-probabilities"] * (len(answers) - len(told))
        return told

    def _key(self, text: str, most: int) -> str:
        settings = {name: value for name, value in asdict(self.settings).items() if name not in HOW}
        drawn = self.seed if self.settings.temperature > 0 else 0
        words = json.dumps([READING, fingerprint(), settings, drawn, most, text], sort_keys=True)
        return sha256(words.encode()).hexdigest()


class Answer(NamedTuple):
    """A text with its tokens' log-probabilities, and where in it each token ends, in bytes of UTF-8, if that is known."""

    text: str
    logps: tuple[float, ...]
    ends: tuple[int, ...]


def text_answer(choice: dict[str, Any]) -> Answer:
    """One of /completions."""
    told = choice.get("logprobs") or {}
    text, logps, tokens = _clean(choice["text"]), _numbers(told.get("token_logprobs")), told.get("tokens") or []
    ends = _ends(text, [_clean(token).encode() for token in tokens])
    offsets = told.get("text_offset") or []
    if (
        not ends and offsets
    ):  # pieces of a character have no text of their own; some servers count from the prompt's start
        places = [min(offset - offsets[0], len(text)) for offset in offsets[1:]]
        ends = tuple(len(text[:place].encode()) for place in (*places, len(text)))
    return Answer(text, logps, ends if len(ends) == len(logps) else ())


def chat_answer(choice: dict[str, Any]) -> Answer:
    """One of /chat/completions."""
    told = (choice.get("logprobs") or {}).get("content") or []
    text, logps = _clean(choice["message"]["content"] or ""), _numbers([token["logprob"] for token in told])
    pieces = [bytes(t["bytes"]) if t.get("bytes") is not None else _clean(t["token"]).encode() for t in told]
    ends = _ends(text, pieces)
    return Answer(text, logps, ends if len(ends) == len(logps) else ())


def logp_of(answer: Answer, found: Found) -> float:
    """The log-probability of the tokens that the tactic stands in; of all where their places are not known."""
    if not answer.ends:
        return sum(answer.logps)
    start, end = (len(answer.text[:place].encode()) for place in (found.start, found.end))
    return sum(answer.logps[bisect_right(answer.ends, start) : bisect_left(answer.ends, end) + 1])


def _numbers(values: Sequence[float | None] | None) -> tuple[float, ...]:
    """As they are; none where one is missing or is no number."""
    kept = tuple(float(value) for value in values or [] if value is not None)
    return kept if len(kept) == len(values or []) and not any(map(math.isnan, kept)) else ()


def _ends(text: str, pieces: Sequence[bytes]) -> tuple[int, ...]:
    """Where each ends, if together they begin with the text: a stop or an end of text may follow."""
    return tuple(accumulate(map(len, pieces))) if b"".join(pieces).startswith(text.encode()) else ()


def _clean(text: str) -> str:
    """Halves of a surrogate pair, which JSON may hold and Lean cannot read, become question marks."""
    return text.encode(errors="replace").decode()
