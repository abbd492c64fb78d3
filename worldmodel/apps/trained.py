"""A trained run, opened again: its model, how it was configured, and the agents made from it."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import envs
from worldmodel.apps.agent import Agent, PlanningAgent, PolicyAgent
from worldmodel.apps.build import build_acceleration, build_device, build_planning_agent
from worldmodel.apps.config import check_saved, closest
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.pretrained import is_packaged, resolve
from worldmodel.apps.run import would_import
from worldmodel.apps.simple_agents import ColoredNoiseAgent, RandomAgent, ZeroAgent
from worldmodel.errors import CheckpointError, ConfigError
from worldmodel.model import Acceleration, LatentModel, WorldModel, single_task
from worldmodel.training import Checkpoint, load_checkpoint

AGENTS = ("planner", "policy", "random", "zero", "colored")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What `open_run` gives."""

    checkpoint: Checkpoint
    task: str
    config: dict[str, Any]
    discount: float
    acceleration: Acceleration = field(default_factory=Acceleration)
    disagreement_weight: float = 0.0
    subfolder: str = ""  # of a model of several tasks, the task's

    @property
    def model(self) -> LatentModel:
        """The learned model."""
        return self.checkpoint.model

    @property
    def world_model(self) -> WorldModel:
        """The learned model, with rewards. Errors: `ConfigError` for one that was trained without."""
        if not isinstance(self.model, WorldModel):
            raise ConfigError(
                f"{self.checkpoint.path} was trained without rewards: it plans to goals (`worldmodel control "
                "goal=...`), and has no policy and no value"
            )
        return self.model

    @property
    def directory(self) -> Path:
        """The run folder that the checkpoint lies in (or beside); of an exported model, its own folder.

        Of a model of several tasks, the task's folder in there. A model of the package is used from there,
        and not written to.
        """
        path, parent = self.checkpoint.path, self.checkpoint.path.parent
        if is_packaged(path):
            return Path("runs") / "pretrained" / path.name
        if self.checkpoint.is_exported:
            return path
        return (parent.parent if parent.name == "checkpoints" else parent) / self.subfolder

    @cached_property  # what is compiled for it serves all agents
    def foresight(self) -> LearnedForesight:
        """Futures imagined in the learned world model."""
        return LearnedForesight(
            self.world_model,
            discount=self.discount,
            disagreement_weight=self.disagreement_weight,
            acceleration=self.acceleration,
        )

    def planner_config(self, given: dict[str, Any] | None) -> dict[str, Any]:
        """The planner that was asked for; what it leaves open (all of it, if None), as it was trained."""
        if given is not None and "name" in given:
            return given
        trained, given = self.config["planner"], given or {}
        merged = trained | given
        for part in ("basis", "noise"):
            if part in given:
                merged[part] = given[part] if "name" in given[part] else trained.get(part, {}) | given[part]
                if "name" not in merged[part]:
                    raise ConfigError(
                        f"planner.{part}.{min(given[part])}= needs a {part}: choose one with {part}="
                    )
        return merged

    def planning_agent(self, planner_config: dict[str, Any] | None = None, *, seed: int = 0) -> PlanningAgent:
        """The agent that plans in the model, with a planner as `planner_config` says."""
        return build_planning_agent(self.foresight, self.planner_config(planner_config), seed=seed)


def open_run(path: str | Path, *, task: str | None = None) -> TrainedRun:
    """Open a run folder, a checkpoint, or a model of the package (`pretrained/NAME`).

    A model of several tasks is opened as one of `task` alone, as if it had learned nothing else.
    Errors: `CheckpointError` for a damaged one, and for one that was trained on another `task`.
    """
    checkpoint = load_checkpoint(resolve(path))
    trained_on, config = _trained_as(checkpoint)
    subfolder = ""
    if checkpoint.model.size.tasks:
        checkpoint, config = _for_one_task(checkpoint, config, task)
        trained_on = subfolder = checkpoint.info["task"]
    typed = config["task"]
    if would_import(typed) and task != typed:
        raise CheckpointError(
            f"{checkpoint.path} was trained on {typed}, whose module is imported; "
            f"give task={typed} to allow it"
        )
    if task is not None and envs.canonical_task(task) != trained_on:
        raise CheckpointError(
            f"task={task}, but {checkpoint.path} was trained on {trained_on}: leave out task=, or give a "
            f"checkpoint trained on {task}"
        )
    return TrainedRun(
        checkpoint=checkpoint,
        task=typed,  # as it was typed: `module:id` imports its module again
        config=config,
        discount=checkpoint.settings.discount,
        subfolder=subfolder,
    )


def _for_one_task(
    checkpoint: Checkpoint, config: dict[str, Any], task: str | None
) -> tuple[Checkpoint, dict[str, Any]]:
    """One task of a model that learned several, as a model, and a run, of that alone."""
    path, several = checkpoint.path, checkpoint.model
    assert isinstance(several, WorldModel)
    names, typed, datasets = (
        list(map(str, told)) if isinstance(told, list) else []
        for told in (checkpoint.info.get("tasks"), config.get("tasks"), config.get("datasets"))
    )
    if {len(names), len(typed), len(datasets)} != {len(several.size.tasks)}:
        raise CheckpointError(
            f"{path} does not name each of the {len(several.size.tasks)} tasks that its model is of"
        )
    known = ", ".join(names)
    if task is None:
        raise CheckpointError(f"{path} was trained on several tasks: name one with task=. They are {known}")
    name = envs.canonical_task(task)
    if name not in names:
        raise CheckpointError(
            f"task={task}: {path} was trained on other tasks{closest(name, names)}. They are {known}"
        )
    index = names.index(name)
    model = single_task(several, index)
    own = {"task": typed[index], "tasks": [], "dataset": datasets[index], "datasets": []}
    one = replace(
        checkpoint,
        model=model,
        info=checkpoint.info | {"task": name},
        state=checkpoint.state | {"size": model.config()},
    )
    return one, config | own


def _trained_as(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Its task and its configuration, whoever wrote them. Errors: `CheckpointError`."""
    task, config = (checkpoint.info.get(name) for name in ("task", "config"))
    try:
        if not isinstance(task, str) or not isinstance(config, dict):
            raise ConfigError("it names no task, or has no configuration")
        check_saved(config)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path} does not say how it was trained: {error}") from error
    return task, config


def open_accelerated(config: dict[str, Any]) -> TrainedRun | None:
    """The run of `checkpoint`, on `device` and accelerated as `compile` and `precision` say; or None.

    Errors: as `open_run`, and `ConfigError` for what does not run here.
    """
    device = build_device(config["device"])
    acceleration = build_acceleration(config, device)
    if config["checkpoint"] is None:
        return None
    run = open_run(config["checkpoint"], task=config["task"])
    run.model.to(device)
    return replace(run, acceleration=acceleration)


def load_agent(path: str | Path, *, task: str | None = None, seed: int = 0) -> PlanningAgent:
    """The planning agent of a run folder, ready to act: `load_agent("runs/demo").act(observation).action`.

    Errors: as `open_run`.
    """
    return open_run(path, task=task).planning_agent(seed=seed)


def make_agent(
    name: str,
    action_dim: int,
    *,
    seed: int,
    run: TrainedRun | None = None,
    planner_config: dict[str, Any] | None = None,
) -> Agent:
    """An agent by name. Errors: `ConfigError` for an unknown name, or one that needs a checkpoint."""
    chance = np.random.default_rng(seed)
    if name == "random":
        return RandomAgent(action_dim, chance)
    if name == "zero":
        return ZeroAgent(action_dim)
    if name == "colored":
        return ColoredNoiseAgent(action_dim, chance)
    if name in AGENTS and run is None:
        raise ConfigError(f"the agent {name!r} needs a trained model: give checkpoint=RUN_DIR")
    if name == "policy" and run is not None:
        return PolicyAgent(run.world_model)
    if name == "planner" and run is not None:
        return run.planning_agent(planner_config, seed=seed)
    raise ConfigError(f"there is no agent {name!r}{closest(name, AGENTS)}. Known: {', '.join(AGENTS)}")
