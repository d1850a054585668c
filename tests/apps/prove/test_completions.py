"""The policy that asks a server: what it reads in answers, and what it remembers of them. No test waits."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest
from speaker import RFL, SIMP, STATES, completions

from monge.apps.prove.lm.cache import SuggestionCache
from monge.apps.prove.lm.completions import HOW
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.lm.prompt import prompt
from monge.apps.prove.tree import Suggestion


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
    with pytest.raises(
        ValueError, match=r"completions: m came without valid log-probabilities; .* set uniform"
    ) as stopped:
        completions(fake, chat=chat)(STATES[:1], 3)
    assert fake.url in str(stopped.value)
    fake.answers = [SIMP, RFL, SIMP]
    (said,) = completions(fake, chat=chat, uniform=True)(STATES[:1], 3)
    assert said == [("simp", -math.log(2)), ("rfl", -math.log(2))]
    assert "logprobs" not in fake.asked[-1]


def test_an_answer_whose_log_probabilities_are_missing_is_left_out_and_asked_for_again(fake):
    policy = completions(fake)
    policy(STATES[:1], 3)
    fake.answers = [[("omega", math.nan)], RFL]
    assert policy(STATES[1:2], 2) == [[("rfl", -2.0)]]
    assert policy.missed == ["an answer came without valid log-probabilities"] * 2


def test_the_seed_draws(fake, tmp_path):
    """Other seeds are other draws, remembered apart; at temperature 0 nothing is drawn."""

    def seeds(**fields) -> list:
        fake.asked.clear()
        for seed in (0, 1, 1):
            completions(fake, None, seed, cache=tmp_path / "cache", **fields)(STATES[:2], 3)
        return [body.get("seed") for body in fake.asked]

    assert len(set(seeds())) == 4
    assert seeds(temperature=0.0) == [None, None]
    assert seeds(seeded=False) == [None] * 4


def test_halves_of_characters_do_not_reach_lean(fake):
    fake.answers = [[("simp \ud83d", -1.0)]]
    ((said,),) = completions(fake)(STATES[:1], 1)
    said.tactic.encode()
    assert said == ("simp ?", -1.0)


@pytest.mark.parametrize("payload", [b"hello", [], {"choices": None}, {"choices": [{"txt": "a"}]}, {"choices": ["a"]}])
def test_an_answer_of_another_kind_is_named(fake, payload):
    fake.troubles = [(200, {}, payload)]
    with pytest.raises(ValueError, match=r"/v1/completions: .*OpenAI-compatible"):
        completions(fake)(STATES[:1], 3)


def test_what_had_come_before_a_request_was_lost_is_said_and_not_kept(fake):
    fake.single = True
    fake.troubles = [
        (200, {}, {"choices": [fake.text(RFL, "/v1/completions", {"prompt": "", "logprobs": 1})]}),
        (500, {}, {}),
    ]
    policy = completions(fake, retries=0)
    assert policy(STATES[:1], 2) == [[("rfl", -2.0)]]
    assert len(policy(STATES[:1], 2)[0]) == 2


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


CHANGES = {
    "model": "other",
    "chat": True,
    "seeded": False,
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 7,
    "uniform": True,
}


def test_a_file_answers_for_another_object_with_the_same_settings_only(fake, tmp_path, monkeypatch):
    path = tmp_path / "new" / "cache.sqlite"
    first = completions(fake, cache=path)(STATES, 3)
    other = completions(fake, cache=path, remembered=0, seconds=9.0, workers=2, retries=9)
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
    found = SuggestionCache(0, path)
    assert all(found.get(str(k)) == [(f"tactic {k}", -0.1 * k)] for k in range(20))
    assert all(found.get(f"{n} {k}") == [("own", -1.0)] for n in range(3) for k in range(20))
    assert found.get("none") is None


def test_a_file_that_is_no_cache_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_text("theorem t : True := trivial\n" * 100)
    with pytest.raises(ValueError, match=r"x: no cache of suggestions .*; delete it or name another"):
        SuggestionCache(3, path)
