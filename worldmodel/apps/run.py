"""A run folder: configuration, metrics, recorded episodes and checkpoints of one execution."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from envs import EnvError
from planners import PlannerError
from worldmodel.apps.config import check_saved
from worldmodel.errors import ConfigError, PeerError, RunError
from worldmodel.files import TEMPORARY_PREFIX, reason_of, write_json

CONFIG_FILE = "config.json"
# What may change when a run goes on; everything else would make it another run.
CHANGEABLE = {
    "run_dir", "resume", "device", "compile", "precision", "num_threads", "env_steps", "num_updates",
    "eval_every", "eval_episodes", "checkpoint_every", "keep_checkpoints",
    "collector", "num_workers", "ray_address", "publish_every", "max_staleness", "stretch_steps", "max_ahead",
}  # fmt: skip


def check_new_run(directory: Path) -> None:
    """Check that a run can begin here. Errors: `RunError` where something is there already."""
    if (directory / CONFIG_FILE).exists():
        raise RunError(
            f"run_dir={directory} holds a run already; go on with it (`worldmodel train run_dir={directory} "
            "resume=true`), or choose another run_dir="
        )
    # What somebody who was killed just after they began has left is no hindrance.
    if directory.exists() and (
        not directory.is_dir()
        or not all(entry.name.startswith(TEMPORARY_PREFIX) for entry in directory.iterdir())
    ):
        raise RunError(f"run_dir={directory} exists and is no run folder; choose another run_dir=")


def is_same_run(directory: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds a run that the same command began, before a launcher repeated it."""
    if not (directory / CONFIG_FILE).exists():
        return False
    saved = read_config(directory)
    kept = (config.keys() | saved.keys()) - CHANGEABLE
    return all(key in saved and key in config and saved[key] == config[key] for key in kept)


@contextmanager
def opened_run(directory: Path, config: dict[str, Any]) -> Iterator[None]:
    """Around what prepares a run, new or resumed: a mistake in `config` leaves the disk as it was.

    Errors: `RunError` where the folder cannot be written.
    """
    is_new = not (directory / CONFIG_FILE).exists()
    added_parents = [parent for parent in directory.parents if not parent.exists()]
    try:
        if is_new:
            _write_config(directory, config)
        yield
        _write_config(directory, config)  # a run that is resumed again has the newest target
    except BaseException:
        if is_new:
            shutil.rmtree(directory, ignore_errors=True)
            with suppress(OSError):  # not empty: another run has come to live there
                for parent in added_parents:
                    parent.rmdir()
        raise


@contextmanager
def going_on_with(command: str) -> Iterator[None]:
    """Around what saves whatever ends it: say with which command it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nsaved; go on with:  {command}", file=sys.stderr)
        raise
    except (EnvError, PlannerError) as error:
        raise RunError(f"{error}. What was done so far is saved; go on with: {command}") from error
    except PeerError as error:
        raise PeerError(f"{error}. The last checkpoint is whole; go on with: {command}") from error


def resumed_config(directory: Path, config: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The configuration a run was started with, and from `config` what was given and may change.

    Errors: `RunError` where there is no run, or a given key would make it another run.
    """
    saved = read_config(directory)
    named = _named_tasks(saved)
    if any(map(would_import, saved.get("tasks") or [saved["task"]])) and not {"task", "tasks"} & given:
        what = named.partition("=")[2]
        raise RunError(f"{directory} trains {what}, whose module is imported: give {named}")
    for key in given:
        value, old = _get(config, key), _get(saved, key)
        # An experiment leaves no trace of its name in the configuration.
        if key not in CHANGEABLE and (value != old or key == "experiment"):
            started = f"another {key}" if isinstance(old, dict) else f"{key}={old}"
            raise RunError(
                f"{directory} was started with {started}; a resumed run keeps it. "
                f"May change: {', '.join(sorted(CHANGEABLE))}"
            )
    # Keys newer than the run: what is not set is as it was.
    unset = {key for key, value in config.items() if value in ([], {})}
    later = {key: config[key] for key in (CHANGEABLE | unset) - saved.keys()}
    if missing := sorted(config.keys() - saved.keys() - later.keys()):
        raise RunError(
            f"{directory} was started by an older version, which did not know {', '.join(missing)}: "
            "go on with that version, or start a new run"
        )
    return later | saved | {key: config[key] for key in given | {"run_dir", "resume"} if key in CHANGEABLE}


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of a run folder, whoever wrote it. Errors: `RunError` where it is none."""
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"there is no run in {directory}: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    try:
        check_saved(config)
    except ConfigError as error:
        raise RunError(f"cannot use {path}: {error}") from error
    return config


def would_import(task: str) -> bool:
    """Whether a task `module:id` would import its module: the user's to say, not a file's."""
    module, colon, _ = task.partition(":")
    return bool(colon) and module not in sys.modules


def resume_command(directory: Path, config: dict[str, Any]) -> str:
    """The command line that goes on with a run."""
    words = ["worldmodel", "train", f"run_dir={directory}", "resume=true"]
    tasks = config["tasks"] or [config["task"]]
    return shlex.join(words + ([_named_tasks(config)] if any(":" in task for task in tasks) else []))


def _named_tasks(config: dict[str, Any]) -> str:
    """The override that names a run's task, or its tasks."""
    return f"tasks=[{','.join(config['tasks'])}]" if config.get("tasks") else f"task={config['task']}"


def lock_run(directory: Path) -> FileLock:
    """Hold a run folder until `release()` or the process ends. Errors: `RunError` where another holds it."""
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"run_dir={directory} is in use by another process; choose another run_dir=") from None
    return lock


def default_num_threads(num_threads: int, num_processes: int = 1) -> int:
    """Threads that torch may use: never more than this process's share of the cores it may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_threads, cores // num_processes))


def _write_config(directory: Path, config: dict[str, Any]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / CONFIG_FILE, config)
    except OSError as error:
        raise RunError(f"cannot write run_dir={directory}: {reason_of(error)}") from error


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
