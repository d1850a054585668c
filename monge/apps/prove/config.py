"""Settings of a search run: everything that decides its results."""

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from monge.apps.prove.lean.setup import embedded_lean, installed
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.lm.causal import Sampling
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.lm.prompt import PLAIN, Style
from monge.apps.prove.policy import PROBES
from monge.apps.prove.state import Budget, Limits
from monge.apps.prove.tree import Search
from monge.files import read_json
from monge.runs import rebuild

POLICIES = ("template", "probes", "copy", "server", "local", "written")
"""Sources of tactics: a template that reads the goal, a list of probe tactics, tactics of similar states in earlier runs, a
model server, a local model, or the proofs in the files."""
Measure = Literal["energy", "depth", "shuffled", "noise"]


@dataclass(frozen=True)
class Local:
    """A Hugging Face model on this machine, loaded by each worker."""

    name: str = ""
    """Directory of the model, or its name on the Hugging Face hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the model's weights."""
    device: str = "cpu"
    """Device of the model, such as cpu or cuda:0."""
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class SearchConfig:
    """All settings that decide the results of a run."""

    search: Search = field(default_factory=Search)
    budget: Budget = field(default_factory=Budget)
    policy: str = "template"
    """Source of tactics: one of POLICIES, or several joined by +, such as template+local, each with an equal share."""
    examples: tuple[str, ...] = ()
    """Runs whose proofs `--policy copy` takes tactics from."""
    tactics: tuple[str, ...] = PROBES
    """Tactics that `--policy probes` tries on each state, most likely first. `search` and `probe` leave out those that Lean
    cannot parse."""
    server: Endpoint = field(default_factory=Endpoint)
    prompt: Style = PLAIN
    """Form of the prompts for `server`: as its model was trained. A local model's config.json has its own."""
    local: Local = field(default_factory=Local)
    energy: str = ""
    """Run directory of `monge prove energy`, whose energy orders the states; empty for none."""
    energy_measure: Measure = "energy"
    """Number that counts as energy: the energy by the run in `energy` (energy), that run's estimate of log(1 + remaining depth)
    (depth), or, as controls, its energy of another state (shuffled) or a sample of a standard normal distribution (noise)."""
    embeddings: Endpoint | None = None
    """Server of `monge prove serve-embeddings` that embeds the states for the energy; None to embed them in each worker."""
    lean: str = ""
    """Command of an installed Lean; empty for the WebAssembly build."""
    cache: str = ""
    """SQLite file in which searches store the results of tactics, and from which later searches of the same theorems read them;
    empty for none. Times with and without a cache are not comparable. Change it with the libraries of an installed Lean."""
    limits: Limits = field(default_factory=Limits)
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """Prefix of the ids of states: random; in an iteration, the run's directory; in an evaluation, the arm and the seed."""

    def __post_init__(self) -> None:
        if self.cache:
            object.__setattr__(self, "cache", str(Path(self.cache).resolve()))
        for name in self.policies:
            if name not in POLICIES:
                raise ValueError(
                    f"--policy {self.policy}: unknown; use one of {', '.join(POLICIES)}, or join some by +"
                )
        if self.search.num_tactics < len(self.policies):
            raise ValueError(f"--policy {self.policy} needs --num-tactics {len(self.policies)} or more")
        if self.prompt.retrieved:
            raise ValueError("prompt.retrieved: model servers do not support tactics of similar states; set 0")
        if "written" in self.policies and len(self.policies) > 1:
            raise ValueError(f"--policy {self.policy}: written proofs cannot be joined with other policies")

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the policies that are combined."""
        return tuple(self.policy.split("+"))

    def toolchain(self) -> Toolchain:
        """The Lean to run on. FileNotFoundError if it is not installed."""
        return (installed(self.lean) or embedded_lean)()

    @property
    def model(self) -> str:
        """The name of the language model that the policy uses; empty if it uses none."""
        names = {"server": self.server.model, "local": self.local.name}
        return next((names[name] for name in self.policies if name in names), "")

    def text(self) -> str:
        """The settings as JSON, without those that a run sets itself."""
        settings = {name: value for name, value in asdict(self).items() if name not in SET_BY_RUN}
        return json.dumps(settings, indent=2, default=str)


SET_BY_RUN = frozenset({"run", "theorems", "program", "contents"})
"""Entries of a run's settings.json that no configuration file sets."""


def read_config(path: Path) -> SearchConfig:
    """The settings in a file: that of `--print-config`, a part of it, or a run's settings.json. ValueError if it is invalid."""
    fields: dict[str, Any] = {name: value for name, value in read_json(path).items() if name not in SET_BY_RUN}
    try:
        return rebuild(SearchConfig, fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}; `monge prove search --print-config` prints a valid file") from error


@dataclass(frozen=True)
class Source:
    """The source of a run's theorems, from which `--resume` reads them again."""

    path: Path = Path()
    split: str = "all"
    limit: int | None = None
    """Maximum number of theorems, read from the beginning; None for all."""
