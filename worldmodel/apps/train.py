"""Training: online (act, record, update, evaluate, repeat) or offline (from a dataset)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces

import envs
from envs.registry import check_exists
from worldmodel.apps.datasets.bounds import breaks_bounds, largest_of
from worldmodel.apps.learner import open_dataset
from worldmodel.apps.online import OnlineTraining
from worldmodel.apps.run import would_import
from worldmodel.apps.training_loop import Training
from worldmodel.data import EpisodeDataset
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError
from worldmodel.training import ALONE, Checkpoint, Processes, load_checkpoint


def make_training(run_dir: Path, config: dict[str, Any], processes: Processes = ALONE) -> Training:
    """The training that `config` (`configs/train.yaml` as plain values) asks for, new or resumed.

    The other `processes` are ready to `follow` it. Errors: `ConfigError`, `CheckpointError`, `DatasetError`
    or `EnvError` for a user's mistake; `PeerError` where another process met one.
    """
    has_checkpoint = any((run_dir / "checkpoints").glob("step_*"))
    checkpoint = load_checkpoint(run_dir) if config["resume"] and has_checkpoint else None
    kind = OnlineTraining if config["dataset"] is None else OfflineTraining
    training = kind(run_dir, config, checkpoint, processes)
    training.lead()
    return training


class OfflineTraining(Training):
    """Experience comes from a dataset that `worldmodel collect` recorded; it is only read."""

    unit = "updates"

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        checkpoint: Checkpoint | None,
        processes: Processes = ALONE,
    ) -> None:
        if config["collector"] != "local":
            raise ConfigError(
                f"collector={config['collector']} is for acting: leave it out, or leave out dataset="
            )
        super().__init__(run_dir, config, checkpoint, processes)
        self.dataset = open_dataset(config["dataset"], processes)
        check_dataset(self.dataset, self.env, config["dataset"], self.trainer.model.size.observes)
        if checkpoint is None:
            largest_action = 0.0
            for episode in self.dataset:
                self.normalize(episode)
                largest_action = max(largest_action, largest_of(episode.action))
            if wrong := breaks_bounds(largest_action):
                raise ConfigError(f"dataset={config['dataset']}: {wrong}")

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
