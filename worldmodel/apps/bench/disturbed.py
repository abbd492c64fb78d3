"""One cell of the robustness benchmark: one agent under one disturbance, some episodes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

import envs
from worldmodel.apps.agent import Agent
from worldmodel.apps.bench.sweep import settings_digest
from worldmodel.apps.build import action_dim, build_env, build_planning_agent
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.rollout import Collector
from worldmodel.apps.statistics import mean_interval
from worldmodel.apps.trained import TrainedRun, make_agent, open_run
from worldmodel.data import Episode
from worldmodel.errors import RunError

KEY = ("checkpoint", "agent", "disturbance", "level", "settings")
COLUMNS = (
    *KEY, "task", "episodes", "return", "return_low", "return_high", "returns", "diverged",
    "commit", "machine",
)  # fmt: skip
UNDISTURBED = "none"
EPISODE_SEED = 3_000_017  # far from the seeds that people train and evaluate with
_NUM_USUAL = 3  # episodes that tell how much each entry of an observation varies
_EVEN_TURN = np.pi / np.sqrt(3)  # std of an angle that may be any


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What levels of a disturbance mean.

    - `neutral`: the level that disturbs nothing.
    - `axis`: what a level counts, for people.
    - `is_whole`: whether levels are whole numbers.
    - `is_physics`: whether the simulated robot is another one (`envs.factors`).
    - `is_seen`: whether it is in what is observed, which the oracle does not look at.
    """

    neutral: float
    axis: str
    is_whole: bool = False
    is_physics: bool = False
    is_seen: bool = False


DISTURBANCES: Mapping[str, Disturbance] = {
    "push": Disturbance(neutral=0.0, axis="pushes, N s per kg of the robot"),
    "observation_noise": Disturbance(neutral=0.0, axis="noise, in stds of each observed entry", is_seen=True),
    "observation_delay": Disturbance(
        neutral=0.0, axis="observations late, control periods", is_whole=True, is_seen=True
    ),
    "action_delay": Disturbance(neutral=0.0, axis="actions late, control periods", is_whole=True),
    "mass": Disturbance(neutral=1.0, axis="times the usual mass", is_physics=True),
    "friction": Disturbance(neutral=1.0, axis="times the usual friction", is_physics=True),
    "gravity": Disturbance(neutral=1.0, axis="times the usual gravity", is_physics=True),
}
ORACLES = ("oracle", "informed_oracle")


def reaches(disturbance: str, agent: str) -> bool:
    """Whether it makes a difference to the agent."""
    return agent not in ORACLES or not DISTURBANCES[disturbance].is_seen


def same_as(agent: str, disturbance: str) -> str:
    """Who plays the same: an informed oracle knows no more than the oracle where physics are as usual."""
    is_usual = disturbance == UNDISTURBED or not DISTURBANCES[disturbance].is_physics
    return "oracle" if agent == "informed_oracle" and is_usual else agent


def level_text(level: float) -> str:
    """All its digits; whole numbers without a point."""
    return str(level).removesuffix(".0")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is played, with all its settings: it is sent to another process.

    - `planner_config`: of who plans; None for the policy.
    - `push_interval_s`: of pushes; others have none.
    - `model`: digest of the weights; empty where no learned model acts.
    """

    checkpoint: str
    task: str
    agent: str
    disturbance: str
    level: float
    episodes: int
    seed: int
    planner_config: dict[str, Any] | None
    env_config: dict[str, Any]
    push_interval_s: float | None
    model: str

    @property
    def settings(self) -> str:
        """A short digest of all settings: what was measured with others is another cell."""
        told = [
            self.planner_config,
            self.episodes,
            self.seed,
            self.env_config,
            self.push_interval_s,
            self.model,
        ]
        return settings_digest(told)

    @property
    def key(self) -> tuple[str, ...]:
        """Which cell of the sweep it is, as text."""
        return self.checkpoint, self.agent, self.disturbance, level_text(self.level), self.settings


def run_cell(cell: Cell) -> dict[str, Any]:
    """Play it on one thread; returns its row, without a return where every simulation diverged."""
    torch.set_num_threads(1)
    run = open_run(cell.checkpoint, task=cell.task)
    env = disturbed_env(cell, run)
    try:
        episodes = play(env, _agent(cell, run, env))
    finally:
        env.close()
    returns = [episode.total_reward for episode in episodes if episode is not None]
    interval = mean_interval(returns) if returns else None
    return dict(zip(KEY, cell.key, strict=True)) | {
        "task": cell.task,
        "episodes": len(returns),
        "return": interval.mean if interval else "",
        "return_low": interval.low if interval else "",
        "return_high": interval.high if interval else "",
        "returns": " ".join(f"{each:.6g}" for each in returns),
        "diverged": episodes.count(None),
    }


def disturbed_env(cell: Cell, run: TrainedRun) -> envs.SyncTaskVectorEnv:
    """The environments of its episodes: the same starts for the same seed, whatever disturbs them."""
    level, env_config = cell.level, dict(cell.env_config)
    wrappers: list[Callable[[Any], Any]] = []
    if cell.disturbance == "push":
        assert cell.push_interval_s is not None
        wrappers = [partial(envs.Push, speed_m_s=level, interval_s=cell.push_interval_s)]
    elif cell.disturbance == "observation_noise":
        std = {key: level * each for key, each in _usual_std(cell.checkpoint, cell.task, cell.seed).items()}
        wrappers = [partial(envs.ObservationNoise, std=std)]
    elif cell.disturbance in ("observation_delay", "action_delay"):
        delay = envs.ActionDelay if cell.disturbance == "action_delay" else envs.ObservationDelay
        wrappers = [partial(delay, num_steps=int(level))]
    elif cell.disturbance != UNDISTURBED:
        env_config["factors"] = {cell.disturbance: level}
    return _make_env(cell.task, env_config, cell.episodes, cell.seed, wrappers)


def play(env: envs.SyncTaskVectorEnv, agent: Agent) -> list[Episode | None]:
    """One episode in each environment, in their order; None where the simulation diverged."""
    collector = Collector(env, list(env.env_seeds), leaves_out_diverged=True)
    agent.reset()
    played: dict[int, Episode | None] = {}
    while len(played) < env.num_envs:
        for index, episode in collector.step(agent, {}):
            played.setdefault(index, episode)  # the first; some go on while others are not over
        for index in collector.diverged:
            played.setdefault(index, None)
    return [played[index] for index in range(env.num_envs)]


@cache
def _usual_std(checkpoint: str, task: str, seed: int) -> dict[str, np.ndarray]:
    """How much each entry of the state, and images as a whole, vary while the policy acts undisturbed."""
    run = open_run(checkpoint, task=task)
    env = _make_env(task, run.config["env"], _NUM_USUAL, seed, [])
    try:
        episodes = play(env, make_agent("policy", action_dim(env), seed=seed, run=run))
    finally:
        env.close()
    seen = [episode.observation for episode in episodes if episode is not None]
    if not seen:
        raise RunError(
            "every simulation diverged while nothing disturbed the policy, so that noise has no measure: "
            "leave observation_noise out of disturbances="
        )
    found = {}
    for key in seen[0]:
        values = np.concatenate([observation[key] for observation in seen]).astype(np.float64)
        found[key] = values.std(0) if values.ndim == 2 else np.asarray(values.std())
        if key == "state":  # turns add up, and mean nothing
            angles = list(env.angles)
            found[key][angles] = np.minimum(found[key][angles], _EVEN_TURN)
    return found


def _make_env(
    task: str, env_config: dict[str, Any], num_envs: int, seed: int, wrappers: list[Callable[[Any], Any]]
) -> envs.SyncTaskVectorEnv:
    env = build_env(
        task, env_config, num_envs=num_envs, seed=EPISODE_SEED + seed, how="sync", wrappers=wrappers
    )
    assert isinstance(env, envs.SyncTaskVectorEnv)
    return env


def _agent(cell: Cell, run: TrainedRun, env: envs.SyncTaskVectorEnv) -> Agent:
    if cell.agent not in ORACLES:
        return make_agent(
            cell.agent, action_dim(env), seed=cell.seed, run=run, planner_config=cell.planner_config
        )
    assert cell.planner_config is not None
    undo = None if cell.agent == "informed_oracle" else env.task_envs[0].undo_factors
    return build_planning_agent(OracleForesight(env, change_model=undo), cell.planner_config, seed=cell.seed)
