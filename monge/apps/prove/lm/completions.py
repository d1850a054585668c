"""A policy that queries an OpenAI-compatible server for each state."""

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
from monge.apps.prove.lm.circuit import RequestFailed
from monge.apps.prove.lm.endpoint import Endpoint, HTTPClient, RequestRejected
from monge.apps.prove.lm.prompt import PLAIN, Style, fingerprint, prompt
from monge.apps.prove.policy import merged
from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

SETTINGS_NOT_IN_KEY = (
    "api_key_variable",
    "timeout_seconds",
    "retries",
    "backoff_seconds",
    "max_backoff_seconds",
    "breaker_failures",
    "breaker_cooldown_seconds",
    "max_concurrent",
    "cache_size",
    "cache_file",
)
"""Settings that do not affect the answers."""
TRIVIAL = prompt(State((Goal("True"),)))
"""A prompt that any working server answers."""
READER_VERSION = 2
"""Version of the code that reads answers; suggestions cached by another version are ignored."""


class Completions:
    """Suggests the first tactic of each of a server's answers.

    A tactic's logp is the sum of the server's log-probabilities of the tokens that contain it, each given all tokens before it,
    or of all tokens of the answer if their positions are unknown. Among answers with the same tactic, the likeliest counts. If
    a request is lost, or rejected by a server that answers others (for example because it is too long), its state gets the
    suggestions received before, if any. An answer without valid log-probabilities, or with a tactic that is too long, is
    dropped. `missed` has a line for each of these cases. Samples depend on the seed if the server supports seeds; above
    temperature 0, cached answers are reused for the same seed only.
    """

    def __init__(
        self,
        settings: Endpoint,
        seed: int = 0,
        *,
        style: Style = PLAIN,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.seed, self.style = settings, seed, style
        self.missed: list[str] = []
        self._client = HTTPClient(settings, seed, sleep=sleep, clock=clock)
        self._memory = SuggestionCache(settings.cache_size, settings.cache_file)
        self._has_logps = False

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        """Suggestions for each state.

        ValueError if the server rejects even TRIVIAL or sends no log-probabilities; ConnectionError while the circuit is open.
        """
        prompts = [prompt(state, self.style) for state in states]
        distinct = list(dict.fromkeys(prompts))
        with ThreadPool(
            min(self.settings.max_concurrent, len(distinct) or 1)
        ) as pool:  # leaving the block does not wait for requests
            result = pool.map_async(lambda text: self._suggestions(text, limit), distinct, chunksize=1)
            while not result.ready():
                result.wait(0.5)  # a Ctrl-C that arrives just before a wait without a timeout would not end it
            suggestions = result.get()
        by_prompt = dict(zip(distinct, suggestions, strict=True))
        return [
            [
                suggestion._replace(tactic=tactic)
                for suggestion in by_prompt[text]
                if (tactic := self.style.original(state, suggestion.tactic)) is not None
            ]
            for state, text in zip(states, prompts, strict=True)
        ]

    def _suggestions(self, text: str, limit: int) -> list[Suggestion]:
        key = self._key(text, limit)
        cached = self._memory.get(key)
        if cached is not None:
            return cached
        answers, complete = self._answers(text, limit)
        suggestions = [one for answer in answers if (one := self._suggestion(answer)) is not None]
        if self.settings.uniform:
            tactics = list(dict.fromkeys(one.tactic for one in suggestions))[:limit]
            suggestions = [Suggestion(tactic, -math.log(len(tactics))) for tactic in tactics]
        else:
            suggestions = merged(suggestions, limit)
        if complete:
            self._memory.put(key, suggestions)
        return suggestions

    def _suggestion(self, answer: Answer) -> Suggestion | None:
        """The tactic of an answer; None if there is none or it is dropped."""
        try:
            parsed = tactic_in(answer)
            logp = 0.0 if self.settings.uniform else logp_of(answer, parsed)
        except ValueError as error:
            self.missed.append(f"a suggestion was dropped: {error}")
            return None
        return Suggestion(parsed.tactic, logp) if parsed.tactic else None

    def _answers(self, text: str, limit: int) -> tuple[list[Answer], bool]:
        """Up to `limit` answers, in at most `limit` requests, and False if a request was lost or rejected."""
        settings = self.settings
        limit = limit if settings.temperature > 0 else 1  # all answers would be identical
        answers: list[Answer] = []
        for number in range(limit):
            try:
                answers += self._read(self._client.ask(self._body(text, limit - len(answers), number)))
            except (RequestFailed, RequestRejected) as error:
                if isinstance(error, RequestRejected):  # a rejection of TRIVIAL as well ends the run
                    with suppress(RequestFailed):
                        self._client.ask(self._body(TRIVIAL, limit - len(answers)))
                self.missed.append(str(error))
                return answers, False
            if len(answers) >= limit:
                break
        return answers, True

    def _body(self, text: str, count: int, number: int = 0) -> dict[str, Any]:
        """The request for `count` answers; `number` distinguishes requests for the same prompt."""
        settings = self.settings
        body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if settings.chat else {"prompt": text}
        body |= {name: getattr(settings, name) for name in ("model", "temperature", "top_p", "max_tokens")}
        if not settings.uniform:
            body["logprobs"] = True if settings.chat else 1
        if settings.temperature > 0 and settings.send_seed:
            digest = sha256(f"{self.seed} {number} {text}".encode(errors="replace")).digest()
            body["seed"] = int.from_bytes(digest[:4], "big") >> 1
        return {**body, "n": count}

    def _read(self, response: Any) -> list[Answer]:
        settings = self.settings
        choices = response.get("choices") if isinstance(response, dict) else None
        try:
            if not isinstance(choices, list):
                raise ValueError("there are no choices")
            answers = [(chat_answer if settings.chat else text_answer)(choice) for choice in choices]
        except ValueError as error:
            raise ValueError(
                f"{settings.address}: cannot read the answer ({error}); is this an OpenAI-compatible server?"
            ) from error
        usable = answers if settings.uniform else [answer for answer in answers if answer.logps or not answer.text]
        self._has_logps = self._has_logps or settings.uniform or any(answer.logps for answer in answers)
        if not self._has_logps and any(answer.text for answer in answers):
            raise ValueError(
                f"{settings.address}: {settings.model} sent no valid log-probabilities; "
                "enable them on the server, or set uniform to treat all tactics as equally likely"
            )
        self.missed += ["an answer had no valid log-probabilities"] * (len(answers) - len(usable))
        return usable

    def _key(self, text: str, limit: int) -> str:
        settings = {name: value for name, value in asdict(self.settings).items() if name not in SETTINGS_NOT_IN_KEY}
        seed = self.seed if self.settings.temperature > 0 else 0
        content = json.dumps([READER_VERSION, fingerprint(), settings, seed, limit, text], sort_keys=True)
        return sha256(content.encode()).hexdigest()
