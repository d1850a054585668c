"""Answers of an OpenAI-compatible server: texts and log-probabilities, extracted from untrusted JSON."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from monge.apps.prove.lm.prompt import ParsedTactic, parse_tactic

MAX_TACTIC_LENGTH = 20_000
"""Maximum length of a tactic in characters."""
MAX_TEXT_LENGTH = 1_000_000
"""Number of characters at the start of an answer that are searched for a tactic."""
ROUNDING = 1e-3
"""Log-probabilities up to this much above 0 are rounding errors and count as 0."""


class Answer(NamedTuple):
    """A text, its tokens' log-probabilities, and the position where each token ends in the text's UTF-8 bytes.

    `logps` is empty if they are missing or invalid, `ends` if the positions are unknown.
    """

    text: str
    logps: tuple[float, ...]
    ends: tuple[int, ...]


def text_answer(choice: Any) -> Answer:
    """A choice of /completions. ValueError if it has no text."""
    text, logprobs = _text(_field(choice, "text")), _field(choice, "logprobs")
    logps = _log_probabilities(_field(logprobs, "token_logprobs"))
    tokens, offsets = _field(logprobs, "tokens"), _field(logprobs, "text_offset")
    ends: tuple[int, ...] = ()
    if _all(tokens, str):
        ends = _ends(text, [_clean(token).encode() for token in tokens])
    if not ends and offsets and _all(offsets, int):
        # a token that is part of a character has no text; some servers count offsets from the start of the prompt
        starts = [min(max(0, offset - offsets[0]), len(text)) for offset in offsets[1:]]
        ends = tuple(accumulate((len(text[:end].encode()) for end in (*starts, len(text))), max))
    return Answer(text, logps, ends if len(ends) == len(logps) else ())


def chat_answer(choice: Any) -> Answer:
    """A choice of /chat/completions. ValueError if it has no text; null counts as empty text."""
    message, content = _field(choice, "message"), _field(_field(choice, "logprobs"), "content")
    if not isinstance(message, dict) or "content" not in message:
        raise ValueError("a choice has no message with content")
    text = _text("" if message["content"] is None else message["content"])
    tokens = content if isinstance(content, list) else []
    logps = _log_probabilities([_field(token, "logprob") for token in tokens])
    pieces = [_piece(token) for token in tokens]
    ends = _ends(text, [piece for piece in pieces if piece is not None])
    return Answer(text, logps, ends if len(ends) == len(logps) else ())


def tactic_in(answer: Answer) -> ParsedTactic:
    """The first tactic of an answer. ValueError if it is too long."""
    parsed = parse_tactic(answer.text[:MAX_TEXT_LENGTH])
    if len(parsed.tactic) > MAX_TACTIC_LENGTH:
        raise ValueError(f"a tactic has more than {MAX_TACTIC_LENGTH} characters")
    return parsed


def logp_of(answer: Answer, parsed: ParsedTactic) -> float:
    """The sum of the log-probabilities of the tokens that contain the tactic, or of all tokens if their positions are unknown.

    ValueError if it is not finite.
    """
    logps = answer.logps
    if answer.ends:
        start, end = (len(answer.text[:position].encode()) for position in (parsed.start, parsed.end))
        logps = logps[bisect_right(answer.ends, start) : bisect_left(answer.ends, end) + 1]
    total = sum(logps)
    if not math.isfinite(total):
        raise ValueError("the log-probability of a tactic is not finite")
    return total


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a choice has no text")
    return _clean(value)


def _piece(token: Any) -> bytes | None:
    """The bytes of a token, or those of its text if it lists none; None if they are invalid."""
    values, text = _field(token, "bytes"), _field(token, "token")
    if _all(values, int) and all(0 <= byte < 256 for byte in values):
        return bytes(values)
    return _clean(text).encode() if values is None and isinstance(text, str) else None


def _log_probabilities(values: Any) -> tuple[float, ...]:
    """The values, each finite and at most 0; empty if one of them is invalid."""
    if not isinstance(values, list):
        return ()
    logps: list[float] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ()
        try:
            number = float(value)
        except OverflowError:
            return ()
        if not math.isfinite(number) or number > ROUNDING:
            return ()
        logps.append(min(number, 0.0))
    return tuple(logps)


def _ends(text: str, pieces: Sequence[bytes]) -> tuple[int, ...]:
    """The end of each piece if the joined pieces start with the text (a stop word may follow it); otherwise empty."""
    return tuple(accumulate(map(len, pieces))) if b"".join(pieces).startswith(text.encode()) else ()


def _clean(text: str) -> str:
    """The text with lone surrogates, which JSON may contain and Lean cannot read, replaced by question marks."""
    return text.encode(errors="replace").decode()
