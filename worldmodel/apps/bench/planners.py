"""How good planners are for what they cost: return against evaluations against milliseconds.

Planners x budgets x problems x tasks x seeds, each cell in a process on one thread. Finished cells are kept.
"""

import csv
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import envs
from worldmodel.apps import provenance
from worldmodel.apps.bench.cells import COLUMNS, KEY, NEED_GRADIENTS, PROBLEMS, Budget, Cell, run_cell
from worldmodel.apps.bench.output import check_counts, check_names
from worldmodel.apps.bench.planners_report import write_report
from worldmodel.apps.build import build_planner
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.run import lock_run
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import fsync

RESULTS = "planners.csv"
SET_BY_BUDGET = {f"planner.{name}" for name in ("horizon", "num_candidates", "num_iterations", "num_elites")}


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
            if not cells:
                raise ConfigError(
                    "there is no cell to run: gradient and hybrid cannot climb in the simulator"
                )
            output.mkdir(parents=True, exist_ok=True)
            lock = lock_run(output)
            try:
                _run_missing(cells, output / RESULTS, config["num_workers"] or provenance.num_cores())
            finally:
                lock.release()
        return write_report(output, read_rows(output / RESULTS), config)
    except OSError as error:
        raise RunError(f"cannot write output={output}: {error.strerror or error}") from error


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
            planner_config = _budget(budget).applied_to(base, proposes=problem == "learned")
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


def read_rows(path: Path) -> list[dict[str, str]]:
    """The finished cells. A line that was cut by a crash is left out."""
    if not path.exists():
        return []
    text = path.read_bytes().decode()
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(whole.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise RunError(f"{path} has other columns than this version writes: choose another output=")
    return [row for row in reader if None not in row.values()]


def _run_missing(cells: list[Cell], path: Path, num_workers: int) -> None:
    """Run what is not there yet. Errors: `RunError` in the end, if cells failed; the others are kept."""
    rows = read_rows(path)
    _write(path, rows)
    done = {tuple(row[name] for name in KEY) for row in rows}
    missing = [cell for cell in cells if cell.key not in done]
    # The long ones first: no core waits for one of them in the end.
    missing.sort(key=lambda cell: -_cost(cell))
    measured_with = {"commit": provenance.commit(), "machine": provenance.machine()}
    failures: list[str] = []
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
                display.update(len(cells) - len(missing) + count)
                try:
                    row = future.result()
                except BrokenProcessPool as error:
                    raise RunError("a process of the sweep was killed; the same command goes on") from error
                except Exception as error:
                    failures.append(f"{' '.join(running[future].key[:5])}: {error}")
                    display.note(f"failed: {failures[-1]}")
                    continue
                writer.writerow(row | measured_with)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                display.note(f"stopped: finished cells are kept in {path}, the same command goes on")
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise RunError(f"{len(failures)} cells failed, the others are kept; the first: {failures[0]}")


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
    for override in overrides:
        if override.partition("=")[0] in SET_BY_BUDGET:
            raise ConfigError(
                f"planners: {planner!r} sets what the budget sets: change budgets.PROBLEM= instead"
            )
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
