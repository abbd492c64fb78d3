"""The loop of every training run: advance, log, evaluate, save, until the target is reached."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from planners import PlannerError
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.allocation import keep_freed_memory
from worldmodel.apps.build import (
    build_acceleration,
    build_device,
    build_env,
    build_model,
    build_planning_agent,
    build_trainer,
)
from worldmodel.apps.evaluation import Evaluation, ReturnEvaluation
from worldmodel.apps.following import lead
from worldmodel.apps.foresight import Foresight, LearnedForesight
from worldmodel.apps.goals import GoalEvaluation, GoalForesight, is_goal_task
from worldmodel.apps.interruption import Interruption
from worldmodel.apps.learner import Learner
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.resumed import progress_of
from worldmodel.apps.run import default_num_threads, lock_run
from worldmodel.apps.statistics import mean_interval
from worldmodel.apps.training_checks import check_training
from worldmodel.data import Episode, EpisodeDataset, TaskDatasets
from worldmodel.errors import DivergenceError, PeerError
from worldmodel.model import WorldModel, single_task
from worldmodel.training import (
    Checkpoint,
    MetricLogger,
    Order,
    Processes,
    Trainer,
    diverged,
    save_checkpoint,
)
from worldmodel.training.checkpoint import generator_state, restored_generator


class Training(ABC):
    """A trainer with its run folder; subclasses say where the experience comes from.

    `config` is that of `configs/train.yaml` as plain values; `checkpoint` is where a resumed run goes on;
    `processes` are those that train, of which this is the first. Errors: `ConfigError` for values that make
    no sense.
    """

    unit: ClassVar[str]
    dataset: EpisodeDataset | TaskDatasets

    def __init__(
        self, run_dir: Path, config: dict[str, Any], checkpoint: Checkpoint | None, processes: Processes
    ) -> None:
        check_training(config)
        processes.part(config["training"]["batch_size"])
        torch.set_num_threads(default_num_threads(config["num_threads"], processes.num_local))
        keep_freed_memory()
        self.run_dir, self.config, self.processes = run_dir, config, processes
        self._lock = lock_run(run_dir)
        self.seed: int = config["seed"]
        self.device = build_device(config["device"], processes)
        acceleration = build_acceleration(config, self.device)
        info = self._begun_at = progress_of(checkpoint)
        self.num_episodes: int = info["num_episodes"]
        self.evaluated_at: int = info["evaluated_at"]  # of `progress`
        self.seconds: float = info["training_seconds"]
        self.cpu_seconds: float = info["training_cpu_seconds"]
        self.envs = [
            build_env(task, config["env"], num_envs=config["num_envs"], seed=self.seed)
            for task in config["tasks"] or [config["task"]]
        ]
        self.env = self.envs[0]
        self.trainer: Trainer
        if checkpoint is None:
            model = build_model(config["model"], *self.envs, seed=self.seed).to(self.device)
            self.trainer = build_trainer(config["training"], model, seed=self.seed, processes=processes)
            self.chance = np.random.default_rng(self.seed)
        else:
            checkpoint.model.to(self.device)
            self.trainer = checkpoint.trainer(processes)
            self.chance = restored_generator(info["sampling_state"])
        self.trainer.accelerate(acceleration)
        self._learner = Learner(config, self.trainer, self.chance, self.device, info["update_cpu_seconds"])
        self._acceleration = acceleration
        # Experience is made with the weights as they are (averaged ones lag behind where much is still to be
        # learned, and repeat what is known), and is judged, as it will be used, with their average.
        self._foresight, self._averaged_foresight = (
            LearnedForesight(model, discount=self.trainer.settings.discount, acceleration=acceleration)
            if isinstance(model, WorldModel)
            else None
            for model in (self.trainer.model, self.trainer.averaged_model)
        )
        self.metrics = MetricLogger(run_dir)

    @property
    @abstractmethod
    def progress(self) -> int:
        """How far the run is, in `unit`s."""

    @property
    @abstractmethod
    def target(self) -> int:
        """Where `progress` ends."""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress >= self.target

    @abstractmethod
    def advance(self) -> dict[str, str]:
        """Go on by one step; returns numbers to show."""

    def lead(self) -> None:
        """Make the other processes, if there are any, ready to train with this one."""
        lead(self._learner, self.dataset)

    def run(self) -> list[float]:
        """Train until the target; what the last evaluation found. Saves a checkpoint whatever ends it.

        Errors: `DivergenceError` where training made no sense any more, `PeerError` where another process
        failed: in the midst of an update, perhaps. The last checkpoint then stays.
        """
        config = self.config
        evaluations = self._evaluations()
        interruption, is_sound, returns = Interruption(), True, list[float]()
        due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
        with interruption.held_back():
            try:
                with ProgressDisplay(config["task"], self.target, self.unit, done=self.progress) as display:
                    while True:
                        is_due = self.progress >= _next_multiple(self.evaluated_at, config["eval_every"])
                        is_due |= self.is_over and self.evaluated_at < self.progress
                        if evaluations and is_due:
                            with interruption.allowed():
                                returns = self._evaluate(evaluations, display)
                        if self.progress >= due_checkpoint:
                            due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
                            self.save()
                        if self.is_over:
                            break
                        interruption.raise_if_requested()
                        began, cpu_began = time.perf_counter(), time.process_time()
                        numbers = self.advance()
                        self.seconds += time.perf_counter() - began
                        self.cpu_seconds += time.process_time() - cpu_began
                        if numbers or self.trainer.num_updates % 50 == 0:
                            display.update(self.progress, numbers)
            except (DivergenceError, PeerError):
                is_sound = False
                raise
            except PlannerError as error:  # the model imagines nothing but NaN
                is_sound = False
                raise diverged(self.trainer, str(error)) from error
            finally:
                try:
                    if is_sound:
                        self.save()
                finally:
                    for evaluation in evaluations:
                        evaluation.close()
                    self.close()
        return returns

    def save(self) -> Path:
        """Write a checkpoint."""
        info = {
            "env_steps": self.progress,
            "num_episodes": self.num_episodes,
            "evaluated_at": self.evaluated_at,
            "training_seconds": self.seconds,
            "training_cpu_seconds": self.cpu_seconds,
            "update_cpu_seconds": self._learner.cpu_seconds,
            "task": self.env.task if len(self.envs) == 1 else self.config["task"],
            "tasks": [env.task for env in self.envs],
            "config": self.config,
            "sampling_state": generator_state(self.chance),
            **self.further_state(),
        }
        keep = self.config["keep_checkpoints"]
        return save_checkpoint(self.run_dir / "checkpoints", self.trainer, info, keep=keep)

    def further_state(self) -> dict[str, Any]:
        """What a subclass needs to go on, as JSON."""
        return {}

    def close(self) -> None:
        """Free environments, files and the run folder."""
        for env in self.envs:
            env.close()
        self.metrics.close()
        self._lock.release()

    def planning_agent(self, *, seed: int, is_averaged: bool) -> PlanningAgent:
        """The agent that plans in the (averaged) model as it is, and as it becomes; without exploration."""
        foresight = self._averaged_foresight if is_averaged else self._foresight
        assert foresight is not None, "a model without rewards needs a goal"
        return build_planning_agent(foresight, self.config["planner"], seed=seed)

    def update(self) -> dict[str, str]:
        """One update from the dataset; every hundredth is logged and returned to show."""
        self.processes.order(Order.UPDATE)
        values = self._learner.update(self.dataset)
        if not values:
            return {}
        self.metrics.log(
            self.progress, {f"train/{name}": value for name, value in values.items()} | self._cost()
        )
        return {
            name.removeprefix("embedding_").removesuffix("_loss"): f"{values[name]:.3f}"
            for name in self.trainer.shown
        }

    def normalize(self, episode: Episode, task: int = 0) -> None:
        """Take an episode into the statistics of observations of its task."""
        if "state" in self.trainer.model.size.observes:
            state = torch.from_numpy(np.array(episode.observation["state"])).to(self.device)
            self.trainer.model.encoder.update_statistics({"state": state, "task": torch.tensor(task)})

    def share_statistics(self) -> None:
        """Hand what `normalize` has taken in to the other processes."""
        self.processes.order(Order.SHARE)
        self._learner.share_statistics()

    def _evaluations(self) -> list[Evaluation]:
        """What says how good it is, one for each task; nothing does without rewards and without goals."""
        kind: type[Evaluation]
        config = self.config
        if isinstance(self.trainer.model, WorldModel):
            kind = ReturnEvaluation
        elif is_goal_task(config["task"]):
            kind = GoalEvaluation
        else:
            return []
        return [
            kind(task, config["env"], num_episodes=config["eval_episodes"], seed=self.seed)
            for task in config["tasks"] or [config["task"]]
        ]

    def _evaluate(self, evaluations: Sequence[Evaluation], display: ProgressDisplay) -> list[float]:
        """What each episode came to; of several tasks, the mean over them."""
        began = time.perf_counter()
        each = [
            evaluation.values(self._judged_agent(evaluation, task))
            for task, evaluation in enumerate(evaluations)
        ]
        self.evaluated_at = self.progress
        found = np.mean(each, axis=0).tolist()
        summary, what, told = mean_interval(found), evaluations[0].measure, evaluations[0].told
        metrics = {
            f"eval/{what}": summary.mean,
            f"eval/{what}_low": summary.low,
            f"eval/{what}_high": summary.high,
            "eval/seconds": time.perf_counter() - began,
        }
        reached = f"{self.progress:>8} {self.unit}  {self.seconds / 60:5.1f} min"
        display.note(f"{reached}  evaluation {what} {told(summary)}")
        if len(self.envs) > 1:
            for env, values in zip(self.envs, each, strict=True):
                metrics[f"eval/{what}/{env.task}"] = float(np.mean(values))
                display.note(f"{'':>{len(reached)}}  {env.task} {told(mean_interval(values))}")
        self.metrics.log(self.progress, metrics | self._cost())
        return found

    def _judged_agent(self, evaluation: Evaluation, task: int) -> PlanningAgent:
        model = self.trainer.averaged_model
        foresight: Foresight
        if isinstance(evaluation, GoalEvaluation):
            foresight = GoalForesight(model, evaluation.goals, acceleration=self._acceleration)
        elif isinstance(model, WorldModel) and model.size.tasks:
            # Not compiled: that would be done anew for each task in each evaluation.
            discount = self.trainer.settings.discount
            foresight = LearnedForesight(single_task(model, task), discount=discount)
        else:
            return self.planning_agent(seed=0, is_averaged=True)
        return build_planning_agent(foresight, self.config["planner"], seed=0)

    def _cost(self) -> dict[str, int | float]:
        return {
            "train/num_updates": self.trainer.num_updates,
            "train/seconds": self.seconds,
            "train/cpu_seconds": self.cpu_seconds,
            "train/update_cpu_seconds": self._learner.cpu_seconds,
        }


def _next_multiple(value: int, step: int) -> int:
    return (value // step + 1) * step
