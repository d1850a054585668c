"""Requests to a server: temporary and permanent failures, the circuit breaker, API keys. No test waits."""

import json
import math
import signal
import threading
import time

import pytest
from speaker import STATES, Time, completions

from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.state import Goal, State


@pytest.mark.parametrize("trouble", [(500, {}, {}), (429, {}, b"busy"), (200, {"Content-Length": "99"}, b"cut")])
def test_temporary_failures_are_retried_after_growing_delays(fake, trouble):
    fake.troubles, time = [trouble] * 3, Time()
    (suggestions,) = completions(fake, time, backoff_seconds=1.0)(STATES[:1], 3)
    assert len(suggestions) == 3
    first, second, third = time.slept
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3
    assert 2 <= third <= 6
    fake.troubles, again = [trouble] * 3, Time()
    completions(fake, again, backoff_seconds=1.0)(STATES[:1], 3)
    assert again.slept == time.slept
    fake.troubles, other = [trouble] * 3, Time()
    completions(fake, other, 1, backoff_seconds=1.0)(STATES[:1], 3)
    assert other.slept != time.slept


def test_a_delay_that_the_server_asks_for_is_respected(fake, monkeypatch):
    now = time.time()
    monkeypatch.setattr("monge.apps.prove.lm.endpoint.time.time", lambda: now)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + 40))
    fake.troubles, clock = [(429, {"Retry-After": "20"}, {}), (503, {"Retry-After": date}, {})], Time()
    completions(fake, clock, max_backoff_seconds=50.0)(STATES[:1], 3)
    assert clock.slept[0] == 20
    assert 39 <= clock.slept[1] <= 40
    fake.troubles, clock = [(429, {"Retry-After": "3600"}, {"error": "come tomorrow"})], Time()
    policy = completions(fake, clock, max_backoff_seconds=50.0, breaker_failures=1)
    with pytest.raises(ConnectionError, match="HTTP 429: come tomorrow"):
        policy(STATES[:1], 3)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"error": {"message": "n is\ntoo large"}}, "HTTP 400: n is too large"),
        ({"object": "error", "message": "unknown model"}, "HTTP 400: unknown model"),
        ({"detail": "no such route"}, "HTTP 400: no such route"),
        (b"<html>", "HTTP 400: <html>"),
        (b"", "HTTP 400: Bad Request"),
    ],
)
def test_a_rejection_is_reported_at_once(fake, payload, message):
    """The server rejects the simplest prompt too."""
    fake.troubles, clock = [(400, {}, payload)] * 2, Time()
    with pytest.raises(ValueError, match=message) as stopped:
        completions(fake, clock)(STATES[:1], 3)
    assert str(stopped.value).startswith(f"{fake.url}/completions: ")
    assert "\n" not in str(stopped.value)
    assert (len(fake.asked), clock.slept) == (2, [])


def test_a_prompt_that_alone_is_rejected_has_no_suggestions(fake):
    policy = completions(fake, Time(), max_concurrent=1)
    fake.troubles = [(400, {}, {"error": {"message": "too long"}})]
    assert [len(suggestions) for suggestions in policy(STATES[1:], 3)] == [0, 3, 3]
    assert policy.missed == [f"{fake.url}/completions: HTTP 400: too long"]
    assert len(policy(STATES[1:2], 3)[0]) == 3
    fake.troubles = [(400, {}, {"error": {"message": "no model is loaded"}})] * 2
    with pytest.raises(ValueError, match="no model is loaded"):
        policy(STATES[:1], 3)


def test_ctrl_c_does_not_wait_for_requests(fake):
    release, answer, main = threading.Event(), fake.answer, threading.main_thread().ident
    interrupted = threading.Lock()

    def interrupt(*request):
        """Press Ctrl-C on the first request; answer none before the test ends."""
        if interrupted.acquire(blocking=False):
            signal.pthread_kill(main, signal.SIGINT)
        release.wait(600)
        return answer(*request)

    fake.answer = interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest workers ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            completions(fake, timeout_seconds=600.0)(STATES, 3)
        assert fake.asked == []
    finally:
        release.set()
        signal.signal(signal.SIGINT, before)


def test_the_breaker_opens_pauses_and_closes(fake):
    clock = Time()
    policy = completions(fake, clock, retries=1, breaker_failures=2, breaker_cooldown_seconds=30.0, max_concurrent=1)
    fake.down = True
    assert policy(STATES[:1], 3) == [[]]
    assert len(policy.missed) == 1
    with pytest.raises(
        ConnectionError, match=r"completions: requests failed \(2 in a row, .* HTTP 503: no worker\); check"
    ) as stopped:
        policy(STATES[1:], 3)
    assert "\n" not in str(stopped.value)
    asked = len(fake.asked)
    assert asked == 4  # two requests with a retry each; none for the states after them
    clock.now += 29
    with pytest.raises(ConnectionError, match="requests resume after 30 seconds"):
        policy(STATES, 3)
    assert len(fake.asked) == asked
    clock.now += 2
    with pytest.raises(ConnectionError):  # the trial fails, so the circuit stays open
        policy(STATES, 3)
    with pytest.raises(ConnectionError):
        policy(STATES, 3)
    assert len(fake.asked) == asked + 2
    fake.down = False
    clock.now += 31
    assert [len(suggestions) for suggestions in policy(STATES, 3)] == [3] * 4
    fake.down = True
    assert policy([State((Goal("new"),))], 3) == [[]]  # failures are counted from 0 again
    assert len(policy.missed) == 2


def test_other_requests_wait_for_the_trial_request(fake):
    clock = Time()
    policy = completions(fake, clock, retries=0, breaker_failures=1, breaker_cooldown_seconds=30.0, max_concurrent=4)
    fake.down = True
    with pytest.raises(ConnectionError):
        policy(STATES, 3)
    asked = len(fake.asked)
    clock.now += 31
    with pytest.raises(ConnectionError):
        policy(STATES, 3)
    assert len(fake.asked) == asked + 1
    fake.down = False
    clock.now += 31
    assert [len(suggestions) for suggestions in policy(STATES, 3)] == [3] * 4


def test_an_unreachable_server_is_named():
    policy = Completions(
        Endpoint("http://127.0.0.1:9/v1", "m", breaker_failures=1), sleep=(clock := Time()).sleep, clock=clock
    )
    with pytest.raises(
        ConnectionError,
        match=r"^http://127.0.0.1:9/v1/completions: requests failed \(1 .*refused\); check that the server is running",
    ):
        policy(STATES[:1], 3)
    assert len(clock.slept) == 4


def test_a_request_that_times_out_is_repeated(fake):
    release, answer = threading.Event(), fake.answer
    fake.answer = lambda *request: (release.wait(600), answer(*request))[1]
    try:
        policy = completions(fake, timeout_seconds=0.05, retries=1, breaker_failures=1)
        with pytest.raises(ConnectionError, match="timed out"):
            policy(STATES[:1], 3)
    finally:
        release.set()


def test_the_timeout_covers_the_complete_answer(fake):
    """The socket's timeout restarts with each part. The clock here advances each time it is read."""
    ticks = iter(range(0, 1000, 10))
    policy = Completions(
        Endpoint(fake.url, "m", timeout_seconds=5.0, retries=0, breaker_failures=1), clock=lambda: next(ticks)
    )
    with pytest.raises(ConnectionError, match="timed out"):
        policy(STATES[:1], 3)


SECRET = "sk-very-secret-0123456789"


def test_the_key_is_in_the_header_and_nowhere_else(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("MONGE_TEST_KEY", SECRET)
    policy = completions(
        fake, api_key_variable="MONGE_TEST_KEY", cache_file=tmp_path / "cache", breaker_failures=1, retries=0
    )
    policy(STATES[:1], 3)
    assert [headers["Authorization"] for headers in fake.headers] == [f"Bearer {SECRET}"]
    assert SECRET not in json.dumps(fake.asked) + repr(policy.settings)
    assert SECRET.encode() not in (tmp_path / "cache").read_bytes()
    long = "x" * (300 - len(SECRET) // 2)
    for status, kind in ((401, ValueError), (500, ConnectionError)):
        for text in (f"Incorrect key: {SECRET}", f"{long}{SECRET}"):
            fake.troubles = [(status, {}, {"error": {"message": text}})]
            with pytest.raises(kind) as stopped:
                completions(fake, api_key_variable="MONGE_TEST_KEY", breaker_failures=1, retries=0)(STATES[1:2], 3)
            assert SECRET[:8] not in str(stopped.value)
    completions(fake)(STATES[:1], 3)
    assert "Authorization" not in fake.headers[-1]


def test_the_key_does_not_follow_a_redirection(fake, monkeypatch):
    monkeypatch.setenv("MONGE_TEST_KEY", SECRET)
    fake.troubles = [(302, {"Location": f"{fake.url}/elsewhere"}, {})]
    with pytest.raises(ValueError, match="HTTP 302"):
        completions(fake, api_key_variable="MONGE_TEST_KEY")(STATES[:1], 3)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("value", [None, "", "two\nlines-secret", "clé-secret"])
def test_a_variable_without_a_valid_key_is_named_and_its_value_is_not_shown(fake, monkeypatch, value):
    monkeypatch.delenv("MONGE_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MONGE_TEST_KEY", value)
    with pytest.raises(ValueError, match="the environment variable MONGE_TEST_KEY holds no key; set it") as stopped:
        completions(fake, api_key_variable="MONGE_TEST_KEY")(STATES[:1], 3)
    assert "secret" not in str(stopped.value)
    assert fake.asked == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"url": url}, "url must be")
            for url in ("localhost:80/v1", "ftp://a/v1", "http://u:secret@a/v1", "http://a/v1?k=secret")
        ),
        ({"url": "http://a/v1/chat/completions"}, "url must be a server's address up to its version"),
        ({"api_key_variable": "sk-secret"}, "api_key_variable must be the name of an environment variable"),
        ({"max_tokens": 0}, "max_tokens must be above 0, got 0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"temperature": math.nan}, "temperature must be at least 0, got nan"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message) as stopped:
        Endpoint(**{"url": "http://a/v1", "model": "m", **settings})
    assert "secret" not in str(stopped.value)
