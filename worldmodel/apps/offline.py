"""Training offline: from one dataset, or from those of several tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces

import envs
from envs.registry import check_exists
from worldmodel.apps.datasets.bounds import breaks_bounds, largest_of
from worldmodel.apps.learner import open_offline
from worldmodel.apps.run import would_import
from worldmodel.apps.training_checks import check_shares
from worldmodel.apps.training_loop import Training
from worldmodel.data import EpisodeDataset, TaskDatasets
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError
from worldmodel.training import Checkpoint, Processes

SEVERAL = "multitask"  # what stands for the task of a run that has several


class OfflineTraining(Training):
    """Experience comes from what `worldmodel collect` recorded, a dataset for each task; it is only read."""

    unit = "updates"

    def __init__(
        self, run_dir: Path, config: dict[str, Any], checkpoint: Checkpoint | None, processes: Processes
    ) -> None:
        if config["collector"] != "local":
            raise ConfigError(
                f"collector={config['collector']} is for acting: leave it out, or leave out dataset="
            )
        paths = config["datasets"] or [config["dataset"]]
        check_shares(config["training"]["batch_size"], len(paths), processes.count)
        super().__init__(run_dir, config, checkpoint, processes)
        self.dataset = open_offline(config, processes)
        datasets = self.dataset.datasets if isinstance(self.dataset, TaskDatasets) else [self.dataset]
        observes = self.trainer.model.size.observes
        for task, (path, dataset, env) in enumerate(zip(paths, datasets, self.envs, strict=True)):
            check_dataset(dataset, env, path, observes, task_key="tasks" if config["datasets"] else "task")
            if checkpoint is None:
                largest_action = 0.0
                for episode in dataset:
                    self.normalize(episode, task)
                    largest_action = max(largest_action, largest_of(episode.action))
                if wrong := breaks_bounds(largest_action):
                    raise ConfigError(f"dataset={path}: {wrong}")

    @property
    def progress(self) -> int:
        """Updates."""
        return self.trainer.num_updates

    @property
    def target(self) -> int:
        """Updates to reach."""
        return self.config["num_updates"]

    def advance(self) -> dict[str, str]:
        """One update."""
        return self.update()


def with_dataset_facts(config: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """`config` with the tasks and action repeat that its datasets were recorded with, where none are `given`.

    Errors: `ConfigError` where a dataset names no task, or one whose module would be imported.
    """
    if config["datasets"]:
        return _with_facts_of_several(config, given)
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


def _with_facts_of_several(config: dict[str, Any], given: set[str]) -> dict[str, Any]:
    paths, tasks = (list(map(str, config[key])) for key in ("datasets", "tasks"))
    for key, other in (("dataset", "datasets"), ("task", "tasks")):
        if key in given:
            raise ConfigError(f"{key}= is of one dataset, and datasets= names several: give {other}= alone")
    if len(paths) < 2:
        raise ConfigError(f"datasets=[{','.join(paths)}]: several tasks have a dataset each; one is dataset=")
    if tasks and len(tasks) != len(paths):
        raise ConfigError(f"tasks= names {len(tasks)}, and datasets= {len(paths)}: each dataset has its task")
    given = given | ({"task"} if tasks else set())
    found = []
    for index, path in enumerate(paths):
        one = {"dataset": path, "datasets": []} | ({"task": tasks[index]} if tasks else {})
        found.append(with_dataset_facts(config | one, given))
    names = [facts["task"] for facts in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            first = paths[names.index(name)]
            raise ConfigError(
                f"datasets=: {first} and {paths[index]} are both of {name}; make one of them: `worldmodel "
                f"data merge datasets=[{first},{paths[index]}] output=...`"
            )
    facts = config | {"task": SEVERAL, "tasks": names, "datasets": paths, "env": found[0]["env"]}
    if "run_dir" not in given:
        facts["run_dir"] = f"runs/{SEVERAL}/offline-seed-{config['seed']}"
    return facts


def check_dataset(
    dataset: EpisodeDataset,
    env: envs.TaskVectorEnv,
    path: str,
    observes: Sequence[str],
    *,
    task_key: str = "task",
) -> None:
    """A dataset must be of the task that is trained, and hold what is observed.

    `task_key` is how the user names the task. Errors: `ConfigError`.
    """
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
            override = task_key if key == "task" else f"env.{key}"
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
