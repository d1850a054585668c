"""Tactics sampled from tiny language models, created by the tests, whose tokens are single letters."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from monge.apps.prove.lm.causal import Causal, Sampling
from monge.apps.prove.lm.prompt import prompt
from monge.apps.prove.policy import Policy
from monge.apps.prove.search import search
from monge.apps.prove.state import Failure, Goal, Proof, Rejection, State, Theorem
from monge.apps.prove.tree import Search, Suggestion
from monge.lm.load import LanguageModel, causal

END = "<end>"
STATES = [State((Goal(target),)) for target in ("a = b", "c", "abc = cba ∧ b = b", "b" * 150)]


def letters(alphabet: str):
    """A tokenizer of single characters; it maps unknown characters to its first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: k for k, letter in enumerate([*alphabet, END])}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token=alphabet[0]))
    rules.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    rules.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token=END)


def saved(path: Path, kind: str, alphabet: str = "abc", positions: int = 400) -> str:
    """The directory of a model with random weights, large enough that its answers differ in likelihood."""
    import transformers as t

    tokenizer, torch_state = letters(alphabet), torch.random.get_rng_state()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    end = len(alphabet)
    common = {"vocab_size": end + 1, "max_position_embeddings": positions, "bos_token_id": end, "eos_token_id": end}
    torch.manual_seed(1)
    if kind == "gpt2":
        # learned positions, tied embeddings
        config = t.GPT2Config(n_embd=16, n_layer=2, n_head=2, initializer_range=0.5, **common)
        model = t.GPT2LMHeadModel(config)
    elif kind == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(initializer_range=0.5, **sizes, **common))
    else:
        model = t.GPTNeoXForCausalLM(t.GPTNeoXConfig(initializer_range=0.5, use_cache=False, **sizes, **common))
    torch.random.set_rng_state(torch_state)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module", params=["gpt2", "llama", "neox"])
def model(request, tmp_path_factory) -> LanguageModel:
    return causal(saved(tmp_path_factory.mktemp("lm") / request.param, request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> LanguageModel:
    return causal(saved(tmp_path_factory.mktemp("lm") / "one", "llama"))


def policy(model: LanguageModel, seed: int = 0, **how) -> Causal:
    return Causal(model, generator=torch.Generator().manual_seed(seed), sampling=Sampling(**how))


def direct(model: LanguageModel, before: list[int], after: list[int]) -> float:
    """log p of the tokens in `after`, one at a time and without a cache."""
    total, ids = 0.0, list(before)
    for token in after:
        logits = model.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token].detach())
        ids.append(token)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 2.0},
        {"top_p": 0.9, "temperature": 1.5},
        {"replacement": False, "top_p": 0.9, "temperature": 1.5},
    ],
    ids=str,
)
def test_the_log_probability_is_that_of_the_tactic_and_its_end_whatever_the_temperature(model, how):
    results = policy(model, max_new_tokens=5, **how)(STATES, 6)
    for state, suggestions in zip(STATES, results, strict=True):
        before = model.tokenizer(prompt(state))["input_ids"]
        assert 1 <= len(suggestions) <= 6
        assert [one.logp for one in suggestions] == sorted((one.logp for one in suggestions), reverse=True)
        assert len({one.tactic for one in suggestions}) == len(suggestions)
        for tactic, logp in suggestions:
            end = [] if len(tactic) == 5 else [model.tokenizer.eos_token_id]
            assert logp == pytest.approx(direct(model, before, [*model.tokenizer(tactic)["input_ids"], *end]), abs=1e-4)
    lengths = {len(one.tactic) for suggestions in results for one in suggestions}
    assert min(lengths) < max(lengths) == 5


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [True, False])
def test_batching_changes_nothing(model, replacement):
    together = policy(model, max_new_tokens=5, tokens=100_000, replacement=replacement)(STATES, 5)
    for tokens in (1, 700):
        apart = policy(model, max_new_tokens=5, tokens=tokens, replacement=replacement)(STATES, 5)
        for one, other in zip(together, apart, strict=True):
            assert [s.tactic for s in one] == [s.tactic for s in other]
            assert [s.logp for s in one] == pytest.approx([s.logp for s in other], abs=1e-4)


def copying(tactics: Sequence[str]) -> Policy:
    """A policy that suggests the same tactics for each state."""
    return lambda states, limit: [[Suggestion(tactic, 0.0) for tactic in tactics][:limit] for _ in states]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_tactics_of_similar_states_are_ordered_by_the_model(kind, tmp_path):
    model, tactics = causal(saved(tmp_path, kind, alphabet="abc\n`")), ("ab", "c", "bca", "cb", "abcabc")
    for tokens in (1, 700, 100_000):
        sampling = Sampling(max_new_tokens=9, reranked=4, answers=False, tokens=tokens)
        settings = {"generator": torch.Generator().manual_seed(0), "sampling": sampling, "similar": copying(tactics)}
        for state, found in zip(STATES, Causal(model, **settings)(STATES, 3), strict=True):
            before = model.tokenizer(prompt(state))["input_ids"]
            expected = {one: direct(model, before, model.tokenizer(one + "\n")["input_ids"]) for one in tactics[:4]}
            order = sorted(expected, key=expected.__getitem__, reverse=True)
            assert [one.tactic for one in found] == order[:3]
            assert [one.logp for one in found] == pytest.approx([expected[one] for one in order[:3]], abs=1e-4)
    alone = Causal(model, **settings | {"sampling": replace(sampling, max_new_tokens=4)})(STATES, 50)
    assert all({one.tactic for one in found} == {"ab", "c", "cb"} for found in alone)  # bca is too long with its end
    both = Causal(model, **settings | {"sampling": replace(sampling, answers=True)})(STATES, 50)
    assert all({"ab", "c", "cb", "bca"} < {one.tactic for one in found} for found in both)


@pytest.mark.parametrize("replacement", [True, False])
def test_prompts_and_answers_in_a_cache_do_not_exceed_the_token_limit(llama, replacement):
    sizes = []
    hook = llama.model.register_forward_pre_hook(
        lambda _, arguments, named: sizes.append(len(named["input_ids"]) * named["attention_mask"].shape[-1]),
        with_kwargs=True,
    )
    policy(llama, max_new_tokens=5, tokens=600, replacement=replacement)(STATES, 6)
    hook.remove()
    assert 300 < max(sizes) <= 600


@pytest.mark.parametrize("replacement", [True, False])
def test_answers_share_their_prompt_and_their_common_prefixes(llama, replacement):
    passes = []
    hook = llama.model.register_forward_pre_hook(
        lambda _, arguments, named: passes.append(named["input_ids"].numel()), with_kwargs=True
    )
    policy(llama, max_new_tokens=3, replacement=replacement)(STATES[:1], 100)
    hook.remove()
    prompt_length = len(llama.tokenizer(prompt(STATES[0]))["input_ids"])
    assert (passes[0], len(passes)) == (prompt_length, 3)
    assert passes[1] <= 3  # three letters may follow the prompt, nine texts of two letters
    assert passes[2] <= 9


def test_only_the_generator_determines_the_samples(llama):
    before = torch.random.get_rng_state()
    first = policy(llama)
    suggestions = first(STATES, 4)
    assert policy(llama)(STATES, 4) == suggestions
    assert first(STATES, 4) != suggestions
    assert policy(llama, seed=1)(STATES, 4) != suggestions
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_sample_frequencies_match_the_probabilities(llama, temperature, top_p):
    draws = 1500
    ids = torch.tensor([llama.tokenizer(prompt(STATES[0]))["input_ids"]])
    p = (llama.model(input_ids=ids).logits[0, -1].detach() / temperature).softmax(-1)
    least = next(k for k in range(1, 5) if float(p.sort(descending=True).values[:k].sum()) >= top_p - 1e-6)
    p[p < p.sort(descending=True).values[least - 1]] = 0
    p /= p.sum()
    suggestions = policy(llama, max_new_tokens=1, temperature=temperature, top_p=top_p, tokens=100_000)(
        [STATES[0]] * draws, 1
    )
    seen = Counter(one[0].tactic if one else END for one in suggestions)
    for token, share in zip([*"abc", END], p.tolist(), strict=True):
        assert abs(seen[token] - draws * share) <= 4 * math.sqrt(draws * share * (1 - share)), token
    assert top_p == 1 or 0 in p.tolist()


@pytest.mark.slow
def test_samples_without_replacement_match_the_probabilities_of_pairs(llama):
    draws, temperature = 1500, 0.7
    ids = torch.tensor([llama.tokenizer(prompt(STATES[0]))["input_ids"]])
    p = (llama.model(input_ids=ids).logits[0, -1].detach() / temperature).softmax(-1).tolist()
    sampled = policy(llama, max_new_tokens=1, temperature=temperature, tokens=100_000, replacement=False)
    seen = Counter(frozenset(one.tactic for one in pair) for pair in sampled([STATES[0]] * draws, 2))
    for i, first in enumerate("abc"):
        for j, second in enumerate("abc"):
            share = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
            if i < j:
                off = abs(seen[frozenset((first, second))] - draws * share)
                assert off <= 4 * math.sqrt(draws * share * (1 - share)), (first, second)


@pytest.mark.slow
def test_pairs_of_longer_answers_are_sampled_without_replacement(llama):
    draws, before = 2000, llama.tokenizer(prompt(STATES[0]))["input_ids"]
    end, letter = llama.tokenizer.eos_token_id, {x: llama.tokenizer(x)["input_ids"] for x in "abc"}
    p = {x: math.exp(direct(llama, before, [*letter[x], end])) for x in "abc"}
    p |= {x + y: math.exp(direct(llama, before, letter[x] + letter[y])) for x in "abc" for y in "abc"}
    sampled = policy(llama, max_new_tokens=2, tokens=100_000, replacement=False)([STATES[0]] * draws, 2)
    seen = Counter(frozenset(one.tactic for one in pair) for pair in sampled)
    shares = {frozenset((i, j)): p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])) for i in p for j in p if i < j}
    common = {pair: share for pair, share in shares.items() if draws * share > 25}
    assert len(common) > 5
    for pair, share in common.items():
        assert abs(seen[pair] - draws * share) <= 4 * math.sqrt(draws * share * (1 - share)), pair


def test_without_replacement_all_answers_are_found(llama):
    (found,) = policy(llama, max_new_tokens=2, replacement=False)(STATES[:1], 13)
    assert sorted(one.tactic for one in found) == sorted([*"abc", *(x + y for x in "abc" for y in "abc")])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_prompt_that_is_too_long_keeps_its_end(tmp_path, kind):
    model = causal(saved(tmp_path, kind, positions=40))
    results = policy(model, max_new_tokens=6)(STATES[:2], 4)
    for state, suggestions in zip(STATES[:2], results, strict=True):
        before = model.tokenizer(prompt(state))["input_ids"][-34:]
        for tactic, logp in suggestions:
            end = [] if len(tactic) == 6 else [model.tokenizer.eos_token_id]
            assert logp == pytest.approx(direct(model, before, [*model.tokenizer(tactic)["input_ids"], *end]), abs=1e-4)
    with pytest.raises(ValueError, match=r"max_new_tokens is 40, but .* has only 40 positions for prompt and answer"):
        policy(model, max_new_tokens=40)


class Script(nn.Module):
    """A model that writes a fixed text, each letter with its own probability, and counts its steps."""

    def __init__(self, text: list[int], size: int, begin: int) -> None:
        super().__init__()
        self.config, self.begin, self.steps = SimpleNamespace(), begin, 0
        self.nothing = nn.Parameter(torch.zeros(1))
        self.p = torch.tensor([0.4 + 0.5 * k / len(text) for k in range(len(text))])
        self.table = torch.full((len(text), size), 0.0) + ((1 - self.p) / (size - 1))[:, None]
        self.table[torch.arange(len(text)), text] = self.p

    def forward(self, *, position_ids, **_):
        self.steps += 1
        place = (position_ids - self.begin + 1).clamp(0, len(self.p) - 1)
        return SimpleNamespace(logits=self.table.log()[place], past_key_values=MagicMock())


@pytest.mark.parametrize(
    ("text", "tactic", "counted", "steps"),
    [
        ("simp\nrfl\nrfl", "simp", "simp\n", 6),
        ("by\n  simp  \n  rfl", "simp", "simp  \n", 15),
        ("simp" + END, "simp", "simp" + END, 5),
        ("rfl\n" + END, "rfl", "rfl\n", 5),
        ("simp", "simp", "simp", 4),
        ("ca\n| i => rfl\n| r", "ca\n| i => rfl\n| r", "ca\n| i => rfl\n| r", 17),
        ("ca\n| i => rfl\nsimp", "ca\n| i => rfl", "ca\n| i => rfl\n", 15),
        ("  \n\n" + END, None, "", 5),
    ],
)
def test_the_tactic_and_the_end_of_its_line_count_and_sampling_stops_there(text, tactic, counted, steps):
    tokenizer = letters("simprflcaby =>|\n")
    ids = [*tokenizer(text.removesuffix(END))["input_ids"], *([tokenizer.eos_token_id] if text.endswith(END) else [])]
    script = Script(ids, len(tokenizer), len(tokenizer(prompt(STATES[0]))["input_ids"]))
    written = policy(LanguageModel("script", script, tokenizer), top_p=0.01, max_new_tokens=len(ids))
    (suggestions,) = written(STATES[:1], 2)
    if tactic is None:
        assert suggestions == []
    else:
        begin = text.index(counted)
        end = begin + len(counted.removesuffix(END)) + counted.endswith(END)
        assert suggestions == [(tactic, pytest.approx(float(script.p[begin:end].log().sum()), abs=1e-4))]
    assert script.steps == steps


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be above 0"),
        ({"tokens": 0}, "tokens must be above 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"reranked": -1}, "reranked must be at least 0"),
        ({"answers": False}, "reranked must be at least 0, and above 0 if answers is false, got 0"),
    ],
)
def test_invalid_sampling_settings_are_rejected(how, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**how)


def test_reranking_needs_tactics_of_similar_states(llama):
    with pytest.raises(ValueError, match="reranked is 4, but there are no tactics of similar states"):
        policy(llama, reranked=4)


class Countdown:
    """Proves n by subtracting the numbers that the tactics name."""

    def __init__(self, n: int) -> None:
        self.n = n

    def start(self) -> State:
        return State((Goal(str(self.n)),))

    def step(self, state: State, tactic: str) -> State | Failure:
        n = int(state.goals[0].target) - int(tactic)
        if n < 0:
            return Failure("tactic", "below zero")
        return State((Goal(str(n)),) if n else (), (*state.tactics, tactic))

    def finish(self, state: State) -> Proof | Rejection:
        return Proof(Theorem("toy", str(self.n)), state.tactics)


def test_a_search_proves_with_a_model_s_tactics(tmp_path):
    model = causal(saved(tmp_path, "llama", alphabet="13"))
    outcome = search(Countdown(17), policy(model, max_new_tokens=2), Search(max_states=100))
    assert outcome.ended == "proved"
    assert sum(map(int, outcome.proof.tactics)) == 17
    assert all(attempt.suggestion.logp < 0 for attempt in outcome.attempts)
