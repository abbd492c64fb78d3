"""What is left of a return under pushes, noise, delays and other physics: learned model, oracle, policy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import envs
from worldmodel.apps.bench.cells import Budget
from worldmodel.apps.bench.disturbed import (
    COLUMNS,
    DISTURBANCES,
    KEY,
    ORACLES,
    UNDISTURBED,
    Cell,
    level_text,
    reaches,
    run_cell,
    same_as,
)
from worldmodel.apps.bench.output import check_names, make_folder, provenance
from worldmodel.apps.bench.robustness_report import write_report
from worldmodel.apps.bench.sweep import Sweep
from worldmodel.apps.build import build_planner
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.launcher import Launch
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of

AGENTS = ("planner", "policy", *ORACLES)
RESULTS = "robustness.csv"


def bench_robustness(config: dict[str, Any], given: set[str]) -> Path:
    """Play what is missing, then write `robustness.md`, `.json` and a picture for each checkpoint.

    `config` is that of `configs/bench_robustness.yaml`; `given` are the keys that the user named. Returns the
    path of the page.
    Errors: `ConfigError`, `EnvError`, `CheckpointError` or `RunError` for a user's mistake, told first.
    """
    _check(config)
    launch = Launch.of(config)
    cells = make_cells(config)
    folder = make_folder(config["output"])
    # Whoever repeats it wants the numbers, not the report alone.
    record = provenance("bench robustness", config, given - {"report"}, torch.device("cpu"), PACKAGES)
    sweep = Sweep(verb="bench robustness", path=folder / RESULTS, columns=COLUMNS, key=KEY)
    try:
        if not config["report"]:
            sweep.run_missing(cells, run_cell, launch=launch, cost=_cost)
        wanted = {cell.key for cell in cells}
        rows = [row for row in sweep.rows() if sweep.key_of(row) in wanted]
        if not rows:
            raise RunError(f"output={folder} holds no finished cell of these: run without report=true first")
        return write_report(folder, rows, config, record)
    except OSError as error:
        raise RunError(f"cannot write output={folder}: {reason_of(error)}") from error


def make_cells(config: dict[str, Any]) -> list[Cell]:
    """Every cell of the sweep, without those of which another tells.

    Errors: `ConfigError`, `EnvError` or `CheckpointError` for what cannot be played.
    """
    cells: list[Cell] = []
    for checkpoint in config["checkpoints"]:
        run = open_run(checkpoint, task=config["task"])
        _check_task(checkpoint, run, config)
        for agent in config["agents"]:
            cells += _cells_of(checkpoint, run, agent, config)
    return cells


def _cells_of(checkpoint: str, run: TrainedRun, agent: str, config: dict[str, Any]) -> Iterator[Cell]:
    planner_config = None
    if agent in ORACLES:
        icem = to_dict(compose_config("control", ["planner=icem"]))["planner"]
        planner_config = Budget.parse(config["oracle_budget"]).applied_to(icem, proposes=False)
    elif agent == "planner":
        planner_config = run.planner_config(config.get("planner"))
    if planner_config is not None:
        build_planner(planner_config, run.model.size.action_dim)  # a mistake is told now
    levels = {
        (name, float(level))
        for name in config["disturbances"]
        if reaches(name, agent)
        for level in config["levels"][name]
        if level != DISTURBANCES[name].neutral
    }
    for disturbance, level in [(UNDISTURBED, 0.0), *sorted(levels)]:
        if (other := same_as(agent, disturbance)) != agent and other in config["agents"]:
            continue
        yield Cell(
            checkpoint=checkpoint,
            task=run.task,
            agent=agent,
            disturbance=disturbance,
            level=level,
            episodes=min(config["episodes"], config["oracle_episodes"] if agent in ORACLES else math.inf),
            seed=config["seed"],
            planner_config=planner_config,
            env_config=run.config["env"],
            push_interval_s=config["push_interval_s"] if disturbance == "push" else None,
            model="" if agent in ORACLES else run.checkpoint.state["digest"],
        )


def _cost(cell: Cell) -> float:
    """In candidates' steps: simulated ones take ten times as long as imagined ones."""
    config = cell.planner_config
    if config is None:
        return float(cell.episodes)
    steps = config["num_candidates"] * config["num_iterations"] * config["horizon"]
    return float(cell.episodes * steps * (10 if cell.agent in ORACLES else 1))


def _check(config: dict[str, Any]) -> None:
    check_names("agents", config["agents"], AGENTS)
    check_names("disturbances", config["disturbances"], list(DISTURBANCES))
    positive(config, "episodes", "oracle_episodes")
    not_negative(config, "seed", "num_workers")
    if not 0 < config["push_interval_s"] < math.inf:
        raise ConfigError(f"push_interval_s={config['push_interval_s']}: must be above 0 seconds")
    names = config["checkpoints"]
    if not names or any(not isinstance(name, str) or names.count(name) > 1 for name in names):
        raise ConfigError(
            f"checkpoints=[{','.join(map(str, names))}]: must name at least one, and each of them once"
        )
    for name in config["disturbances"]:
        levels, is_whole = config["levels"][name], DISTURBANCES[name].is_whole
        kinds, what = (int, "whole numbers") if is_whole else ((int, float), "numbers")
        if not levels or any(
            not isinstance(level, kinds) or isinstance(level, bool) or not 0 <= level < math.inf
            for level in levels
        ):
            raise ConfigError(
                f"levels.{name}=[{','.join(map(str, levels))}]: must be {what} of at least 0, one or more"
            )


def _check_task(checkpoint: str, run: TrainedRun, config: dict[str, Any]) -> None:
    """Whether all that is asked for can be done in its task. Errors: `ConfigError` or `EnvError`."""
    _ = run.world_model
    if own := run.config["env"].get("factors"):
        raise ConfigError(
            f"checkpoints: {checkpoint} was trained with env.factors={own}, and levels are measured against "
            "the task's usual physics: name checkpoints that were trained without factors"
        )
    for name in config["disturbances"]:
        if DISTURBANCES[name].is_physics:
            factors = envs.factors_of(run.task)
            if name not in factors:
                raise ConfigError(
                    f"disturbances: {name} does not vary in {run.task}; what may is {', '.join(factors)}"
                )
            factor = factors[name]
            for level in config["levels"][name]:
                if not factor.low <= level <= factor.high:
                    raise ConfigError(
                        f"levels.{name}: {level_text(float(level))} is not from {factor.low:g} to "
                        f"{factor.high:g}, {factor.meaning}"
                    )
    if set(config["agents"]) & set(ORACLES):
        envs.batch_task(run.task)
    if "push" in config["disturbances"]:
        env = envs.make(run.task, **run.config["env"])
        try:
            envs.Push(env, speed_m_s=0.0)
        finally:
            env.close()
