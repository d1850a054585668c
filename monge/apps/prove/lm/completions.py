"""A policy that asks an OpenAI-compatible server, once for each state."""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from typing import Any

from monge.apps.prove.lm.answers import Answer, chat_answer, logp_of, tactic_in, text_answer
from monge.apps.prove.lm.cache import SuggestionCache
from monge.apps.prove.lm.circuit import Lost
from monge.apps.prove.lm.endpoint import Endpoint, HTTPClient, Refused
from monge.apps.prove.lm.prompt import fingerprint, prompt
from monge.apps.prove.policy import merged
from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

HOW = ("key_variable", "seconds", "retries", "wait", "longest", "breaker", "rest", "workers", "remembered", "cache")
"""Settings that do not change the answers."""
PLAIN = prompt(State((Goal("True"),)))
"""A prompt that any server answers."""
READING = 2
"""Version of the code that reads answers: suggestions cached by another version are not used."""


class Completions:
    """Suggests the first tactic of each of a server's answers.

    Its logp is the sum over the tokens that contain the tactic, as reported by the server, given all tokens before them; over
    all tokens of the answer if their positions are unknown. Of answers with the same tactic the likeliest counts. A state whose
    request was lost, or is refused by a server that answers others (because it is too long, say), gets the suggestions received
    before, if any. An answer without valid log-probabilities, or with a tactic that is too long, is dropped. `missed` has a
    line for each of these. Draws depend on the seed if the server supports it; cached answers were drawn with the same seed.
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
        self._client = HTTPClient(settings, seed, sleep=sleep, clock=clock)
        self._memory = SuggestionCache(settings.remembered, settings.cache)
        self._told = False

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        """ValueError if it refuses any prompt or sends no log-probabilities, ConnectionError while the circuit is open."""
        prompts = [prompt(state) for state in states]
        different = list(dict.fromkeys(prompts))
        with ThreadPool(
            min(self.settings.workers, len(different) or 1)
        ) as pool:  # leaving the block waits for no request
            answers = pool.map(lambda text: self._said(text, most), different, chunksize=1)
        said = dict(zip(different, answers, strict=True))
        return [list(said[text]) for text in prompts]

    def _said(self, text: str, most: int) -> list[Suggestion]:
        key = self._key(text, most)
        known = self._memory.get(key)
        if known is not None:
            return known
        answers, whole = self._answers(text, most)
        said = [one for answer in answers if (one := self._suggestion(answer)) is not None]
        if self.settings.uniform:
            tactics = list(dict.fromkeys(one.tactic for one in said))[:most]
            said = [Suggestion(tactic, -math.log(len(tactics))) for tactic in tactics]
        else:
            said = merged(said, most)
        if whole:
            self._memory.put(key, said)
        return said

    def _suggestion(self, answer: Answer) -> Suggestion | None:
        """The tactic of an answer; None if there is none, or it is dropped."""
        try:
            found = tactic_in(answer)
            logp = 0.0 if self.settings.uniform else logp_of(answer, found)
        except ValueError as error:
            self.missed.append(f"a suggestion was dropped: {error}")
            return None
        return Suggestion(found.tactic, logp) if found.tactic else None

    def _answers(self, text: str, most: int) -> tuple[list[Answer], bool]:
        """That many answers, in at most as many requests; False if a request was lost or refused."""
        settings = self.settings
        most = most if settings.temperature > 0 else 1  # they would all be the same
        answers: list[Answer] = []
        for number in range(most):
            try:
                answers += self._read(self._client.ask(self._body(text, most - len(answers), number)))
            except (Lost, Refused) as error:
                if isinstance(error, Refused):  # a refusal of any prompt ends the run
                    with suppress(Lost):
                        self._client.ask(self._body(PLAIN, most - len(answers)))
                self.missed.append(str(error))
                return answers, False
            if len(answers) >= most:
                break
        return answers, True

    def _body(self, text: str, count: int, number: int = 0) -> dict[str, Any]:
        """The request for that many answers; `number` distinguishes requests for the same prompt."""
        settings = self.settings
        body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if settings.chat else {"prompt": text}
        body |= {name: getattr(settings, name) for name in ("model", "temperature", "top_p", "max_tokens")}
        if not settings.uniform:
            body["logprobs"] = True if settings.chat else 1
        if settings.temperature > 0 and settings.seeded:
            drawn = sha256(f"{self.seed} {number} {text}".encode(errors="replace")).digest()
            body["seed"] = int.from_bytes(drawn[:4], "big") >> 1
        return {**body, "n": count}

    def _read(self, said: Any) -> list[Answer]:
        settings = self.settings
        choices = said.get("choices") if isinstance(said, dict) else None
        try:
            if not isinstance(choices, list):
                raise ValueError("there are no choices")
            answers = [(chat_answer if settings.chat else text_answer)(choice) for choice in choices]
        except ValueError as error:
            raise ValueError(
                f"{settings.address}: its answer cannot be read ({error}); is it an OpenAI-compatible server?"
            ) from error
        told = answers if settings.uniform else [answer for answer in answers if answer.logps or not answer.text]
        self._told = self._told or settings.uniform or any(answer.logps for answer in answers)
        if not self._told and any(answer.text for answer in answers):
            raise ValueError(
                f"{settings.address}: {settings.model} came without valid log-probabilities; "
                "start the server with them, or set uniform to treat all tactics as equally likely"
            )
        self.missed += ["an answer came without valid log-probabilities"] * (len(answers) - len(told))
        return told

    def _key(self, text: str, most: int) -> str:
        settings = {name: value for name, value in asdict(self.settings).items() if name not in HOW}
        drawn = self.seed if self.settings.temperature > 0 else 0
        words = json.dumps([READING, fingerprint(), settings, drawn, most, text], sort_keys=True)
        return sha256(words.encode()).hexdigest()
