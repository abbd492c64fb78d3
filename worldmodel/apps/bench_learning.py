"""How well the stack learns: tasks x seeds x presets, trained and controlled, with a report.

Every run is a process of its own on one thread. A run that was interrupted goes on when the same command is
given again, and a finished one is not repeated.
"""

import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import envs
from worldmodel.apps.config import compose_config, not_negative, positive, quoted
from worldmodel.apps.control import CONTROL_FILE
from worldmodel.apps.launcher import Launch
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import check_preset, num_cores, record_start
from worldmodel.apps.report import AGENTS, preset_dir, run_dirs, write_report
from worldmodel.apps.run import CONFIG_FILE
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the sweep."""

    task: str
    seed: int
    preset: str  # what is trained, as overrides: `tiny`, or `tiny training.update_ratio=2`
    directory: Path

    @property
    def is_new(self) -> bool:
        """Whether the run was never started."""
        return not (self.directory / CONFIG_FILE).exists()

    def commands(self, episodes: int) -> list[list[str]]:
        """The command lines that are still to be run."""
        task = quoted("task", self.task)  # always said: a module that it imports is the user's to name
        train = ["train", quoted("run_dir", self.directory), task]
        train += [*overrides_of(self.preset), f"seed={self.seed}"] if self.is_new else ["resume=true"]
        controls = [
            [
                "control",
                quoted("checkpoint", self.directory),
                task,
                f"episodes={episodes}",
                f"agent={agent}",
                "video=false",
                "alarm=off",
                f"seed={100 + self.seed}",
                quoted("output", self.output(agent)),
            ]
            for agent in AGENTS
            if not (self.output(agent) / CONTROL_FILE).exists()
        ]
        return [train, *controls] if controls else []

    def output(self, agent: str) -> Path:
        """Where an agent's control is written."""
        return self.directory / f"control-{agent}"


def overrides_of(preset: str) -> list[str]:
    """A preset as overrides of `worldmodel train`: an experiment, and what is changed of it."""
    experiment, *changes = preset.split()
    return [f"experiment={experiment}", *changes]


class Processes:
    """Processes under way in several threads, which can be stopped together, and end with this one.

    Where it is killed they do not train on: they would be in the way of the same command.
    """

    def __init__(self) -> None:
        self._lock, self._is_stopped = threading.Lock(), False
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: Sequence[str], log: IO[str]) -> int:
        """Run a command until it ends; returns its exit code. Errors: `RunError` once all are stopped."""
        with self._lock:
            if self._is_stopped:
                raise RunError("stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # which ends with this process: see `worldmodel.apps.child`
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C in the terminal comes here alone, which stops each of them once
            )
            self._running.add(process)
        try:
            # With a limit Python looks now and then: only so does an interruption by Ray come through.
            return process.wait(timeout=threading.TIMEOUT_MAX)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> int:
        """Tell all to end, and start no more; returns how many are ending. Training saves first."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                process.terminate()
            return len(self._running)


def bench_learning(config: dict[str, Any]) -> Path:
    """Run what is missing, then write the report; returns its path.

    `config` is that of `configs/bench_learning.yaml`.
    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake, before anything runs.
    """
    _check(config)
    launch = Launch.of(config)
    output = Path(config["output"])
    cells = [
        Cell(
            task=task,
            seed=seed,
            preset=preset,
            directory=preset_dir(output, preset) / task / f"seed-{seed}",
        )
        for seed in config["seeds"]
        for preset in config["presets"]
        for task in config["tasks"]
    ]
    for preset in config["presets"]:
        folder = preset_dir(output, preset)
        check_preset([run for task in config["tasks"] for run in run_dirs(folder, task)], preset)
    try:
        if not config["report"]:
            for task in config["tasks"]:  # a mistake is told now, not by the last process
                for preset in config["presets"]:
                    compose_config("train", [*overrides_of(preset), quoted("task", task)])
                envs.make(task).close()
            _run_all(cells, config["episodes"], launch)
        return write_report(output, config)
    except OSError as error:
        raise RunError(f"cannot write output={output}: {reason_of(error)}") from error


def _check(config: dict[str, Any]) -> None:
    positive(config, "episodes")
    not_negative(config, "num_workers")
    tasks, seeds, reference = config["tasks"], config["seeds"], config["reference"]
    presets = config["presets"]
    for name, values in (("tasks", tasks), ("seeds", seeds), ("presets", presets)):
        if not values:
            raise ConfigError(f"{name}=[]: must name at least one")
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(f"{name}={_listed(values)}: each must be named once")
    if not all(isinstance(task, str) and task for task in tasks):
        raise ConfigError(f"tasks={_listed(tasks)}: each must be a task's name, such as reacher-easy")
    if not all(isinstance(preset, str) and preset.split() for preset in presets):
        raise ConfigError(f"presets={_listed(presets)}: each must name an experiment, such as tiny")
    folders = [preset_dir(Path(), preset) for preset in presets]
    if len(set(folders)) < len(folders):
        raise ConfigError(
            f"presets={_listed(presets)}: two of them differ in what a folder's name leaves out"
        )
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        raise ConfigError(f"seeds={_listed(seeds)}: each must be a whole number, at least 0")
    if reference is not None and not Path(reference).is_dir():
        raise ConfigError(f"reference={reference}: there is no such folder; it holds METHOD/TASK.csv")


def _listed(values: Sequence[Any]) -> str:
    return f"[{','.join(map(str, values))}]"


def _run_all(cells: list[Cell], episodes: int, launch: Launch) -> None:
    """Run what is missing; what is running when one fails, or when a signal comes, is stopped and saved."""
    missing = [cell for cell in cells if cell.commands(episodes)]
    with ProgressDisplay("bench learning", len(cells), "runs", done=len(cells) - len(missing)) as display:
        if not missing:
            return
        with _launched(launch, episodes, display) as run:
            running = [run(cell) for cell in missing]
            for done, future in enumerate(as_completed(running), start=len(cells) - len(missing) + 1):
                try:
                    cell = future.result()
                except BrokenExecutor as error:
                    raise RunError(f"{error}: the same bench command goes on from there") from error
                display.update(done)
                display.note(f"finished {cell.directory}")


@contextmanager
def _launched(
    launch: Launch, episodes: int, display: ProgressDisplay
) -> Iterator[Callable[[Cell], Future[Cell]]]:
    """What starts a cell, here or on a cluster; where the block is left by an error, runs are stopped."""
    if launch.is_ray:
        with launch.workers() as workers:
            yield lambda cell: workers.submit(_run_cell, _anywhere(cell), episodes)
        return
    processes = Processes()
    with ThreadPoolExecutor(launch.num_workers or num_cores()) as pool:
        try:
            yield lambda cell: pool.submit(_run_cell, cell, episodes, processes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            if num_ending := processes.stop():
                display.note(f"stopping: {num_ending} further runs are saved ...")
            raise


def _anywhere(cell: Cell) -> Cell:
    """The same, with a path that means the same in another folder."""
    return replace(cell, directory=cell.directory.absolute())


def _run_cell(cell: Cell, episodes: int, processes: Processes | None = None) -> Cell:
    processes = processes or Processes()
    cell.directory.parent.mkdir(parents=True, exist_ok=True)
    commands = cell.commands(episodes)
    log_path = cell.directory.parent / f"{cell.directory.name}.log"
    record_start(
        cell.directory,
        preset=cell.preset,
        command=shlex.join(["worldmodel", *commands[0]]),
        is_new=cell.is_new,
    )
    for command in commands:
        with log_path.open("a") as log:
            code = processes.run([sys.executable, "-m", "worldmodel.apps.child", *command], log)
        if code:
            last = log_path.read_text().strip().splitlines()[-1:]
            raise RunError(
                f"`{shlex.join(['worldmodel', *command])}` ended with {code}: {' '.join(last)} "
                f"(whole output: {log_path}). The same bench command goes on from here"
            )
    return cell
