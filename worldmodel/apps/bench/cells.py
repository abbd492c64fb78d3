"""One cell of the planner benchmark: one planner with one budget on one problem, for one seed."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.bench.linear import NUM_ACTIONS, LinearPlant
from worldmodel.apps.bench.sweep import settings_digest
from worldmodel.apps.build import build_env, build_planner, build_planning_agent
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError

PROBLEMS = ("lqr", "learned", "oracle")
NEED_GRADIENTS = ("gradient", "hybrid")
KEY = ("problem", "task", "planner", "budget", "seed", "settings")
COLUMNS = (
    *KEY, "return", "cost_ratio", "evaluations", "cpu_ms", "wall_ms", "decisions", "effective_sample_size",
    "std", "action_repeat", "episodes", "checkpoint", "commit", "machine",
)  # fmt: skip
EPISODE_SEED = 2_000_003  # far from the seeds that people train and evaluate with


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Candidates x iterations x horizon, as it is written."""

    num_candidates: int
    num_iterations: int
    horizon: int

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """From `64x3x15`. Errors: `ConfigError`."""
        try:
            candidates, iterations, horizon = (int(number) for number in text.split("x"))
            if min(candidates, iterations, horizon) < 1:
                raise ValueError(text)
        except ValueError as error:
            raise ConfigError(
                f"the budget {text!r} is not CANDIDATESxITERATIONSxHORIZON, such as 64x3x15"
            ) from error
        return cls(num_candidates=candidates, num_iterations=iterations, horizon=horizon)

    def applied_to(self, config: dict[str, Any], *, proposes: bool) -> dict[str, Any]:
        """A planner's settings with this budget; counts that belong to its candidates keep their share.

        Every planner gets the same number of evaluations, each spent in its own way.
        """
        evaluations = self.num_candidates * self.num_iterations
        changed = config | {"horizon": self.horizon, "num_iterations": self.num_iterations}
        changed["num_candidates"] = self.num_candidates
        if config["name"] == "gradient":
            changed["num_iterations"] = min(config["num_iterations"], evaluations)
            changed["num_candidates"] = evaluations // changed["num_iterations"]
        elif config["name"] == "hybrid":  # at most half of it climbs
            changed["num_iterations"] = config["num_iterations"]
            steps = min(config["num_gradient_iterations"], config["num_iterations"] - 1)
            changed["num_refined"] = max(1, min(config["num_refined"], evaluations // (2 * steps)))
            sampled = evaluations - steps * changed["num_refined"]
            changed["num_candidates"] = max(1, sampled // (config["num_iterations"] - steps))
        elif config["name"] == "icem":  # a population that shrinks begins larger
            shares = [config["population_decay"] ** -iteration for iteration in range(self.num_iterations)]
            changed["num_candidates"] = round(evaluations / sum(shares))
        scale = changed["num_candidates"] / config["num_candidates"]
        for name, least in (("num_elites", 2), ("num_carried", 1), ("num_proposals", 1)):
            if config[name] > 1:
                changed[name] = max(least, round(scale * config[name]))
        changed["num_elites"] = max(changed["num_elites"], changed.get("num_refined", 0))
        changed["num_elites"] = min(changed["num_elites"], changed["num_candidates"])
        most = changed["num_candidates"] - 1
        changed["num_proposals"] = min(changed["num_proposals"], most) if proposes else 0
        return changed


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is run, with all its settings: it is sent to another process."""

    problem: str
    task: str
    planner: str
    budget: str
    seed: int
    planner_config: dict[str, Any]
    episodes: int
    env_config: dict[str, Any]
    checkpoint: Path | None

    @property
    def settings(self) -> str:
        """A short digest of all settings: what was measured with others is another cell."""
        told = [self.planner_config, self.episodes, self.env_config, str(self.checkpoint)]
        return settings_digest(told)

    @property
    def key(self) -> tuple[str, ...]:
        """Which cell of the sweep it is, as text."""
        return tuple(str(getattr(self, name)) for name in KEY)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Run it on one thread; returns its row."""
    torch.set_num_threads(1)
    measured = _lqr(cell) if cell.problem == "lqr" else _closed_loop(cell)
    row = {name: value for name, value in asdict(cell).items() if name in COLUMNS}
    return row | {"settings": cell.settings, "action_repeat": cell.env_config.get("action_repeat")} | measured


class Meter:
    """Adds up what decisions cost and what their plans looked like."""

    def __init__(self) -> None:
        self._cpu_s: list[float] = []
        self._wall_s: list[float] = []
        self._plans: list[tuple[int, float, float]] = []

    def __enter__(self) -> "Meter":
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cpu_s.append(time.process_time() - self._began[0])
        self._wall_s.append(time.perf_counter() - self._began[1])

    def look(self, plan: Any) -> None:
        """At the plan of the decision just made."""
        size = plan.effective_sample_size.mean().item()
        self._plans.append((plan.num_evaluations, size, plan.std.mean().item()))

    def row(self) -> dict[str, Any]:
        """The columns. The first decisions load code and are left out of the times."""
        evaluations, size, std = np.mean(self._plans, axis=0)
        timed = slice(min(3, len(self._cpu_s) - 1), None)
        return {
            "evaluations": evaluations,
            "cpu_ms": 1e3 * float(np.mean(self._cpu_s[timed])),
            "wall_ms": 1e3 * float(np.median(self._wall_s[timed])),
            "decisions": len(self._plans),
            "effective_sample_size": size,
            "std": std,
        }


@torch.no_grad()
def _lqr(cell: Cell) -> dict[str, Any]:
    """All starts in one batch; times are those of the batch."""
    plant = LinearPlant()
    planner = build_planner(cell.planner_config, NUM_ACTIONS)
    generator = torch.Generator().manual_seed(cell.seed)
    states = plant.starts(cell.seed)
    exact = plant.closed_loop_cost(states, plant.exact_action)
    plan = planner.initial_plan(len(states))
    meter = Meter()

    def act(states: torch.Tensor) -> torch.Tensor:
        nonlocal plan
        with meter:
            plan = planner.plan(plant.scorer(states), plan, generator=generator)
        meter.look(plan)
        action = plan.actions[:, 0]
        plan = planner.warm_start(plan)
        return action

    cost = plant.closed_loop_cost(states, act)
    return {"return": -cost / len(states), "cost_ratio": cost / exact, **meter.row()}


def _closed_loop(cell: Cell) -> dict[str, Any]:
    env = build_env(cell.task, cell.env_config, num_envs=1, seed=EPISODE_SEED + cell.seed)
    try:
        agent = _agent(cell, env)
        meter, returns = Meter(), []
        for _ in range(cell.episodes):
            observation, _ = env.reset()
            agent.reset()
            episode_return, is_over = 0.0, False
            while not is_over:
                with meter:
                    action = agent.act(observation).action
                meter.look(agent.plan)
                observation, reward, terminated, truncated, _ = env.step(action)
                episode_return += float(reward[0])
                is_over = bool(terminated[0] or truncated[0])
            returns.append(episode_return)
    finally:
        env.close()
    return {"return": float(np.mean(returns)), **meter.row()}


def _agent(cell: Cell, env: Any) -> PlanningAgent:
    if cell.problem == "oracle":
        return build_planning_agent(OracleForesight(env), cell.planner_config, seed=cell.seed)
    assert cell.checkpoint is not None
    run = open_run(cell.checkpoint, task=cell.task)
    return build_planning_agent(run.foresight, cell.planner_config, seed=cell.seed)
