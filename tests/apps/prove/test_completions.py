"""The policy that queries a server: how it reads answers and caches suggestions. No test waits."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest
from speaker import RFL, SIMP, STATES, completions

from monge.apps.prove.lm.cache import SuggestionCache
from monge.apps.prove.lm.completions import SETTINGS_NOT_IN_KEY
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.lm.prompt import Style, prompt
from monge.apps.prove.state import Goal, Hypothesis, State
from monge.apps.prove.tree import Suggestion


@pytest.mark.parametrize("chat", [False, True])
def test_suggestions_are_sorted_by_the_log_probabilities_of_their_own_tokens(fake, chat):
    """Tokens before or after the tactic and the end of the text do not count."""
    suggestions = completions(fake, chat=chat)(STATES[:2], 3)
    assert suggestions == [[("simp", -0.75), ("omega", -1.0), ("rfl", -2.0)]] * 2
    assert all(isinstance(one, Suggestion) for one in suggestions[0])
    written = {b["messages"][0]["content"] if chat else b["prompt"] for b in fake.asked}
    assert written == {prompt(state) for state in STATES[:2]}
    assert completions(fake, chat=chat)(STATES[:1], 2) == [[("simp", -0.75), ("rfl", -2.0)]]


@pytest.mark.parametrize("chat", [False, True])
def test_the_same_tactic_counts_once_with_its_highest_likelihood(fake, chat):
    fake.answers = [[("simp", -3.0)], SIMP, [("simp", -1.0), ("\n", -0.5)], [("\n", -0.1)], RFL]
    assert completions(fake, chat=chat)(STATES[:1], 5) == [[("simp", -0.75), ("rfl", -2.0)]]


def test_tokens_that_hold_parts_of_a_character_are_located_by_bytes_or_offsets(fake):
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
    logprobs = {"tokens": [t for t, _, _ in tokens], "token_logprobs": [p for _, p, _ in tokens]}
    for offsets, logp in (([7, 11, 11, 12, 15], -15.0), (None, -31.0)):  # without positions all tokens count
        answer = {"text": "rw [←h]\nrfl", "logprobs": {**logprobs, **({"text_offset": offsets} if offsets else {})}}
        fake.troubles = [(200, {}, {"choices": [answer]})]
        assert completions(fake)(STATES[:1], 1) == [[("rw [←h]", logp)]]


def test_prompts_have_the_form_that_the_model_was_trained_with(fake):
    states = [State((Goal(f"{x} = 0", (Hypothesis(x, "N", False),)), Goal("True"))) for x in "ab"]
    fake.answers = [[("exact v1", -1.0)], [("exact v2", -2.0)]]
    policy = completions(fake, style=Style("first", "numbered"))
    assert policy(states, 2) == [[("exact a", -1.0)], [("exact b", -1.0)]]
    assert [body["prompt"] for body in fake.asked] == [prompt("v1 : N\n⊢ v1 = 0")]


def test_a_server_that_gives_one_answer_at_a_time_gets_more_requests(fake):
    fake.single = True
    assert completions(fake)(STATES[:1], 3) == [[("simp", -0.75), ("omega", -1.0), ("rfl", -2.0)]]
    assert [body["n"] for body in fake.asked] == [3, 2, 1]
    assert completions(fake, temperature=0.0)(STATES[:1], 3) == [[("simp", -0.75)]]
    assert len(fake.asked) == 4


def test_a_server_without_answers_gets_a_limited_number_of_requests(fake):
    fake.answers = []
    assert completions(fake)(STATES[:1], 3) == [[]]
    assert len(fake.asked) == 3


@pytest.mark.parametrize("chat", [False, True])
def test_missing_log_probabilities_are_an_error_unless_uniform_is_set(fake, chat):
    fake.silent = True
    with pytest.raises(ValueError, match=r"completions: m sent no valid log-probabilities; .* set uniform") as stopped:
        completions(fake, chat=chat)(STATES[:1], 3)
    assert fake.url in str(stopped.value)
    fake.answers = [SIMP, RFL, SIMP]
    (suggestions,) = completions(fake, chat=chat, uniform=True)(STATES[:1], 3)
    assert suggestions == [("simp", -math.log(2)), ("rfl", -math.log(2))]
    assert "logprobs" not in fake.asked[-1]


def test_an_answer_without_log_probabilities_is_dropped_and_requested_again(fake):
    policy = completions(fake)
    policy(STATES[:1], 3)
    fake.answers = [[("omega", math.nan)], RFL]
    assert policy(STATES[1:2], 2) == [[("rfl", -2.0)]]
    assert policy.missed == ["an answer had no valid log-probabilities"] * 2


def test_the_seed_determines_the_samples(fake, tmp_path):
    """Other seeds give other samples, cached separately; at temperature 0 the seed has no effect."""

    def seeds(**fields) -> list:
        fake.asked.clear()
        for seed in (0, 1, 1):
            completions(fake, None, seed, cache_file=tmp_path / "cache", **fields)(STATES[:2], 3)
        return [body.get("seed") for body in fake.asked]

    assert len(set(seeds())) == 4
    assert seeds(temperature=0.0) == [None, None]
    assert seeds(send_seed=False) == [None] * 4


def test_lone_surrogates_do_not_reach_lean(fake):
    fake.answers = [[("simp \ud83d", -1.0)]]
    ((suggestion,),) = completions(fake)(STATES[:1], 1)
    suggestion.tactic.encode()
    assert suggestion == ("simp ?", -1.0)


@pytest.mark.parametrize("payload", [b"hello", [], {"choices": None}, {"choices": [{"txt": "a"}]}, {"choices": ["a"]}])
def test_an_answer_in_another_format_is_an_error(fake, payload):
    fake.troubles = [(200, {}, payload)]
    with pytest.raises(ValueError, match=r"/v1/completions: .*OpenAI-compatible"):
        completions(fake)(STATES[:1], 3)


def test_answers_received_before_a_request_is_lost_are_used_and_not_cached(fake):
    fake.single = True
    fake.troubles = [
        (200, {}, {"choices": [fake.text(RFL, "/v1/completions", {"prompt": "", "logprobs": 1})]}),
        (500, {}, {}),
    ]
    policy = completions(fake, retries=0)
    assert policy(STATES[:1], 2) == [[("rfl", -2.0)]]
    assert len(policy(STATES[:1], 2)[0]) == 2


def test_each_state_is_requested_once(fake):
    policy = completions(fake)
    first = policy([STATES[0], STATES[1], STATES[0]], 3)
    first[0].clear()  # changing a result does not change the cached one
    assert [len(suggestions) for suggestions in policy([STATES[1], STATES[0]], 3)] == [3, 3]
    assert len(fake.asked) == 2
    policy(STATES[:1], 2)
    assert len(fake.asked) == 3


def test_memory_is_bounded_and_keeps_the_most_recently_used(fake):
    policy = completions(fake, cache_size=2)
    for k in (0, 1, 0, 2, 0):
        policy([STATES[k]], 3)
    assert len(fake.asked) == 3
    policy([STATES[1]], 3)
    assert len(fake.asked) == 4


CHANGES = {
    "model": "other",
    "chat": True,
    "send_seed": False,
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 7,
    "uniform": True,
}


def test_a_cache_file_is_reused_with_the_same_settings_only(fake, tmp_path, monkeypatch):
    path = tmp_path / "new" / "cache.sqlite"
    first = completions(fake, cache_file=path)(STATES, 3)
    other = completions(fake, cache_file=path, cache_size=0, timeout_seconds=9.0, max_concurrent=2, retries=9)
    assert other(STATES, 3) == other(STATES, 3) == first
    assert len(fake.asked) == len(STATES)
    fake.asked.clear()
    assert {*CHANGES, *SETTINGS_NOT_IN_KEY, "url"} == {field.name for field in fields(Endpoint)}
    for name, value in {**CHANGES, "url": f"{fake.url}/"}.items():
        completions(fake, cache_file=path, **{name: value})(STATES[:1], 3)
    assert len(fake.asked) == len(CHANGES) + 1
    monkeypatch.setattr("monge.apps.prove.lm.completions.fingerprint", lambda: "another")
    completions(fake, cache_file=path)(STATES[:1], 3)
    assert len(fake.asked) == len(CHANGES) + 2


FILL = """
import sys
from pathlib import Path
from monge.apps.prove.lm.cache import SuggestionCache
from monge.apps.prove.tree import Suggestion
memory = SuggestionCache(0, Path(sys.argv[1]))
for k in range(20):
    memory.put(str(k), [Suggestion(f"tactic {k}", -0.1 * k)])
    memory.put(f"{sys.argv[2]} {k}", [Suggestion("own", -1.0)])
"""


def test_processes_share_a_file(tmp_path):
    path = tmp_path / "cache"
    running = [subprocess.Popen([sys.executable, "-c", FILL, str(path), str(number)]) for number in range(3)]
    assert [process.wait(600) for process in running] == [0, 0, 0]
    cache = SuggestionCache(0, path)
    assert all(cache.get(str(k)) == [(f"tactic {k}", -0.1 * k)] for k in range(20))
    assert all(cache.get(f"{n} {k}") == [("own", -1.0)] for n in range(3) for k in range(20))
    assert cache.get("none") is None


def test_a_file_that_is_not_a_cache_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_text("theorem t : True := trivial\n" * 100)
    with pytest.raises(ValueError, match=r"x: not a cache of suggestions .*; delete it or choose another path"):
        SuggestionCache(3, path)
