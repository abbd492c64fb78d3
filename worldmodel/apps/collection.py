"""What `collect` records, episode by episode: which policy acts, from which start, by which chance.

Episode k of a collection is the same whoever plays it: its start depends on the seed and k, and the chance of
what acts on the seed and the group of `num_envs` episodes that share a batch.
"""

import hashlib
import importlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

import envs
from worldmodel.apps.agent import Agent
from worldmodel.apps.build import action_dim, build_env
from worldmodel.apps.rollout import Collector
from worldmodel.apps.simple_agents import (
    ColoredNoiseAgent,
    FunctionAgent,
    MixedAgent,
    PlayAgent,
    ScriptedAgent,
)
from worldmodel.apps.trained import AGENTS, TrainedRun, make_agent, open_accelerated
from worldmodel.data import Episode
from worldmodel.errors import ConfigError

# What decides, besides the task, what is recorded.
_DECIDE = ("policy", "seed", "num_envs", "env", "camera", "physics_state", "precision", "planner")
_SHARE = re.compile(r"\s*(?:(\d*\.?\d+)\s+)?(\S+)\s*")


class Played(NamedTuple):
    """What a step of a group has brought to an end."""

    episodes: list[Episode]
    diverged: list[int]  # the numbers of episodes that there will never be


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Everything that decides what is recorded; `config` is that of `configs/collect.yaml`, checked here.

    Errors: `ConfigError`, `EnvError` or `CheckpointError` for a user's mistake.
    """

    config: dict[str, Any]
    shares: dict[str, float] = field(init=False)
    _turns: list[str] = field(init=False, default_factory=list, repr=False)
    _coming_turns: Iterator[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", parse_shares(self.config["policy"]))
        object.__setattr__(self, "_coming_turns", turns(self.shares))

    @cached_property
    def run(self) -> TrainedRun | None:
        """The trained run that acts, if one does."""
        return open_accelerated(self.config)

    @cached_property
    def task(self) -> str:
        """What is recorded, as it was typed."""
        task = self.config["task"] or (self.run.task if self.run else None)
        if task is None:
            raise ConfigError(
                "task= is missing: name a task, such as task=cartpole-swingup, or give checkpoint="
            )
        return str(task)

    @cached_property
    def env(self) -> envs.TaskVectorEnv:
        """The environments of a group."""
        return build_env(
            self.task,
            self.config["env"],
            num_envs=self.config["num_envs"],
            seed=0,  # each episode has a seed of its own
            camera=self.config["camera"],
        )

    @cached_property
    def identity(self) -> str:
        """A short name for all that decides what is recorded: the same command records the same.

        Of weights and scripts the content counts, wherever they lie. What a function does is not looked at.
        """
        kept = {key: self.config.get(key) for key in _DECIDE}
        # A setting that is not made is none: so what was recorded before there were factors is known.
        kept["env"] = {key: value for key, value in self.config["env"].items() if value not in ({}, [])}
        if self.config["max_steps"]:
            kept["max_steps"] = self.config["max_steps"]
        weights = None
        if self.run is not None and self.shares.keys() & {"planner", "policy"}:
            state = self.run.model.state_dict()
            weights = crc32(b"".join(state[key].cpu().numpy().tobytes() for key in sorted(state)))
        script = crc32(self._script.tobytes()) if "scripted" in self.shares else None
        contents = {"task": envs.canonical_task(self.task), "weights": weights, "script": script}
        text = json.dumps(kept | contents, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def policy_of(self, index: int) -> str:
        """Which policy acts in an episode: so that each has had its share after any number of episodes."""
        while len(self._turns) <= index:
            self._turns.append(next(self._coming_turns))
        return self._turns[index]

    def agent(self, group: int) -> Agent:
        """What acts in a group of episodes."""
        num_envs = self.config["num_envs"]
        policies = [self.policy_of(index) for index in range(group * num_envs, (group + 1) * num_envs)]
        rows = {
            policy: np.array([row for row, name in enumerate(policies) if name == policy])
            for policy in dict.fromkeys(policies)
        }
        agents = {policy: self.agent_of(policy, group) for policy in rows}
        if len(agents) == 1:
            return next(iter(agents.values()))
        return MixedAgent([(agents[policy], rows[policy]) for policy in rows])

    def play(self, group: int, wanted: set[int]) -> Iterator[Played]:
        """The `wanted` ones of a group's episodes, as they end; those that end together, together."""
        first = group * self.config["num_envs"]
        numbers = range(first, first + self.config["num_envs"])
        collector = Collector(
            self.env,
            [self.start_seed(number) for number in numbers],
            records_physics=self.config["physics_state"],
            max_steps=self.config["max_steps"],
            leaves_out_diverged=True,
        )
        agent = self.agent(group)
        left = {number - first for number in wanted & set(numbers)}
        while left:
            try:
                ended = collector.step(agent, lambda row: self.info(numbers[row]), left)
                # A row goes on when its episode is over, and what becomes of it then is of no interest.
                lost = left & set(collector.diverged)
            except envs.SimulationError:  # of nobody knows whom
                ended, lost = [], left
            left = left - {row for row, _ in ended} - lost
            if ended or lost:
                yield Played([episode for _, episode in ended], sorted(numbers[row] for row in lost))

    def close(self) -> None:
        """Free the environments, if there are any."""
        if "env" in self.__dict__:
            self.env.close()

    def start_seed(self, number: int) -> int:
        """The seed of an episode's start: `env.reset(seed=...)` gives it again."""
        return int(np.random.SeedSequence([self.config["seed"], number]).generate_state(1)[0])

    def info(self, number: int) -> dict[str, Any]:
        """What is known of an episode beforehand."""
        return {
            "policy": self.policy_of(number),
            "seed": self.start_seed(number),
            "collection": self.identity,
            "number": number,
        }

    def agent_of(self, policy: str, group: int) -> Agent:
        """One of the policies, with its chance in a group of episodes."""
        sequence = np.random.SeedSequence([self.config["seed"], group, crc32(policy.encode())])
        seed = int(sequence.generate_state(1)[0])
        dim = action_dim(self.env)
        if policy == "scripted":
            return ScriptedAgent(self._script, dim)
        if policy == "play":
            noise = ColoredNoiseAgent(dim, np.random.default_rng(seed), exponent=0.0)
            return PlayAgent(noise, self._to_play())
        if ":" in policy:
            return FunctionAgent(self._function(policy), dim, np.random.default_rng(seed))
        if policy not in AGENTS:
            further = "play, scripted (script=FILE), or module:function"
            raise ConfigError(f"there is no policy {policy!r}. Known: {', '.join(AGENTS)}, {further}")
        return make_agent(policy, dim, seed=seed, run=self.run, planner_config=self.config.get("planner"))

    def _to_play(self) -> Callable[[np.ndarray], np.ndarray]:
        if "state" not in self.config["env"]["observe"]:
            raise ConfigError("policy=play sees where things are: env.observe=[state,pixels]")
        try:
            return envs.to_play(self.task)
        except envs.EnvError as error:
            raise ConfigError(f"policy=play: {error}; policy=colored is noise that gets far") from error

    @cached_property
    def _script(self) -> np.ndarray:
        path = self.config["script"]
        if path is None:
            raise ConfigError(
                "policy=scripted needs script=FILE: actions as .npy or .csv, a row for each step"
            )
        try:
            if Path(path).suffix == ".npy":
                with open(path, "rb") as file:  # np.load goes by the content, which may be an archive
                    actions = np.lib.format.read_array(file, allow_pickle=False)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # an empty file is told below
                    actions = np.loadtxt(path, delimiter=",", ndmin=2)
        except Exception as error:  # numpy fails on a garbled header in many ways, such as a TokenError
            raise ConfigError(f"cannot read script={path}: {error}") from error
        dim = action_dim(self.env)
        fits = actions.dtype.kind in "fiu" and actions.ndim == 2 and actions.shape[1:] == (dim,)
        if not fits or not len(actions) or not np.isfinite(actions).all():
            found = f"{actions.dtype}{list(actions.shape)}"
            raise ConfigError(f"script={path} holds {found}: it needs rows of {dim} finite numbers")
        return actions.astype(np.float32).clip(-1, 1)

    def _function(self, policy: str) -> Callable[..., Any]:
        module, _, name = policy.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"policy={policy}: {error}") from error
        if not callable(function):
            raise ConfigError(f"policy={policy} is a {type(function).__name__}: it must be a function")
        return function  # type: ignore[no-any-return]


def parse_shares(text: str) -> dict[str, float]:
    """`random`, or `0.3 random + 0.7 planner`: policies and how often each acts, summing to 1."""
    shares: dict[str, float] = {}
    for part in str(text).split("+"):
        match = _SHARE.fullmatch(part)
        if match is None or (match[1] is None and "+" in text):
            raise ConfigError(
                f"policy={text}: write one policy, or shares of several: 0.3 random + 0.7 planner"
            )
        if match[2] in shares:
            raise ConfigError(f"policy={text}: {match[2]} is named twice")
        shares[match[2]] = 1.0 if match[1] is None else float(match[1])
    total = sum(shares.values())
    if not total > 0:
        raise ConfigError(f"policy={text}: one share at least must be above 0")
    return {policy: share / total for policy, share in shares.items()}


def turns(shares: dict[str, float]) -> Iterator[str]:
    """Who acts in one episode after the other: always who lags furthest behind its share."""
    done = dict.fromkeys(shares, 0)
    for total in count(1):
        behind = {policy: share * total - done[policy] for policy, share in shares.items()}
        policy = max(behind, key=behind.__getitem__)
        done[policy] += 1
        yield policy
