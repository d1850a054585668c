"""Rounds of search and training: each searches the training theorems, trains a policy and an energy, and evaluates both.

OUT/   iteration.json   written/   fixed/ARM/   round-K/search-SHARE/   round-K/policy/   round-K/states/   round-K/energy/
       round-K/ARM/   report.md   report.json   report.png   steps.sqlite

Every step resumes from its own directory, and is skipped if it is complete.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from monge.apps.prove.arms import Arm
from monge.apps.prove.campaign import run
from monge.apps.prove.config import SearchConfig, Source
from monge.apps.prove.contamination import overlaps
from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.families import DATA, Entry
from monge.apps.prove.finetune import FineTune
from monge.apps.prove.lean.setup import installed
from monge.apps.prove.progress import report
from monge.apps.prove.sources import read
from monge.apps.prove.state import Budget
from monge.apps.prove.trajectories import Result, results
from monge.apps.prove.tree import Search
from monge.files import read_json, write_json
from monge.fleet import Fleet
from monge.math.random import split_of
from monge.runs import check_same, rebuild

ARMS = (
    Arm("template"),
    Arm("copy"),
    Arm("template+copy"),
    Arm("local"),
    Arm("template+local"),
    Arm("template+copy+local"),
    Arm("template+local", "energy"),
    Arm("template+local", order="random"),
)


@dataclass(frozen=True)
class Iteration:
    """Settings of all rounds. ValueError if one is out of range."""

    theorems: Path = DATA
    """A .lean file, a folder of them, or a .jsonl file, with theorems for training and for testing."""
    rounds: int = 3
    """Number of rounds; the first one searches the training theorems with the template alone."""
    limit: int | None = None
    """Maximum number of theorems of each split; None for all."""
    written: bool = True
    """Train on the written proofs of the training split too."""
    allow_overlap: bool = False
    """Accept training theorems that are nearly the same as a test theorem."""
    policy: str = "template+local"
    """Policy of the searches from the second round on."""
    warm_share: float = 0.25
    """Share of the training theorems that are searched at `warm_temperature`."""
    warm_temperature: float = 1.5
    """Sampling temperature of these searches; that of the others is in `search`."""
    search: SearchConfig = field(
        default_factory=lambda: SearchConfig(
            Search(num_tactics=32, max_states=16, batch_size=1, max_seconds=600.0, harvest=4), run="iteration"
        )
    )
    """Settings of all searches; those of test theorems are without harvesting."""
    finetune: FineTune = field(default_factory=FineTune)
    """Settings of the policy's training."""
    score_pairs: bool = False
    """From the second round on, give a smaller weight to pairs whose tactics the previous policy finds the least or the most
    likely (finetune.tails and finetune.tail_weight)."""
    energy: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the energy's training that differ from the defaults, as in StateEnergy; its `train` may be partial."""
    pooling: Literal["mean", "last"] = "mean"
    """Pooling of the embeddings."""
    max_length: int = 512
    """Maximum length of a state in tokens, for the embeddings."""
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    """Searches of the test theorems."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"rounds and limit must be at least 1, got {self.rounds}, {self.limit}")
        if not 0 <= self.warm_share <= 1 or not self.warm_temperature > 0:
            raise ValueError(
                f"warm_share must be between 0 and 1 and warm_temperature above 0, got {self.warm_share}, "
                f"{self.warm_temperature}"
            )
        if unknown := set(self.arms) - {arm.name for arm in ARMS}:
            raise ValueError(f"arms: unknown {min(unknown)}; use some of {', '.join(arm.name for arm in ARMS)}")
        if "copy" in replace(self.search, policy=self.policy).policies:
            raise ValueError(
                f"policy {self.policy}: copying is an arm only; it has no examples in the searches for training"
            )
        if self.score_pairs and (self.finetune.scored_by or self.finetune.retrieved):
            raise ValueError("score_pairs needs finetune.retrieved = 0, and no finetune.scored_by")
        _ = self.energy_recipe  # fails here if a setting is invalid

    @property
    def energy_recipe(self) -> StateEnergy:
        """The defaults with the settings in `energy`. ValueError if one is unknown or invalid."""
        try:
            return rebuild(StateEnergy, merged(asdict(StateEnergy()), self.energy))
        except (TypeError, ValueError) as error:
            raise ValueError(f"energy: {error}") from error

    @property
    def chosen(self) -> list[Arm]:
        """The arms, in the order of ARMS."""
        return [arm for arm in ARMS if arm.name in self.arms]


def read_settings(path: Path) -> Iteration:
    """The settings in a TOML file, which may be partial. ValueError if it is invalid."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `monge prove iterate --print-config` prints a valid one")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        return rebuild(Iteration, merged(json.loads(json.dumps(asdict(Iteration()), default=str)), given))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}; `monge prove iterate --print-config` prints a valid file") from error


def merged(defaults: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with the given values, recursively.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 5}})
    {'a': 1, 'b': {'c': 5, 'd': 3}}
    """
    result = dict(defaults)
    for name, value in given.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def toml(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the lines of a TOML file; None is left out.

    >>> list(toml({"a": 1, "b": {"c": "x", "d": None}}))
    ['a = 1', '', '[b]', 'c = "x"']
    """
    for name, value in settings.items():
        if value is not None and not isinstance(value, Mapping):
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield ""
            yield f"[{prefix}{name}]"
            yield from toml(value, f"{prefix}{name}.")


def text(settings: Iteration) -> str:
    """The settings as a TOML file, without the searches' run id and the fine-tuning's runs and pairs."""
    content = json.loads(json.dumps(asdict(settings), default=str))
    content["search"].pop("run")
    for name in ("runs", "pairs"):
        content["finetune"].pop(name)
    return "\n".join(toml(content)) + "\n"


class Round:
    """The directories and data of one round."""

    def __init__(self, settings: Iteration, out: Path, number: int) -> None:
        self.settings, self.out, self.number = settings, out, number
        self.directory = out / f"round-{number}"
        self.model = self.directory / "policy" / "model"

    @property
    def finetune(self) -> FineTune:
        """Settings of the policy's training, which scores the pairs by the previous policy if `score_pairs` is set."""
        if not self.settings.score_pairs or not self.number:
            return self.settings.finetune
        return replace(self.settings.finetune, scored_by=str(Round(self.settings, self.out, self.number - 1).model))

    @property
    def searches(self) -> dict[str, Path]:
        """The runs on training theorems: at the normal and at the warm temperature."""
        return {share: self.directory / f"search-{share}" for share in ("normal", "warm")}

    def data(self) -> list[Path]:
        """All runs to train on: written proofs, and the searches of this round and of earlier ones that have results."""
        rounds = [Round(self.settings, self.out, k) for k in range(self.number + 1)]
        runs = [self.out / "written"] * self.settings.written
        runs += [path for one in rounds for path in one.searches.values() if results(path)]
        return runs

    @property
    def arms(self) -> list[Arm]:
        """The arms that can be searched: those with an energy only if the round has one."""
        with_energy = "skipped" not in read_json(self.directory / "energy" / "energy.json")
        return [arm for arm in self.settings.chosen if arm.measure is None or with_energy]

    def arm(self, arm: Arm) -> Path:
        """The run of an arm on the test theorems."""
        return (self.out / "fixed" if arm.fixed else self.directory) / arm.path


class Pipeline:
    """Runs the searches and replays of all rounds. `say` is called with a line about each one that is not complete."""

    def __init__(
        self, settings: Iteration, out: Path, fleets: Callable[[], Fleet], *, say: Callable[[str], None] = print
    ) -> None:
        self.settings, self.out, self.fleets, self.say = settings, out, fleets, say
        self.train, self.test = self._entries()

    def _entries(self) -> tuple[list[Entry], list[Entry]]:
        """The theorems for training and for testing. ValueError if one set is empty, or if they overlap."""
        settings = self.settings
        lean = installed(settings.search.lean)
        readings = [read(settings.theorems, part, lean, limit=settings.limit) for part in ("train", "test")]
        for reading in readings:
            report(reading)
        train, test = (reading.entries for reading in readings)
        near = [] if settings.allow_overlap else list(overlaps(train, test))
        if near:
            raise ValueError(
                f"{len(near)} pairs of a training and a test theorem are nearly the same, such as {near[0].train} and "
                f"{near[0].test}; remove the training theorems, or set allow_overlap = true"
            )
        return train, test

    def open(self) -> None:
        """Write iteration.json, or check that it agrees. ValueError if `out` holds an iteration with other settings."""
        path = self.out / "iteration.json"
        wanted = json.loads(json.dumps({"iteration": asdict(self.settings)}, default=str))
        if path.exists():
            free = ("iteration.rounds", "iteration.arms", "iteration.search.cache")
            check_same(path, json.loads(path.read_text()), wanted, free=free)
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)

    def search(
        self, config: SearchConfig, entries: Sequence[Entry], out: Path, *, split: str, written: bool = False
    ) -> list[Result]:
        """A run of searches, resumed if it has begun."""
        if not entries:
            return []
        proofs = [entry.tactics for entry in entries] if written else ()
        theorems = [entry.theorem for entry in entries]
        done = len(results(out)) if out.is_dir() else 0
        if done < len(theorems):
            self.say(f"{out.relative_to(self.out)}: {len(theorems) - done} of {len(theorems)} theorems to do")
        source = Source(self.settings.theorems, split)
        return run(config, theorems, out, fleets=self.fleets, source=source, proofs=proofs, resume=done > 0)

    def named(self, config: SearchConfig, out: Path) -> SearchConfig:
        """The settings with an id for the run that depends on its directory alone, so that reports are reproducible, and with a
        cache of tactics in the iteration's directory unless they name one."""
        cache = config.cache or str(self.out / "steps.sqlite")
        return replace(config, cache=cache, run=out.relative_to(self.out).as_posix().replace("/", "."))

    def replay(self) -> None:
        """Replay the written proofs."""
        config = replace(
            self.settings.search, policy="written", budget=Budget(heartbeats=20_000, seconds=60.0, goals=64)
        )
        self.search(
            self.named(config, self.out / "written"), self.train, self.out / "written", split="train", written=True
        )

    def explore(self, one: Round) -> None:
        """Search the training theorems, a share of them at the warm temperature."""
        settings = self.settings
        shares = {"warm": settings.warm_share, "normal": 1 - settings.warm_share}
        parts: dict[str, list[Entry]] = {"normal": [], "warm": []}
        for entry in self.train:
            parts[split_of(f"{one.number} {entry.key}", shares)].append(entry)
        for share, entries in parts.items():
            config = replace(settings.search, search=replace(settings.search.search, seed=one.number))
            if one.number == 0:
                config = replace(config, policy="template")
            else:
                model = str(Round(settings, self.out, one.number - 1).model)
                sampling = config.local.sampling
                if share == "warm":
                    sampling = replace(sampling, temperature=settings.warm_temperature)
                config = replace(
                    config, policy=settings.policy, local=replace(config.local, name=model, sampling=sampling)
                )
            out = one.searches[share]
            self.search(self.named(config, out), entries, out, split="train")

    def evaluate(self, one: Round) -> dict[str, list[Result]]:
        """Search the test theorems with each arm, at equal budgets."""
        found: dict[str, list[Result]] = {}
        for arm in one.arms:
            out, config = one.arm(arm), self.settings.search
            examples = tuple(map(str, one.data()))  # copying has the data that the policy is trained on
            config = arm.config(config, model=str(one.model), energy=str(one.directory / "energy"), examples=examples)
            found[arm.name] = self.search(self.named(config, out), self.test, out, split="test")
        return found
