"""What a dataset says of itself, against what shall be learned from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces

import envs
from envs.registry import check_exists
from worldmodel.apps.run import would_import
from worldmodel.data import EpisodeDataset
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError


def with_dataset_facts(config: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """`config` with the task and action repeat that its dataset was recorded with, where none are `given`.

    Errors: `ConfigError` where the dataset names no task, or one whose module would be imported.
    """
    path = config["dataset"]
    info = EpisodeStore(Path(path)).info
    facts = dict(config)
    if "task" not in given:
        task = info.get("task")
        if not isinstance(task, str):
            raise ConfigError(
                f"dataset={path} names no task, and one is evaluated: give task=, an environment whose "
                "states and actions are of the same sizes"
            )
        if would_import(task):
            raise ConfigError(
                f"dataset={path} was recorded on {task}, whose module is imported; give task={task} to allow "
                "it"
            )
        try:
            check_exists(task)
        except envs.UnknownTaskError as error:
            raise ConfigError(
                f"dataset={path} says that it was recorded on {task}, which is no task here: give "
                f"task=MODULE:{task} with the module that registers it (on PYTHONPATH), or another task= of "
                "the same sizes"
            ) from error
        facts["task"] = task
    if "env.action_repeat" not in given and "action_repeat" in info:
        if type(info["action_repeat"]) is not int:
            raise ConfigError(
                f"dataset={path}: its action_repeat is no whole number; give env.action_repeat="
            )
        facts["env"] = config["env"] | {"action_repeat": info["action_repeat"]}
    if "run_dir" not in given:
        facts["run_dir"] = f"runs/{facts['task']}/offline-seed-{config['seed']}"
    return facts


def check_dataset(
    dataset: EpisodeDataset, env: envs.TaskVectorEnv, path: str, observes: Sequence[str]
) -> None:
    """A dataset must be of the task that is trained, and hold what is observed. Errors: `ConfigError`."""
    if not len(dataset):
        raise ConfigError(
            f"dataset={path} holds no episode; record some with `worldmodel collect dataset={path}`"
        )
    for name in observes:
        if f"observation.{name}" not in dataset.columns:
            raise ConfigError(
                f"dataset={path} has no observation `{name}`, which the model learns from: record it with "
                f"env.observe=[{name}] or [state,pixels]"
            )
    for key, value in (("task", env.task), ("action_repeat", env.action_repeat)):
        recorded = dataset.info.get(key, value)
        if recorded != value:
            override = key if key == "task" else f"env.{key}"
            raise ConfigError(
                f"dataset={path} was recorded with {key} {recorded}, not {value}; give {override}={recorded}"
            )
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    shapes = {f"observation.{name}": space[name].shape for name in observes}
    for column, expected in (shapes | {"action": env.single_action_space.shape}).items():
        found, what = dataset.columns[column].shape, column.removeprefix("observation.").removesuffix("s")
        if expected is not None and found != expected:
            raise ConfigError(
                f"dataset={path} has {what}s of {_told(found)} numbers, and {env.task} of {_told(expected)}: "
                "give the task that it was recorded on"
            )


def _told(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
