"""The policy that asks a server, against a server in a thread that speaks both protocols. No test waits."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from monge.apps.prove.lm.completions import HOW, Completions
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.lm.memory import Memory
from monge.apps.prove.lm.prompt import prompt
from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

STATES = [State((Goal(f"{k} = {k}"),)) for k in range(4)]
SIMP = [(" ", -8.0), ("si", -0.5), ("mp", -0.25), ("\n", -16.0), ("rfl", -32.0)]
RFL = [("rfl", -2.0)]
OMEGA = [("by", -4.0), (" omega", -1.0), ("</s>", -64.0)]


class Fake:
    """A server that gives `answers`, each some tokens with log-probabilities, after the troubles queued in `troubles`."""

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
        says = self.chat if path == "/v1/chat/completions" else self.text
        return 200, {}, {"choices": [says(tokens, path, body) for tokens in chosen]}

    def text(self, tokens: list, path: str, body: dict) -> dict:
        assert path == "/v1/completions"
        assert isinstance(body["prompt"], str)
        names, logps = [t for t, _ in tokens], [p for _, p in tokens]
        said = {"tokens": names, "token_logprobs": logps}
        return {
            "text": "".join(names).removesuffix("</s>"),
            "logprobs": None if self.silent or "logprobs" not in body else said,
        }

    def chat(self, tokens: list, path: str, body: dict) -> dict:
        assert [m["role"] for m in body["messages"]] == ["user"]
        said = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in tokens]
        text = "".join(t for t, _ in tokens).removesuffix("</s>")
        return {
            "message": {"role": "assistant", "content": text},
            "logprobs": {"content": said} if body.get("logprobs") is True and not self.silent else None,
        }


@pytest.fixture
def fake() -> Iterator[Fake]:
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
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # of who hangs up, as a time-out does
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def completions(fake: Fake, time: Time | None = None, **settings) -> Completions:
    time = time or Time()
    return Completions(Endpoint(**{"url": fake.url, "model": "m", **settings}), sleep=time.sleep, clock=time)


@pytest.mark.parametrize("chat", [False, True])
def test_the_likeliest_first_with_the_log_probabilities_of_their_own_tokens(fake, chat):
    """Neither what comes before or after the tactic nor the end of the text counts."""
    said = completions(fake, chat=chat)(STATES[:2], 3)
    assert said == [[("simp", -0.75), ("omega", -1.0), ("rfl", -2.0)]] * 2
    assert all(isinstance(one, Suggestion) for one in said[0])
    written = {b["messages"][0]["content"] if chat else b["prompt"] for b in fake.asked}
    assert written == {prompt(state) for state in STATES[:2]}
    assert completions(fake, chat=chat)(STATES[:1], 2) == [[("simp", -0.75), ("rfl", -2.0)]]


@pytest.mark.parametrize("chat", [False, True])
def test_the_same_tactic_counts_once_as_likely_as_it_is_at_best(fake, chat):
    fake.answers = [[("simp", -3.0)], SIMP, [("simp", -1.0), ("\n", -0.5)], [("\n", -0.1)], RFL]
    assert completions(fake, chat=chat)(STATES[:1], 5) == [[("simp", -0.75), ("rfl", -2.0)]]


def test_tokens_that_hold_pieces_of_a_character_are_placed_by_bytes_or_offsets(fake):
    arrow = list("←".encode())
    tokens = [
        ("rw [", -1.0, None),
        ("\\x", -2.0, arrow[:1]),
        ("\\x", -4.0, arrow[1:]),
        ("h]\n", -8.0, None),
        ("rfl", -16.0, None),
    ]
    content = [{"token": t, "logprob": p, "bytes": b} for t, p, b in tokens]
    chosen = {"message": {"content": "rw [←h]\nrfl"}, "logprobs": {"content": content}}
    fake.troubles = [(200, {}, {"choices": [chosen]})]
    assert completions(fake, chat=True)(STATES[:1], 1) == [[("rw [←h]", -15.0)]]
    told = {"tokens": [t for t, _, _ in tokens], "token_logprobs": [p for _, p, _ in tokens]}
    for offsets, logp in (([7, 11, 11, 12, 15], -15.0), (None, -31.0)):  # without places all tokens count
        answer = {"text": "rw [←h]\nrfl", "logprobs": {**told, **({"text_offset": offsets} if offsets else {})}}
        fake.troubles = [(200, {}, {"choices": [answer]})]
        assert completions(fake)(STATES[:1], 1) == [[("rw [←h]", logp)]]


def test_a_server_that_gives_one_answer_at_a_time_is_asked_again(fake):
    fake.single = True
    assert completions(fake)(STATES[:1], 3) == [[("simp", -0.75), ("omega", -1.0), ("rfl", -2.0)]]
    assert [body["n"] for body in fake.asked] == [3, 2, 1]
    assert completions(fake, temperature=0.0)(STATES[:1], 3) == [[("simp", -0.75)]]
    assert len(fake.asked) == 4


def test_a_server_that_gives_nothing_is_not_asked_for_ever(fake):
    fake.answers = []
    assert completions(fake)(STATES[:1], 3) == [[]]
    assert len(fake.asked) == 3


@pytest.mark.parametrize("chat", [False, True])
def test_without_log_probabilities_there_is_no_policy_unless_uniform_is_asked_for(fake, chat):
    fake.silent = True
    with pytest.raises(ValueError, match=r"completions: m came without log-probabilities; .* set uniform") as stopped:
        completions(fake, chat=chat)(STATES[:1], 3)
    assert fake.url in str(stopped.value)
    fake.answers = [SIMP, RFL, SIMP]
    (said,) = completions(fake, chat=chat, uniform=True)(STATES[:1], 3)
    assert said == [("simp", -math.log(2)), ("rfl", -math.log(2))]
    assert "logprobs" not in fake.asked[-1]


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
    completions(fake, other, wait=1.0, seed=1)(STATES[:1], 3)
    assert other.slept != time.slept


def test_the_wait_that_a_server_asks_for_is_kept(fake):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 40))
    fake.troubles, clock = [(429, {"Retry-After": "20"}, {}), (503, {"Retry-After": date}, {})], Time()
    completions(fake, clock, longest=50.0)(STATES[:1], 3)
    assert clock.slept[0] == 20
    assert 35 < clock.slept[1] <= 40
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
    fake.troubles, clock = [(400, {}, payload)], Time()
    with pytest.raises(ValueError, match=said) as stopped:
        completions(fake, clock)(STATES[:1], 3)
    assert str(stopped.value).startswith(f"{fake.url}/completions: ")
    assert "\n" not in str(stopped.value)
    assert (len(fake.asked), clock.slept) == (1, [])


@pytest.mark.parametrize("payload", [b"hello", [], {"choices": None}, {"choices": [{"txt": "a"}]}, {"choices": ["a"]}])
def test_an_answer_of_another_kind_is_named(fake, payload):
    fake.troubles = [(200, {}, payload)]
    with pytest.raises(ValueError, match=r"/v1/completions: .*OpenAI-compatible"):
        completions(fake)(STATES[:1], 3)


def test_the_breaker_opens_rests_and_closes(fake):
    clock = Time()
    policy = completions(fake, clock, retries=1, breaker=2, rest=30.0, workers=1)
    fake.down = True
    assert policy(STATES[:1], 3) == [[]]
    assert policy.lost == 1
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
    assert policy.lost == 4


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


def test_what_had_come_before_a_request_was_lost_is_said_and_not_kept(fake):
    fake.single = True
    fake.troubles = [
        (200, {}, {"choices": [fake.text(RFL, "/v1/completions", {"prompt": "", "logprobs": 1})]}),
        (500, {}, {}),
    ]
    policy = completions(fake, retries=0)
    assert policy(STATES[:1], 2) == [[("rfl", -2.0)]]
    assert len(policy(STATES[:1], 2)[0]) == 2


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
    fake.answer = lambda *said: (release.wait(5), answer(*said))[1]
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


def test_a_state_is_asked_for_once(fake):
    policy = completions(fake)
    first = policy([STATES[0], STATES[1], STATES[0]], 3)
    first[0].clear()  # what is done to an answer is not done to the next
    assert [len(said) for said in policy([STATES[1], STATES[0]], 3)] == [3, 3]
    assert len(fake.asked) == 2
    policy(STATES[:1], 2)
    assert len(fake.asked) == 3


def test_memory_is_bounded_and_keeps_what_was_used_last(fake):
    policy = completions(fake, remembered=2)
    for k in (0, 1, 0, 2, 0):
        policy([STATES[k]], 3)
    assert len(fake.asked) == 3
    policy([STATES[1]], 3)
    assert len(fake.asked) == 4


CHANGES = {"model": "other", "chat": True, "temperature": 0.5, "top_p": 0.5, "max_tokens": 7, "uniform": True}


def test_a_file_answers_for_another_object_with_the_same_settings_only(fake, tmp_path, monkeypatch):
    path = tmp_path / "new" / "cache.sqlite"
    first = completions(fake, cache=path)(STATES, 3)
    other = completions(fake, cache=path, remembered=0, seconds=9.0, seed=5, workers=2, retries=9)
    assert other(STATES, 3) == other(STATES, 3) == first
    assert len(fake.asked) == len(STATES)
    fake.asked.clear()
    assert {*CHANGES, *HOW, "url"} == {field.name for field in fields(Endpoint)}
    for name, value in {**CHANGES, "url": f"{fake.url}/"}.items():
        completions(fake, cache=path, **{name: value})(STATES[:1], 3)
    assert len(fake.asked) == len(CHANGES) + 1
    monkeypatch.setattr("monge.apps.prove.lm.completions.fingerprint", lambda: "another")
    completions(fake, cache=path)(STATES[:1], 3)
    assert len(fake.asked) == len(CHANGES) + 2


FILL = """
import sys
from pathlib import Path
from monge.apps.prove.lm.memory import Memory
from monge.apps.prove.tree import Suggestion
memory = Memory(0, Path(sys.argv[1]))
for k in range(20):
    memory.put(str(k), [Suggestion(f"tactic {k}", -0.1 * k)])
    memory.put(f"{sys.argv[2]} {k}", [Suggestion("own", -1.0)])
"""


def test_processes_share_a_file(tmp_path):
    path = tmp_path / "cache"
    running = [subprocess.Popen([sys.executable, "-c", FILL, str(path), str(number)]) for number in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = Memory(0, path)
    assert all(found.get(str(k)) == [(f"tactic {k}", -0.1 * k)] for k in range(20))
    assert all(found.get(f"{n} {k}") == [("own", -1.0)] for n in range(3) for k in range(20))
    assert found.get("none") is None


def test_a_file_that_is_no_cache_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_text("theorem t : True := trivial\n" * 100)
    with pytest.raises(ValueError, match=r"x: no cache of suggestions .*; delete it or name another"):
        Memory(3, path)


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


def test_halves_of_characters_do_not_reach_lean(fake):
    fake.answers = [[("simp \ud83d", -1.0)]]
    ((said,),) = completions(fake)(STATES[:1], 1)
    said.tactic.encode()
    assert said == ("simp ?", -1.0)
