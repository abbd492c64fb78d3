"""What can be chosen on the page: models of the package, run folders, and the simulator itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import envs
from worldmodel.apps.config import compose_config, quoted, to_dict
from worldmodel.apps.pretrained import pretrained_names

ORACLE = "oracle"
_MAX_DEPTH = 4  # of run folders below the folder of runs
# What belongs to a model or task, and not to the page that shows it.
_SUBJECT_KEYS = {"model", "env", "planner", "checkpoint", "task", "goal", "trail", "camera"}


def models(runs: Path) -> list[str]:
    """The simulator, the models of the package, and run folders with a checkpoint, newest first."""
    found = [path.parent.parent for path in _states(runs)]
    folders = sorted(set(found), key=lambda path: path.stat().st_mtime, reverse=True)
    return [ORACLE, *(f"pretrained/{name}" for name in pretrained_names()), *map(str, folders)]


def oracle_tasks() -> list[str]:
    """The tasks that the simulator can plan in."""
    return sorted(envs.batch_task_names())


def chosen(config: Mapping[str, Any], model: str, task: str) -> dict[str, Any]:
    """The configuration with another model; `task` counts for the simulator alone.

    Errors: `ConfigError` as `compose_config`.
    """
    if model == ORACLE:
        words = ["model=oracle", quoted("task", task), "planner=icem", "budget=oracle"]
    else:
        words = [quoted("checkpoint", model)]
    fresh = to_dict(compose_config("view", words))
    return fresh | {key: value for key, value in config.items() if key not in _SUBJECT_KEYS}


def model_of(config: Mapping[str, Any]) -> str:
    """What plans, as `models` names it."""
    if config["checkpoint"] is None or (config.get("model") or {}).get("name") == ORACLE:
        return ORACLE
    return str(config["checkpoint"])


def _states(runs: Path) -> list[Path]:
    pattern = "checkpoints/step_*"
    return [path for depth in range(_MAX_DEPTH) for path in runs.glob("*/" * (depth + 1) + pattern)]
