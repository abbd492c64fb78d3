"""How good planners are for what they cost: return against evaluations against milliseconds.

Planners x budgets x problems x tasks x seeds, each cell in a process on one thread. Finished cells are kept.
"""

import csv
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import envs
from worldmodel.apps import provenance
from worldmodel.apps.bench.cells import COLUMNS, KEY, NEED_GRADIENTS, PROBLEMS, Budget, Cell, built, run_cell
from worldmodel.apps.bench.output import check_counts, check_names
from worldmodel.apps.bench.planners_report import write_report
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import fsync

RESULTS = "planners.csv"


def bench_planners(config: dict[str, Any]) -> Path:
    """Run what is missing, then write the report; returns its path.

    `config` is that of `configs/bench_planners.yaml`.
    Errors: `ConfigError`, `EnvError`, `PlannerError` or `RunError` for a user's mistake, told first.
    """
    _check(config)
    output = Path(config["output"])
    try:
        if not config["report"]:
            cells = make_cells(config)
            output.mkdir(parents=True, exist_ok=True)
            _run_missing(cells, output / RESULTS, config["num_workers"] or provenance.num_cores())
        return write_report(output, read_rows(output / RESULTS), config)
    except OSError as error:
        raise RunError(f"cannot write output={output}: {error.strerror or error}") from error


def make_cells(config: dict[str, Any]) -> list[Cell]:
    """Every cell of the sweep; those a planner cannot do (gradients of a simulator) are left out."""
    cells = []
    for problem in config["problems"]:
        for task in ["lqr"] if problem == "lqr" else config["tasks"]:
            runs = _runs(config, task) if problem == "learned" else []
            if problem == "oracle":
                envs.batch_task(task)
            for budget in config["budgets"][problem]:
                for planner in config["planners"]:
                    base = _planner_config(planner)
                    if problem == "oracle" and base["name"] in NEED_GRADIENTS:
                        continue
                    planner_config = _budget(budget).applied_to(base, proposes=problem == "learned")
                    built(planner_config)
                    for index, seed in enumerate(config["seeds"]):
                        run = runs[index % len(runs)] if runs else None
                        trained = None if run is None else open_run(run, task=task)
                        cells.append(
                            Cell(
                                problem=problem,
                                task=task,
                                planner=planner,
                                budget=budget,
                                seed=seed,
                                planner_config=planner_config,
                                episodes=config["episodes"],
                                env_config={"action_repeat": config["action_repeat"]}
                                if trained is None
                                else trained.config["env"],
                                checkpoint=run,
                            )
                        )
    return cells


def read_rows(path: Path) -> list[dict[str, str]]:
    """The finished cells. A line that was cut by a crash is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise RunError(f"{path} has other columns than this version writes: choose another output=")
        return [row for row in reader if None not in row.values()]


def _run_missing(cells: list[Cell], path: Path, num_workers: int) -> None:
    rows = read_rows(path)
    _write(path, rows)
    done = {tuple(row[name] for name in KEY) for row in rows}
    missing = [cell for cell in cells if cell.key not in done]
    # The long ones first: no core waits for one of them in the end.
    missing.sort(key=lambda cell: -_cost(cell))
    commit = provenance.commit()
    with (
        path.open("a", newline="") as file,
        ProgressDisplay("bench planners", len(cells), "cells", done=len(cells) - len(missing)) as display,
        # Not forked: torch's threads do not survive it.
        ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        try:
            running = {pool.submit(run_cell, cell): cell for cell in missing}
            for count, future in enumerate(as_completed(running), start=1):
                writer.writerow(future.result() | {"commit": commit})
                file.flush()
                os.fsync(file.fileno())
                display.update(len(cells) - len(missing) + count)
        except BrokenProcessPool as error:
            raise RunError(
                f"a process of the sweep was killed; the same command goes on ({error})"
            ) from error
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Replace the file by its whole lines."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    fsync(part)
    part.replace(path)


def _cost(cell: Cell) -> int:
    budget = _budget(cell.budget)
    weight = {"lqr": 1, "learned": 100, "oracle": 100}[cell.problem]
    return weight * budget.num_candidates * budget.num_iterations * budget.horizon


def _planner_config(planner: str) -> dict[str, Any]:
    """The settings of `icem noise=white`: a planner, and what is changed of it."""
    name, *overrides = planner.split()
    config = compose_config("control", [f"planner={name}", *overrides])
    settings: dict[str, Any] = to_dict(config)["planner"]
    return settings


def _budget(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise ConfigError(
            f"the budget {text!r} is not CANDIDATESxITERATIONSxHORIZON, such as 64x3x15"
        ) from error


def _runs(config: dict[str, Any], task: str) -> list[Path]:
    """The trained runs of a task, in the order of their names. Errors: `ConfigError` if there are none."""
    folder = Path(config["checkpoints"]) / task
    runs = sorted(path for path in folder.glob("seed-*") if path.is_dir()) if folder.is_dir() else []
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
