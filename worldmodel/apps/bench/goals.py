"""Who reaches goals: the planner in the learned model, and what it must be measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.apps.agent import Agent, Decision, PlanningAgent
from worldmodel.apps.bench.goal_baselines import BASELINES, Baselines
from worldmodel.apps.bench.goals_report import AGENTS, write_report
from worldmodel.apps.bench.output import Row, check_names, make_folder, provenance
from worldmodel.apps.bench.sweep import Sweep, settings_digest
from worldmodel.apps.build import build_device, build_planning_agent
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.goals import Attempt, GoalEvaluation, GoalForesight, check_weights, require_goals
from worldmodel.apps.memory import Observation
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.simple_agents import RandomAgent, ZeroAgent
from worldmodel.apps.statistics import success_interval
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.errors import RunError
from worldmodel.files import reason_of

KEY = ("agent", "settings")
ORACLE = ("planner=icem", "budget=oracle")  # how it plans, as `control` would be asked
COLUMNS = (
    *KEY, "episodes", "max_steps", "success", "success_low", "success_high", "median_steps",
    "cpu_ms_per_decision", "training_cpu_s", "num_solved_by_step", "commit", "machine",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Who plays, and a short digest of all that its numbers depend on."""

    agent: str
    settings: str

    @classmethod
    def of(cls, agent: str, run: TrainedRun, config: dict[str, Any]) -> Cell:
        """What `config`, that of `configs/bench_goals.yaml`, asks of an agent."""
        left_out = {"agents", "checkpoint", "output", "episodes" if agent == "oracle" else "oracle_episodes"}
        if agent not in BASELINES:
            left_out |= {"dataset", "inverse_updates", "cloning_updates"}
        told = {key: value for key, value in config.items() if key not in left_out}
        told["planner"] = run.planner_config(config.get("planner"))
        told["model"] = run.checkpoint.state["digest"]
        return cls(agent=agent, settings=settings_digest(told))

    @property
    def key(self) -> tuple[str, ...]:
        """Which cell of the sweep it is, as text."""
        return self.agent, self.settings


class OpenLoopAgent:
    """Plays each plan to its end before it plans again."""

    def __init__(self, agent: PlanningAgent) -> None:
        self._agent = agent
        self._left: list[np.ndarray] = []

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the plan."""
        self._agent.reset(is_new)
        self._left = []

    def act(self, observation: Observation) -> Decision:
        """The next action of the plan, or the first of a new one."""
        if not self._left:
            self._agent.reset()
            self._agent.act(observation)
            assert self._agent.plan is not None
            self._left = list(self._agent.plan.actions.clamp(-1, 1).cpu().numpy().swapaxes(0, 1))
        action = self._left.pop(0)
        return Decision(action=action, mean=action, std=np.zeros_like(action))


class Timed:
    """An agent whose decisions are timed."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.seconds: list[float] = []
        self.reset = agent.reset

    def act(self, observation: Observation) -> Decision:
        """Decide."""
        began = time.process_time()
        decision = self._agent.act(observation)
        self.seconds.append(time.process_time() - began)
        return decision


def bench_goals(config: dict[str, Any], given: set[str]) -> Path:
    """Play what is missing in `goals.csv`, then write `goals.md`, `.png` and `.json`.

    `config` is that of `configs/bench_goals.yaml`; `given` are the keys that the user named. Returns the
    path of the page.
    Errors: `ConfigError`, `EnvError`, `CheckpointError` or `RunError` for a user's mistake.
    """
    check_names("agents", config["agents"], list(AGENTS))
    positive(config, "episodes", "oracle_episodes")
    not_negative(config, "seed")
    check_weights(config)
    run = open_run(config["checkpoint"], task=config["task"])
    require_goals(run.task)
    device = build_device(config["device"])
    run.model.to(device)
    baselines = Baselines(run, config)
    folder = make_folder(config["output"] or str(run.directory / "goals"))
    record = provenance("bench goals", config, given, device, PACKAGES)
    torch.set_num_threads(1)
    cells = [Cell.of(name, run, config) for name in config["agents"]]
    sweep = Sweep(verb="bench goals", path=folder / "goals.csv", columns=COLUMNS, key=KEY)
    try:
        sweep.run_here(cells, lambda cell, tell: _measure(cell, run, config, baselines, tell))
        found = {sweep.key_of(row): row for row in sweep.rows()}
        return write_report(folder, [found[cell.key] for cell in cells], run.task, config["seed"], record)
    except OSError as error:
        raise RunError(f"cannot write output={folder}: {reason_of(error)}") from error


def _measure(
    cell: Cell, run: TrainedRun, config: dict[str, Any], baselines: Baselines, tell: Callable[[str], None]
) -> Row:
    name = cell.agent
    num_episodes = config["oracle_episodes" if name == "oracle" else "episodes"]
    trial = GoalEvaluation(
        run.task, run.config["env"], num_episodes=num_episodes, seed=config["seed"], is_held_out=True
    )
    try:
        if name in BASELINES:
            agent = Timed(baselines.agent(name, trial.goals, tell))
        else:
            agent = Timed(_agent(name, run, config, trial))
        tell(name)
        attempts = trial.play(agent, tell=lambda where: tell(f"{name}, {where}"))
        num_decisions = len(agent.seconds) * trial.env.num_envs
    finally:
        trial.close()
    solved = [attempt.num_steps for attempt in attempts if attempt.is_solved]
    interval = success_interval(len(solved), len(attempts))
    return dict(zip(KEY, cell.key, strict=True)) | {
        "episodes": len(attempts),
        "max_steps": trial.max_steps,
        "success": interval.mean,
        "success_low": interval.low,
        "success_high": interval.high,
        "median_steps": float(np.median(solved)) if solved else None,
        "cpu_ms_per_decision": sum(agent.seconds) * 1e3 / num_decisions,
        "training_cpu_s": _training_cpu_s(name, run, baselines),
        "num_solved_by_step": " ".join(map(str, _solved_by(attempts))),
    }


def _training_cpu_s(name: str, run: TrainedRun, baselines: Baselines) -> float | None:
    if name in ("planner", "open_loop"):
        return run.checkpoint.info.get("training_cpu_seconds")
    return baselines.cpu_seconds.get(name)


def _solved_by(attempts: list[Attempt]) -> list[int]:
    """How many were solved after 1, 2, ... steps."""
    longest = max(attempt.num_steps for attempt in attempts)
    counts = np.bincount([a.num_steps for a in attempts if a.is_solved], minlength=longest + 1)
    return [int(count) for count in counts.cumsum()[1:]]


def _agent(name: str, run: TrainedRun, config: dict[str, Any], trial: GoalEvaluation) -> Agent:
    action_dim, seed = run.model.size.action_dim, config["seed"]
    if name == "random":
        return RandomAgent(action_dim, np.random.default_rng(seed))
    if name == "zero":
        return ZeroAgent(action_dim)
    if name == "oracle":
        planner = to_dict(compose_config("control", ORACLE))["planner"]
        return build_planning_agent(OracleForesight(trial.env, seeks_goals=True), planner, seed=seed)
    weights = {key: config[key] for key in ("last_weight", "state_weight", "disagreement_weight")}
    foresight = GoalForesight(run.model, trial.goals, **weights)
    planner_config = run.planner_config(config.get("planner"))
    agent = build_planning_agent(foresight, planner_config, seed=seed)
    return OpenLoopAgent(agent) if name == "open_loop" else agent
