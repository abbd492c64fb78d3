"""The loop of every training run: advance, log, evaluate, save, until the target is reached."""

import time
from abc import ABC, abstractmethod
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
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.evaluation import Evaluation, ReturnEvaluation
from worldmodel.apps.following import lead
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.apps.goals import GoalEvaluation, GoalForesight, is_goal_task
from worldmodel.apps.interruption import Interruption
from worldmodel.apps.learner import Learner
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.resumed import progress_of
from worldmodel.apps.run import default_num_threads, lock_run
from worldmodel.apps.statistics import mean_interval
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError, DivergenceError, PeerError
from worldmodel.model import WorldModel
from worldmodel.training import (
    ALONE,
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
    dataset: EpisodeDataset

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        checkpoint: Checkpoint | None,
        processes: Processes = ALONE,
    ) -> None:
        _check(config)
        processes.part(config["training"]["batch_size"])
        torch.set_num_threads(default_num_threads(config["num_threads"], processes.num_local))
        keep_freed_memory()
        self.run_dir, self.config, self.processes = run_dir, config, processes
        self._lock = lock_run(run_dir)
        self.seed: int = config["seed"]
        self.device = build_device(config["device"], processes)
        acceleration = build_acceleration(config, self.device)
        info = progress_of(checkpoint)
        self.num_episodes: int = info["num_episodes"]
        self.evaluated_at: int = info["evaluated_at"]  # of `progress`
        self.seconds: float = info["training_seconds"]
        self.cpu_seconds: float = info["training_cpu_seconds"]
        self.env = build_env(config["task"], config["env"], num_envs=config["num_envs"], seed=self.seed)
        self.trainer: Trainer
        if checkpoint is None:
            model = build_model(config["model"], self.env, seed=self.seed).to(self.device)
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
        evaluation = self._evaluation()
        interruption, is_sound = Interruption(), True
        returns: list[float] = []
        due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
        with interruption.held_back():
            try:
                with ProgressDisplay(config["task"], self.target, self.unit, done=self.progress) as display:
                    while True:
                        is_over = self.is_over
                        due_evaluation = _next_multiple(self.evaluated_at, config["eval_every"])
                        is_due = self.progress >= due_evaluation
                        is_due |= is_over and self.evaluated_at < self.progress
                        if evaluation is not None and is_due:
                            with interruption.allowed():
                                returns = self._evaluate(evaluation, display)
                        if self.progress >= due_checkpoint:
                            due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
                            self.save()
                        if is_over:
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
                    if evaluation is not None:
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
            "task": self.env.task,
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
        self.env.close()
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
        return {name.removesuffix("_loss"): f"{values[name]:.3f}" for name in self.trainer.shown}

    def normalize(self, episode: Episode) -> None:
        """Take an episode into the statistics of observations."""
        if "state" in self.trainer.model.size.observes:
            state = torch.from_numpy(np.array(episode.observation["state"])).to(self.device)
            self.trainer.model.encoder.update_statistics({"state": state})

    def share_statistics(self) -> None:
        """Hand what `normalize` has taken in to the other processes."""
        self.processes.order(Order.SHARE)
        self._learner.share_statistics()

    def _evaluation(self) -> Evaluation | None:
        """What says how good it is; nothing does without rewards and without goals."""
        kind: type[Evaluation]
        if isinstance(self.trainer.model, WorldModel):
            kind = ReturnEvaluation
        elif is_goal_task(self.config["task"]):
            kind = GoalEvaluation
        else:
            return None
        task, num_episodes = self.config["task"], self.config["eval_episodes"]
        return kind(task, self.config["env"], num_episodes=num_episodes, seed=self.seed)

    def _evaluate(self, evaluation: Evaluation, display: ProgressDisplay) -> list[float]:
        began = time.perf_counter()
        found = evaluation.values(self._judged_agent(evaluation))
        self.evaluated_at = self.progress
        summary = mean_interval(found)
        what = evaluation.measure
        self.metrics.log(
            self.progress,
            {
                f"eval/{what}": summary.mean,
                f"eval/{what}_low": summary.low,
                f"eval/{what}_high": summary.high,
                "eval/seconds": time.perf_counter() - began,
                **self._cost(),
            },
        )
        reached = f"{self.progress:>8} {self.unit}  {self.seconds / 60:5.1f} min"
        display.note(f"{reached}  evaluation {what} {evaluation.told(summary)}")
        return found

    def _judged_agent(self, evaluation: Evaluation) -> PlanningAgent:
        if isinstance(evaluation, GoalEvaluation):
            model = self.trainer.averaged_model
            foresight = GoalForesight(model, evaluation.goals, acceleration=self._acceleration)
            return build_planning_agent(foresight, self.config["planner"], seed=0)
        return self.planning_agent(seed=0, is_averaged=True)

    def _cost(self) -> dict[str, int | float]:
        return {
            "train/num_updates": self.trainer.num_updates,
            "train/seconds": self.seconds,
            "train/cpu_seconds": self.cpu_seconds,
            "train/update_cpu_seconds": self._learner.cpu_seconds,
        }


def _check(config: dict[str, Any]) -> None:
    counts = ["num_envs", "random_steps", "max_random_steps", "exploration_steps", "env_steps"]
    counts += [
        "num_updates",
        "num_threads",
        "eval_every",
        "eval_episodes",
        "checkpoint_every",
        "keep_checkpoints",
    ]
    positive(config, *counts)
    not_negative(config, "seed", "exploration_std", "first_exploration_std")
    positive(config["training"], "batch_size")
    if not config["training"]["update_ratio"] > 0:
        raise ConfigError(f"training.update_ratio={config['training']['update_ratio']}: must be above 0")


def _next_multiple(value: int, step: int) -> int:
    return (value // step + 1) * step
