"""Who reaches goals: the planner in the learned model, and what it must be measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from worldmodel.apps.agent import Agent, Decision, PlanningAgent
from worldmodel.apps.bench.goal_baselines import BASELINES, Baselines
from worldmodel.apps.bench.output import (
    Row,
    check_names,
    make_folder,
    markdown_table,
    provenance,
    provenance_lines,
    write_all,
)
from worldmodel.apps.build import build_device, build_planning_agent
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.goals import Attempt, GoalEvaluation, GoalForesight, require_goals
from worldmodel.apps.memory import Observation
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.simple_agents import RandomAgent, ZeroAgent
from worldmodel.apps.statistics import success_interval
from worldmodel.apps.trained import TrainedRun, open_run

AGENTS = {
    "planner": "plans in the learned model at every step",
    "open_loop": "plans in the learned model, and plays the whole plan before the next",
    **BASELINES,
    "random": "even noise",
    "zero": "no action",
    "oracle": "plans at every step in the simulator itself, rewarded for coming near",
}
COLORS = {
    "planner": "#e4572e",
    "open_loop": "#f2a541",
    "inverse_dynamics": "#3a9d6e",
    "behaviour_cloning": "#7fb7be",
    "random": "#9aa5b1",
    "zero": "#8d6a9f",
    "oracle": "#1f3b57",
}


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
    """Play, then write `goals.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_goals.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError`, `EnvError`, `CheckpointError` or `RunError` for a user's mistake.
    """
    check_names("agents", config["agents"], list(AGENTS))
    positive(config, "episodes", "oracle_episodes")
    not_negative(config, "seed", "last_weight", "state_weight", "disagreement_weight")
    run = open_run(config["checkpoint"], task=config["task"])
    require_goals(run.task)
    device = build_device(config["device"])
    run.model.to(device)
    baselines = Baselines(run, config)
    folder = make_folder(config["output"] or str(run.directory / "goals"))
    record = provenance("bench goals", config, given, device, PACKAGES)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with ProgressDisplay("bench goals", len(config["agents"]), "agents") as display:
        for done, name in enumerate(config["agents"]):

            def tell(what: str, done: int = done) -> None:
                display.update(done, {"now": what})

            tell(name)
            rows.append(_measure(name, run, config, baselines, tell))
            display.note(f"{name}: {rows[-1]['success']:.1%}")
    page = _page(rows, run, config, record)
    return write_all(folder, "goals", rows=rows, record=record, figure=_figure(rows, run.task), page=page)


def _measure(
    name: str, run: TrainedRun, config: dict[str, Any], baselines: Baselines, tell: Callable[[str], None]
) -> Row:
    num_episodes = config["oracle_episodes" if name == "oracle" else "episodes"]
    trial = GoalEvaluation(run.task, run.config["env"], num_episodes=num_episodes, seed=config["seed"])
    try:
        if name in BASELINES:
            agent = Timed(baselines.agent(name, trial.goals, tell))
        else:
            agent = Timed(_agent(name, run, config, trial))
        attempts = trial.play(agent, tell=lambda where: tell(f"{name}, {where}"))
        num_decisions = len(agent.seconds) * trial.env.num_envs
    finally:
        trial.close()
    solved = [attempt.num_steps for attempt in attempts if attempt.is_solved]
    interval = success_interval(len(solved), len(attempts))
    return {
        "agent": name,
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
        planner = to_dict(compose_config("control", ["planner=icem", "budget=oracle"]))["planner"]
        return build_planning_agent(OracleForesight(trial.env, seeks_goals=True), planner, seed=seed)
    weights = {key: config[key] for key in ("last_weight", "state_weight", "disagreement_weight")}
    foresight = GoalForesight(run.model, trial.goals, **weights)
    planner_config = run.planner_config(config.get("planner"))
    agent = build_planning_agent(foresight, planner_config, seed=seed)
    return OpenLoopAgent(agent) if name == "open_loop" else agent


def _page(rows: list[Row], run: TrainedRun, config: dict[str, Any], record: dict[str, Any]) -> str:
    lines = [f"# Who reaches the goals of {run.task}", "", *provenance_lines(record), ""]
    lines += [
        f"Every agent plays the same starts and goals (seed {config['seed']}, not those that were trained or "
        "evaluated on meanwhile); no start has reached its goal. Solved: the goal was reached at one of the "
        f"first {rows[0]['max_steps']} steps. In brackets the 95 % interval (Wilson). Steps: the median of "
        "those that were solved. Decision: of one environment, CPU time. Training: CPU time; the inverse "
        "dynamics needs the model besides.",
        "",
    ]
    cells = [
        [
            row["agent"].replace("_", " "),
            AGENTS[row["agent"]],
            row["episodes"],
            f"{row['success']:.1%} [{row['success_low']:.1%}, {row['success_high']:.1%}]",
            "-" if row["median_steps"] is None else f"{row['median_steps']:.0f}",
            f"{row['cpu_ms_per_decision']:.1f} ms",
            "-" if row["training_cpu_s"] is None else f"{row['training_cpu_s']:.0f} s",
        ]
        for row in rows
    ]
    lines += markdown_table(["agent", "which", "episodes", "solved", "steps", "decision", "training"], cells)
    return "\n".join([*lines, "", "![solved after so many steps](goals.png)", ""])


def _figure(rows: list[Row], task: str) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        counts = [0, *map(int, str(row["num_solved_by_step"]).split())]
        share = np.array(counts) / row["episodes"]
        label = row["agent"].replace("_", " ")
        axes.step(range(len(share)), share, where="post", label=label, color=COLORS[row["agent"]])
    axes.set(xlabel="agent steps", ylabel="solved by then", title=task, ylim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
