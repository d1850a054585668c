"""The way to a server: trouble that passes or does not, the circuit breaker, keys. No test waits."""

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
def test_trouble_that_passes_is_waited_for_longer_each_time(fake, trouble):
    fake.troubles, time = [trouble] * 3, Time()
    (said,) = completions(fake, time, wait=1.0)(STATES[:1], 3)
    assert len(said) == 3
    first, second, third = time.slept
    assert 0.5 <= first <= 1.5
    assert 1 <= second <= 3
    assert 2 <= third <= 6
    fake.troubles, again = [trouble] * 3, Time()
    completions(fake, again, wait=1.0)(STATES[:1], 3)
    assert again.slept == time.slept
    fake.troubles, other = [trouble] * 3, Time()
    completions(fake, other, 1, wait=1.0)(STATES[:1], 3)
    assert other.slept != time.slept


def test_the_wait_that_a_server_asks_for_is_kept(fake, monkeypatch):
    now = time.time()
    monkeypatch.setattr("monge.apps.prove.lm.endpoint.time.time", lambda: now)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + 40))
    fake.troubles, clock = [(429, {"Retry-After": "20"}, {}), (503, {"Retry-After": date}, {})], Time()
    completions(fake, clock, longest=50.0)(STATES[:1], 3)
    assert clock.slept[0] == 20
    assert 39 <= clock.slept[1] <= 40
    fake.troubles, clock = [(429, {"Retry-After": "3600"}, {"error": "come tomorrow"})], Time()
    policy = completions(fake, clock, longest=50.0, breaker=1)
    with pytest.raises(ConnectionError, match="HTTP 429: come tomorrow"):
        policy(STATES[:1], 3)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"error": {"message": "n is\ntoo large"}}, "HTTP 400: n is too large"),
        ({"object": "error", "message": "unknown model"}, "HTTP 400: unknown model"),
        ({"detail": "no such route"}, "HTTP 400: no such route"),
        (b"<html>", "HTTP 400: <html>"),
        (b"", "HTTP 400: Bad Request"),
    ],
)
def test_what_is_refused_is_said_at_once(fake, payload, said):
    """Of a server that refuses the plainest prompt too."""
    fake.troubles, clock = [(400, {}, payload)] * 2, Time()
    with pytest.raises(ValueError, match=said) as stopped:
        completions(fake, clock)(STATES[:1], 3)
    assert str(stopped.value).startswith(f"{fake.url}/completions: ")
    assert "\n" not in str(stopped.value)
    assert (len(fake.asked), clock.slept) == (2, [])


def test_a_prompt_that_a_server_refuses_and_answers_others_has_no_suggestions(fake):
    policy = completions(fake, Time(), workers=1)
    fake.troubles = [(400, {}, {"error": {"message": "too long"}})]
    assert [len(said) for said in policy(STATES[1:], 3)] == [0, 3, 3]
    assert policy.missed == [f"{fake.url}/completions: HTTP 400: too long"]
    assert len(policy(STATES[1:2], 3)[0]) == 3
    fake.troubles = [(400, {}, {"error": {"message": "no model is loaded"}})] * 2
    with pytest.raises(ValueError, match="no model is loaded"):
        policy(STATES[:1], 3)


def test_ctrl_c_waits_for_no_request(fake):
    release, answer, main = threading.Event(), fake.answer, threading.main_thread().ident
    interrupted = threading.Lock()

    def interrupt(*said):
        """Press Ctrl-C on the first request; answer none before the test ends."""
        if interrupted.acquire(blocking=False):
            signal.pthread_kill(main, signal.SIGINT)
        release.wait(600)
        return answer(*said)

    fake.answer = interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            completions(fake, seconds=600.0)(STATES, 3)
        assert fake.asked == []
    finally:
        release.set()
        signal.signal(signal.SIGINT, before)


def test_the_breaker_opens_rests_and_closes(fake):
    clock = Time()
    policy = completions(fake, clock, retries=1, breaker=2, rest=30.0, workers=1)
    fake.down = True
    assert policy(STATES[:1], 3) == [[]]
    assert len(policy.missed) == 1
    with pytest.raises(
        ConnectionError, match=r"completions: requests fail, 2 in a row, .* HTTP 503: no worker; see"
    ) as stopped:
        policy(STATES[1:], 3)
    assert "\n" not in str(stopped.value)
    asked = len(fake.asked)
    assert asked == 4  # each with its retry; the states after the second request were not asked for
    clock.now += 29
    with pytest.raises(ConnectionError, match="asked again after 30 seconds"):
        policy(STATES, 3)
    assert len(fake.asked) == asked
    clock.now += 2
    with pytest.raises(ConnectionError):  # the trial fails: left alone again
        policy(STATES, 3)
    with pytest.raises(ConnectionError):
        policy(STATES, 3)
    assert len(fake.asked) == asked + 2
    fake.down = False
    clock.now += 31
    assert [len(said) for said in policy(STATES, 3)] == [3] * 4
    fake.down = True
    assert policy([State((Goal("new"),))], 3) == [[]]  # one failure is one again
    assert len(policy.missed) == 2


def test_while_one_request_tries_the_others_wait_for_it(fake):
    clock = Time()
    policy = completions(fake, clock, retries=0, breaker=1, rest=30.0, workers=4)
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
    assert [len(said) for said in policy(STATES, 3)] == [3] * 4


def test_a_server_that_is_not_there_is_named():
    policy = Completions(Endpoint("http://127.0.0.1:9/v1", "m", breaker=1), sleep=(clock := Time()).sleep, clock=clock)
    with pytest.raises(
        ConnectionError,
        match=r"^http://127.0.0.1:9/v1/completions: requests fail, 1 .*refused; see that the server runs",
    ):
        policy(STATES[:1], 3)
    assert len(clock.slept) == 4


def test_a_server_that_does_not_answer_in_time_is_asked_again(fake):
    release, answer = threading.Event(), fake.answer
    fake.answer = lambda *said: (release.wait(600), answer(*said))[1]
    try:
        policy = completions(fake, seconds=0.05, retries=1, breaker=1)
        with pytest.raises(ConnectionError, match="timed out"):
            policy(STATES[:1], 3)
    finally:
        release.set()


def test_an_answer_that_comes_in_drips_is_not_waited_for_for_ever(fake):
    """The socket's time-out begins anew with each part; the clock here jumps with each look at it."""
    ticks = iter(range(0, 1000, 10))
    policy = Completions(Endpoint(fake.url, "m", seconds=5.0, retries=0, breaker=1), clock=lambda: next(ticks))
    with pytest.raises(ConnectionError, match="timed out"):
        policy(STATES[:1], 3)


SECRET = "sk-very-secret-0123456789"


def test_the_key_is_in_the_header_and_nowhere_else(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("MONGE_TEST_KEY", SECRET)
    policy = completions(fake, key_variable="MONGE_TEST_KEY", cache=tmp_path / "cache", breaker=1, retries=0)
    policy(STATES[:1], 3)
    assert [headers["Authorization"] for headers in fake.headers] == [f"Bearer {SECRET}"]
    assert SECRET not in json.dumps(fake.asked) + repr(policy.settings)
    assert SECRET.encode() not in (tmp_path / "cache").read_bytes()
    long = "x" * (300 - len(SECRET) // 2)
    for status, kind in ((401, ValueError), (500, ConnectionError)):
        for text in (f"Incorrect key: {SECRET}", f"{long}{SECRET}"):
            fake.troubles = [(status, {}, {"error": {"message": text}})]
            with pytest.raises(kind) as stopped:
                completions(fake, key_variable="MONGE_TEST_KEY", breaker=1, retries=0)(STATES[1:2], 3)
            assert SECRET[:8] not in str(stopped.value)
    completions(fake)(STATES[:1], 3)
    assert "Authorization" not in fake.headers[-1]


def test_the_key_does_not_follow_a_redirection(fake, monkeypatch):
    monkeypatch.setenv("MONGE_TEST_KEY", SECRET)
    fake.troubles = [(302, {"Location": f"{fake.url}/elsewhere"}, {})]
    with pytest.raises(ValueError, match="HTTP 302"):
        completions(fake, key_variable="MONGE_TEST_KEY")(STATES[:1], 3)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("value", [None, "", "two\nlines-secret", "clé-secret"])
def test_a_variable_that_holds_no_key_is_named_and_not_shown(fake, monkeypatch, value):
    monkeypatch.delenv("MONGE_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MONGE_TEST_KEY", value)
    with pytest.raises(ValueError, match="the environment variable MONGE_TEST_KEY holds no key; set it") as stopped:
        completions(fake, key_variable="MONGE_TEST_KEY")(STATES[:1], 3)
    assert "secret" not in str(stopped.value)
    assert fake.asked == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(
            ({"url": url}, "url must be")
            for url in ("localhost:80/v1", "ftp://a/v1", "http://u:secret@a/v1", "http://a/v1?k=secret")
        ),
        ({"url": "http://a/v1/chat/completions"}, "url must be a server's address up to its version"),
        ({"key_variable": "sk-secret"}, "key_variable must be the name of an environment variable"),
        ({"max_tokens": 0}, "max_tokens must be above 0, got 0"),
        ({"retries": -1}, "retries must not be below 0, got -1"),
        ({"temperature": math.nan}, "temperature must not be below 0, got nan"),
    ],
)
def test_settings_that_ask_nothing_are_refused(settings, said):
    with pytest.raises(ValueError, match=said) as stopped:
        Endpoint(**{"url": "http://a/v1", "model": "m", **settings})
    assert "secret" not in str(stopped.value)
