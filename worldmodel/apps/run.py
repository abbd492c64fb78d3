"""A run folder: configuration, metrics, recorded episodes and checkpoints of one execution."""

import json
import os
from pathlib import Path
from typing import Any

from worldmodel.errors import RunError
from worldmodel.files import write_json

CONFIG_FILE = "config.json"
# What may change when a run goes on; everything else would make it another run.
CHANGEABLE = {
    "run_dir", "resume", "device", "num_threads", "env_steps", "num_updates",
    "eval_every", "eval_episodes", "checkpoint_every", "keep_checkpoints",
}  # fmt: skip


def create_run(directory: Path, config: dict[str, Any]) -> None:
    """Make the folder. Errors: `RunError` where one is there already, or it cannot be made."""
    if (directory / CONFIG_FILE).exists():
        raise RunError(
            f"run_dir={directory} holds a run already; go on with it (`worldmodel train run_dir={directory} "
            "resume=true`), or choose another run_dir="
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RunError(f"run_dir={directory} exists and is no run folder; choose another run_dir=")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / CONFIG_FILE, config)
    except OSError as error:
        raise RunError(f"cannot make run_dir={directory}: {error.strerror or error}") from error


def resumed_config(directory: Path, config: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """The configuration a run was started with, and from `config` what was given and may change.

    Errors: `RunError` where there is no run, or a given key would make it another run.
    """
    saved = read_config(directory)
    for key in given:
        value, old = _get(config, key), _get(saved, key)
        if key.split(".")[0] not in CHANGEABLE and value != old:
            raise RunError(
                f"{key}={value}, but {directory} was started with {key}={old}; a resumed run keeps it. "
                f"May change: {', '.join(sorted(CHANGEABLE))}"
            )
    return saved | {key: config[key] for key in given | {"run_dir", "resume"} if key in CHANGEABLE}


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of a run folder. Errors: `RunError` where it is none."""
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"there is no run in {directory}: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise RunError(f"cannot read {path}: expected a JSON object")
    return config


def default_num_threads(num_threads: int) -> int:
    """Threads that torch may use: never more than the cores this process may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_threads, cores))


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
