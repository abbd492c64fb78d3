"""How well the stack learns: tasks x seeds, trained and controlled, with a report.

Every run is a process of its own on one thread. A run that was interrupted goes on when the same command is
given again, and a finished one is not repeated.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel.apps.config import compose_config, positive
from worldmodel.apps.control import CONTROL_FILE
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.report import AGENTS, write_report
from worldmodel.apps.run import CONFIG_FILE
from worldmodel.errors import ConfigError, RunError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the sweep."""

    task: str
    seed: int
    directory: Path

    def commands(self, experiment: str, episodes: int) -> list[list[str]]:
        """The command lines that are still to be run."""
        train = ["train", f"run_dir={self.directory}"]
        if (self.directory / CONFIG_FILE).exists():
            train += ["resume=true"]
        else:
            train += [f"experiment={experiment}", f"task={self.task}", f"seed={self.seed}"]
        controls = [
            [
                "control",
                f"checkpoint={self.directory}",
                f"episodes={episodes}",
                f"agent={agent}",
                "video=false",
                f"seed={100 + self.seed}",
                f"output={self.output(agent)}",
            ]
            for agent in AGENTS
            if not (self.output(agent) / CONTROL_FILE).exists()
        ]
        return [train, *controls] if controls else []

    def output(self, agent: str) -> Path:
        """Where an agent's control is written."""
        return self.directory / f"control-{agent}"


def bench_learning(config: dict[str, Any]) -> Path:
    """Run what is missing, then write the report; returns its path.

    `config` is that of `configs/bench_learning.yaml`.
    """
    positive(config, "episodes")
    output = Path(config["output"])
    cells = [
        Cell(task=task, seed=seed, directory=output / task / f"seed-{seed}")
        for seed in config["seeds"]
        for task in config["tasks"]
    ]
    if not cells:
        raise ConfigError("tasks and seeds must each name at least one")
    for task in config["tasks"]:  # a mistake is told now, not by the last process
        compose_config("train", [f"experiment={config['experiment']}", f"task={task}"])
    if not config["report"]:
        _run_all(cells, config)
    return write_report(output, config)


def _run_all(cells: list[Cell], config: dict[str, Any]) -> None:
    num_workers = config["num_workers"] or os.cpu_count() or 1
    with (
        ProgressDisplay("bench learning", len(cells), "runs") as display,
        ThreadPoolExecutor(num_workers) as pool,
    ):
        running = [pool.submit(_run_cell, cell, config) for cell in cells]
        try:
            for done, future in enumerate(as_completed(running), start=1):
                cell = future.result()
                display.update(done)
                display.note(f"finished {cell.directory}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_cell(cell: Cell, config: dict[str, Any]) -> Cell:
    cell.directory.parent.mkdir(parents=True, exist_ok=True)
    log_path = cell.directory.parent / f"{cell.directory.name}.log"
    for command in cell.commands(config["experiment"], config["episodes"]):
        with log_path.open("a") as log:
            process = subprocess.run(
                [sys.executable, "-m", "worldmodel", *command], stdout=log, stderr=log, check=False
            )
        if process.returncode:
            last = log_path.read_text().strip().splitlines()[-1:]
            raise RunError(
                f"`worldmodel {' '.join(command)}` ended with {process.returncode}: {' '.join(last)} "
                f"(whole output: {log_path}). The same bench command goes on from here"
            )
    return cell
