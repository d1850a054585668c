"""Answers of a model server: any input gives usable suggestions or a one-line error. No test starts a model server."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speaker import STATES, Time, completions

from monge.apps.prove.lm import endpoint
from monge.apps.prove.lm.answers import MAX_TACTIC_LENGTH, chat_answer, text_answer
from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import Endpoint

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(alphabet="simp rfl\n`-/·\ud83d←", max_size=12),
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
LOGPS = st.floats(-1e308, 1e-9, allow_nan=False)


@st.composite
def broken(draw, value):
    """The value with some of its parts left out or replaced by arbitrary JSON."""
    if draw(st.integers(0, 12)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {key: draw(broken(inner)) for key, inner in value.items() if draw(st.integers(0, 12))}
    return [draw(broken(inner)) for inner in value] if isinstance(value, list) else value


@st.composite
def responses(draw, chat):
    """A server's answer with random defects."""
    choices = []
    for tokens in draw(st.lists(st.lists(st.sampled_from(["si", "mp", "\n", "rfl", "←"]), max_size=4), max_size=3)):
        logps = [draw(LOGPS) for _ in tokens]
        text = "".join(tokens)
        if chat:
            logprobs = [
                {"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in zip(tokens, logps, strict=True)
            ]
            choices.append({"message": {"content": text}, "logprobs": {"content": logprobs}})
        else:
            logprobs = {"tokens": tokens, "token_logprobs": logps, "text_offset": list(range(len(tokens)))}
            choices.append({"text": text, "logprobs": logprobs})
    return draw(broken({"choices": choices}))


@pytest.mark.slow
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("chat", [False, True])
@given(data=st.data())
def test_any_answer_gives_suggestions_or_a_one_line_error(chat, uniform, data):
    """Log-probabilities are finite and at most 0; tactics are short and can be encoded."""
    policy = Completions(Endpoint("http://a/v1", "m", chat=chat, uniform=uniform, temperature=0.0))
    response = data.draw(responses(chat) | JSON)
    policy._client.ask = lambda body: response
    suggestions, message = [], ""
    try:
        (suggestions,) = policy(STATES[:1], 3)
    except ValueError as error:
        message = str(error)
    assert not message or re.fullmatch("http://a/v1/.*", message)
    for tactic, logp in suggestions:
        assert math.isfinite(logp)
        assert logp <= 0
        assert 0 < len(tactic.encode()) <= 4 * MAX_TACTIC_LENGTH


def text(*logps, tokens=("simp",)):
    return {"text": "".join(tokens), "logprobs": {"tokens": list(tokens), "token_logprobs": list(logps)}}


def chat(*logps, tokens=("simp",)):
    logprobs = [{"token": t, "logprob": p} for t, p in zip(tokens, logps, strict=True)]
    return {"message": {"content": "".join(tokens)}, "logprobs": {"content": logprobs}}


@pytest.mark.parametrize(("read", "choice"), [(text_answer, text), (chat_answer, chat)])
@pytest.mark.parametrize("logp", [10**400, -(10**400), math.inf, -math.inf, math.nan, 0.5, True, "-1", [], {}, None])
def test_a_log_probability_is_finite_and_at_most_0(read, choice, logp):
    assert read(choice(logp)).logps == ()
    assert read(choice(-1.0, logp, tokens=("si", "mp"))).logps == ()


@pytest.mark.parametrize(("read", "choice"), [(text_answer, text), (chat_answer, chat)])
def test_a_rounding_error_above_0_counts_as_0(read, choice):
    assert read(choice(1e-6)).logps == (0.0,)
    assert read(choice(-2)).logps == (-2.0,)


def test_bytes_of_a_token_are_bytes():
    """In particular `bytes(n)` is not called with a number n, which would allocate n bytes."""
    for given_bytes in (10**12, [256], [-1], "simp", [1.5]):
        choice = chat(-1.0)
        choice["logprobs"]["content"][0]["bytes"] = given_bytes
        assert chat_answer(choice).ends == ()


LONG = "9" * 400


@pytest.mark.parametrize("logp", [LONG, f"-{LONG}", "1e400", "-Infinity", "NaN", "0.5"])
def test_an_answer_with_an_invalid_log_probability_is_dropped_and_counted(fake, logp):
    good = fake.text([("rfl", -2.0)], "/v1/completions", {"prompt": "", "logprobs": 1})
    payload = json.dumps({"choices": [text("LOGP"), good]}).replace('"LOGP"', logp).encode()
    fake.troubles = [(200, {}, payload)]
    fake.answers = []
    policy = completions(fake)
    assert policy(STATES[:1], 2) == [[("rfl", -2.0)]]
    assert policy.missed == ["an answer had no valid log-probabilities"]


@pytest.mark.parametrize("uniform", [False, True])
def test_a_tactic_that_is_too_long_is_dropped_and_counted(fake, uniform):
    fake.answers = [[("x" * (MAX_TACTIC_LENGTH + 1), -1.0)], [("rfl", -2.0)]]
    policy = completions(fake, uniform=uniform)
    ((suggestion,),) = policy(STATES[:1], 2)
    assert suggestion == ("rfl", 0.0 if uniform else -2.0)
    assert policy.missed == [f"a suggestion was dropped: a tactic has more than {MAX_TACTIC_LENGTH} characters"]
    fake.answers = [[("x" * MAX_TACTIC_LENGTH, -1.0)]]
    assert len(policy(STATES[1:2], 1)[0][0].tactic) == MAX_TACTIC_LENGTH


def test_a_response_that_is_too_large_is_lost_and_counted(fake, monkeypatch):
    monkeypatch.setattr(endpoint, "MAX_RESPONSE_BYTES", 1 << 20)
    fake.troubles = [(200, {}, {"choices": [text(-1.0, tokens=("x" * (2 << 20),))]})]
    policy = completions(fake, Time())
    assert policy(STATES[:1], 1) == [[]]
    assert policy.missed == [f"{fake.url}/completions: the answer has more than 1 MiB"]
    assert len(policy(STATES[:1], 1)[0]) == 1
    fake.troubles = [(200, {}, b"x" * (2 << 20))] * 2
    with pytest.raises(ValueError, match="the answer has more than 1 MiB"):  # the simplest prompt is rejected too
        policy(STATES[1:2], 1)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_an_answer_of_deeply_nested_lists_gives_a_one_line_error(fake, status):
    depth = 200_000 if status == 200 else 30_000
    fake.troubles = [(status, {}, b"[" * depth + b"]" * depth)] * 2
    with pytest.raises((ValueError, ConnectionError), match=rf"^{fake.url}/completions: ") as stopped:
        completions(fake, Time(), retries=0, breaker_failures=1)(STATES[:1], 1)
    assert "\n" not in str(stopped.value)
    assert len(str(stopped.value)) < 1000
