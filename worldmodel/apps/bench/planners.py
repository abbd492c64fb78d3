"""How good planners are for what they cost: return against evaluations against milliseconds.

Planners x budgets x problems x tasks x seeds, each cell in a process on one thread. Finished cells are kept.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envs
from worldmodel.apps.bench.cells import COLUMNS, KEY, NEED_GRADIENTS, PROBLEMS, Budget, Cell, run_cell
from worldmodel.apps.bench.output import check_counts, check_names
from worldmodel.apps.bench.planners_report import write_report
from worldmodel.apps.bench.sweep import Sweep
from worldmodel.apps.build import build_planner
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.launcher import Launch
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of

RESULTS = "planners.csv"
SET_BY_BUDGET = {f"planner.{name}" for name in ("horizon", "num_candidates", "num_iterations", "num_elites")}


def bench_planners(config: dict[str, Any]) -> Path:
    """Run what is missing, then write the report; returns its path.

    `config` is that of `configs/bench_planners.yaml`.
    Errors: `ConfigError`, `EnvError`, `PlannerError` or `RunError` for a user's mistake, told first.
    """
    _check(config)
    launch = Launch.of(config)
    output = Path(config["output"])
    sweep = Sweep(verb="bench planners", path=output / RESULTS, columns=COLUMNS, key=KEY)
    try:
        if not config["report"]:
            cells = make_cells(config)
            if not cells:
                raise ConfigError(
                    "there is no cell to run: gradient and hybrid cannot climb in the simulator"
                )
            sweep.run_missing(cells, run_cell, launch=launch, cost=_cost)
        return write_report(output, sweep.rows(), config)
    except OSError as error:
        raise RunError(f"cannot write output={output}: {reason_of(error)}") from error


def make_cells(config: dict[str, Any]) -> list[Cell]:
    """Every cell of the sweep; those a planner cannot do (gradients of a simulator) are left out."""
    planner_configs = {planner: _planner_config(planner) for planner in config["planners"]}
    return [
        cell
        for problem in config["problems"]
        for task in (["lqr"] if problem == "lqr" else config["tasks"])
        for cell in _cells_of(problem, task, planner_configs, config)
    ]


def _cells_of(
    problem: str, task: str, planner_configs: dict[str, dict[str, Any]], config: dict[str, Any]
) -> Iterator[Cell]:
    env_config: dict[str, Any] = {"action_repeat": config["action_repeat"]} if problem == "oracle" else {}
    if problem == "oracle":
        envs.batch_task(task)
    runs = _runs(config, task) if problem == "learned" else []
    trained = [open_run(run, task=task).config["env"] for run in runs]
    for budget in config["budgets"][problem]:
        for planner, base in planner_configs.items():
            if problem == "oracle" and base["name"] in NEED_GRADIENTS:
                continue
            planner_config = Budget.parse(budget).applied_to(base, proposes=problem == "learned")
            build_planner(planner_config, 1)  # a mistake is told now
            for seed in config["seeds"]:
                # Its own run for each seed, in whatever order the seeds are named.
                which = seed % len(runs) if runs else None
                yield Cell(
                    problem=problem,
                    task=task,
                    planner=planner,
                    budget=budget,
                    seed=seed,
                    planner_config=planner_config,
                    episodes=1 if problem == "lqr" else config["episodes"],
                    env_config=env_config if which is None else trained[which],
                    checkpoint=None if which is None else runs[which],
                )


def _cost(cell: Cell) -> int:
    budget = Budget.parse(cell.budget)
    weight = {"lqr": 1, "learned": 100, "oracle": 100}[cell.problem]
    return weight * budget.num_candidates * budget.num_iterations * budget.horizon


def _planner_config(planner: str) -> dict[str, Any]:
    """The settings of `icem noise=white`: a planner, and what is changed of it."""
    name, *overrides = planner.split()
    for override in overrides:
        if override.partition("=")[0] in SET_BY_BUDGET:
            raise ConfigError(
                f"planners: {planner!r} sets what the budget sets: change budgets.PROBLEM= instead"
            )
    config = compose_config("control", [f"planner={name}", *overrides])
    settings: dict[str, Any] = to_dict(config)["planner"]
    return settings


def _runs(config: dict[str, Any], task: str) -> list[Path]:
    """The trained runs of a task, in the order of their seeds. Errors: `ConfigError` if there are none."""
    folder = Path(config["checkpoints"]) / task
    runs = [
        path for path in folder.glob("seed-*") if path.name.removeprefix("seed-").isdigit() and path.is_dir()
    ]
    runs.sort(key=lambda path: int(path.name.removeprefix("seed-")))
    if not runs:
        raise ConfigError(
            f"checkpoints={config['checkpoints']}: there is no trained run {folder}/seed-0; train some with "
            f"`worldmodel bench learning output={config['checkpoints']}`, or leave out problems=[...,learned]"
        )
    return runs


def _check(config: dict[str, Any]) -> None:
    positive(config, "episodes", "action_repeat")
    not_negative(config, "num_workers")
    check_names("problems", config["problems"], PROBLEMS)
    check_counts("seeds", config["seeds"], least=0)
    names = {"planners": config["planners"], "tasks": config["tasks"]}
    names |= {f"budgets.{problem}": config["budgets"][problem] for problem in config["problems"]}
    for key, values in names.items():
        if not values or any(not isinstance(value, str) or values.count(value) > 1 for value in values):
            listed = ",".join(map(str, values))
            raise ConfigError(f"{key}=[{listed}]: must name at least one, and each of them once")
