"""Training: online (act, record, update, evaluate, repeat) or offline (from a dataset)."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.apps.agent import RandomAgent
from worldmodel.apps.build import build_env, build_model, build_planning_agent, build_trainer
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.evaluation import Evaluation
from worldmodel.apps.interruption import Interruption
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.rollout import Collector
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.training import MetricLogger, Trainer, find_checkpoint, load_checkpoint, save_checkpoint
from worldmodel.training.checkpoint import generator_state, restored_generator


class Training:
    """All that a training run holds; `run` goes on until `env_steps` (or `num_updates`, offline).

    `config` is that of `configs/train.yaml` as plain values.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        positive(
            config, "num_envs", "eval_every", "eval_episodes", "checkpoint_every", "keep_checkpoints",
            "num_threads", "random_steps", "num_updates", "env_steps",
        )  # fmt: skip
        not_negative(config, "seed", "exploration_std")
        positive(config["training"], "batch_size")
        if not config["training"]["update_ratio"] > 0:
            raise ConfigError(f"training.update_ratio={config['training']['update_ratio']}: must be above 0")
        torch.set_num_threads(default_num_threads(config["num_threads"]))
        self.run_dir, self.config = run_dir, config
        self.is_offline = config["dataset"] is not None
        self.seed: int = config["seed"]
        self.device = _device(config["device"])
        self.env_steps = self.num_episodes = 0
        self.training_seconds = self.training_cpu_seconds = 0.0
        self._chance = np.random.default_rng(self.seed)
        # A resumed run must not meet the same starts again.
        checkpoint = load_checkpoint(run_dir) if config["resume"] and _has_checkpoint(run_dir) else None
        env_seed = (
            self.seed if checkpoint is None else self.seed + 7919 * (1 + checkpoint.info["num_episodes"])
        )
        self.env = build_env(config["task"], config["env"], num_envs=config["num_envs"], seed=env_seed)
        self.trainer: Trainer
        if checkpoint is None:
            model = build_model(config["model"], self.env, seed=self.seed).to(self.device)
            self.trainer = build_trainer(config["training"], model, seed=self.seed)
        else:
            checkpoint.model.to(self.device)
            self.trainer = checkpoint.trainer()
            self.env_steps, self.num_episodes = checkpoint.info["env_steps"], checkpoint.info["num_episodes"]
            self.training_seconds = checkpoint.info["training_seconds"]
            self.training_cpu_seconds = checkpoint.info["training_cpu_seconds"]
            self._chance = restored_generator(checkpoint.info["sampling_state"])
        self.agent = self._agent(self.seed, config["exploration_std"])
        if checkpoint is not None:
            self.agent.restore(checkpoint.info["agent_state"])
        self.dataset = self._open_dataset()
        self.metrics = MetricLogger(run_dir)

    @property
    def progress(self) -> int:
        """Env steps so far, or updates where the run is offline."""
        return self.trainer.num_updates if self.is_offline else self.env_steps

    @property
    def target(self) -> int:
        """Where `progress` ends."""
        return self.config["num_updates"] if self.is_offline else self.config["env_steps"]

    def run(self) -> list[float]:
        """Train until the target; returns of the last evaluation. Saves a checkpoint whatever happens."""
        config = self.config
        unit = "updates" if self.is_offline else "env steps"
        evaluation = Evaluation(
            config["task"], config["env"], num_episodes=config["eval_episodes"], seed=self.seed
        )
        returns: list[float] = []
        advance = self._update_once if self.is_offline else self._act_once
        self._collector = None if self.is_offline else Collector(self.env, {"policy": "planner"})
        due_evaluation = _next_multiple(self.progress, config["eval_every"])
        due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
        try:
            with (
                Interruption() as interruption,
                ProgressDisplay(config["task"], self.target, unit, done=self.progress) as display,
            ):
                while self.progress < self.target:
                    interruption.raise_if_requested()
                    began, cpu_began = time.perf_counter(), time.process_time()
                    numbers = advance()
                    self.training_seconds += time.perf_counter() - began
                    self.training_cpu_seconds += time.process_time() - cpu_began
                    if numbers or self.trainer.num_updates % 50 == 0:
                        display.update(self.progress, numbers)
                    if self.progress >= due_evaluation or self.progress >= self.target:
                        due_evaluation = _next_multiple(self.progress, config["eval_every"])
                        returns = self._evaluate(evaluation, display, unit)
                    if self.progress >= due_checkpoint:
                        due_checkpoint = _next_multiple(self.progress, config["checkpoint_every"])
                        self.save()
        finally:
            self.save()
            evaluation.close()
            self.close()
        return returns

    def save(self) -> Path:
        """Write a checkpoint."""
        return save_checkpoint(
            self.run_dir / "checkpoints",
            self.trainer,
            {
                "env_steps": self.progress,
                "num_episodes": self.num_episodes,
                "training_seconds": self.training_seconds,
                "training_cpu_seconds": self.training_cpu_seconds,
                "task": self.env.task,
                "config": self.config,
                "sampling_state": generator_state(self._chance),
                "agent_state": self.agent.state(),
            },
            keep=self.config["keep_checkpoints"],
        )

    def close(self) -> None:
        """Free environments and files."""
        self.env.close()
        self.metrics.close()

    def _act_once(self) -> dict[str, str]:
        """One agent step in every environment, and the updates it is due."""
        assert self._collector is not None
        config = self.config
        repeat: int = config["env"]["action_repeat"]
        is_random = self.env_steps < config["random_steps"] * repeat or not len(self.dataset)
        agent = RandomAgent(self.trainer.model.size.action_dim, self._chance) if is_random else self.agent
        numbers: dict[str, str] = {}
        for _, episode in self._collector.step(agent):
            self._remember(episode)
            numbers["return"] = f"{episode.total_reward:.0f}"
            self.metrics.log(
                self.env_steps, {"train/return": episode.total_reward, "train/length": episode.num_steps}
            )
        self.env_steps += self.env.num_envs * repeat
        if self.env_steps >= config["random_steps"] * repeat and len(self.dataset):
            due = self.env_steps / repeat * config["training"]["update_ratio"]
            while self.trainer.num_updates < due:
                numbers |= self._update_once()
        return numbers

    def _update_once(self) -> dict[str, str]:
        """One update; every hundredth is logged."""
        batch = self.dataset.sample(
            self.config["training"]["batch_size"], self.trainer.settings.window, self._chance
        )
        metrics = self.trainer.update(batch.to(self.device))
        if self.trainer.num_updates % 100:
            return {}
        values = {name: float(value) for name, value in metrics.items()}
        self.metrics.log(
            self.progress,
            {f"train/{name}": value for name, value in values.items()} | self._cost(),
        )
        return {"loss": f"{values['loss']:.3f}", "value": f"{values['value_loss']:.2f}"}

    def _cost(self) -> dict[str, float]:
        return {
            "train/num_updates": self.trainer.num_updates,
            "train/seconds": self.training_seconds,
            "train/cpu_seconds": self.training_cpu_seconds,
        }

    def _remember(self, episode: Episode) -> None:
        self.dataset.append(episode)
        self.num_episodes += 1
        self._normalize(episode)

    def _normalize(self, episode: Episode) -> None:
        state = torch.from_numpy(np.array(episode.observation["state"])).to(self.device)
        self.trainer.model.encoder.normalizer.update(state)

    def _evaluate(self, evaluation: Evaluation, display: ProgressDisplay, unit: str) -> list[float]:
        began = time.perf_counter()
        returns = evaluation.returns(self._agent(seed=0, exploration_std=0.0))
        summary: Mean = mean_interval(returns)
        self.metrics.log(
            self.progress,
            {
                "eval/return": summary.mean,
                "eval/return_low": summary.low,
                "eval/return_high": summary.high,
                "eval/seconds": time.perf_counter() - began,
                **self._cost(),
            },
        )
        minutes = self.training_seconds / 60
        display.note(f"{self.progress:>8} {unit}  {minutes:5.1f} min  evaluation return {summary}")
        return returns

    def _agent(self, seed: int, exploration_std: float) -> Any:
        return build_planning_agent(
            self.trainer.model,
            self.config["planner"],
            discount=self.trainer.settings.discount,
            seed=seed,
            exploration_std=exploration_std,
        )

    def _open_dataset(self) -> EpisodeDataset:
        if not self.is_offline:
            info = {"task": self.env.task, "action_repeat": self.env.action_repeat}
            dataset = EpisodeDataset(
                self.run_dir / "dataset", mode="a", capacity=self.config["data"]["capacity"], info=info
            )
            # Finished after the checkpoint, before a crash.
            num_new = max(0, dataset.num_recorded - self.num_episodes)
            for index in range(max(0, len(dataset) - num_new), len(dataset)):
                self._normalize(dataset.episode(index))
            self.num_episodes += num_new
            return dataset
        dataset = EpisodeDataset.open(self.config["dataset"])
        check_dataset(dataset, self.env, self.config["dataset"])
        if not self.trainer.num_updates:
            for episode in dataset:
                self._normalize(episode)
        return dataset


def check_dataset(dataset: EpisodeDataset, env: Any, path: str) -> None:
    """A dataset must be of the task that is trained. Errors: `ConfigError`."""
    if not len(dataset):
        raise ConfigError(
            f"dataset={path} holds no episode; record some with `worldmodel collect dataset={path}`"
        )
    for key, value in (("task", env.task), ("action_repeat", env.action_repeat)):
        recorded = dataset.info.get(key, value)
        if recorded != value:
            override = key if key == "task" else f"env.{key}"
            raise ConfigError(
                f"dataset={path} was recorded with {key} {recorded}, not {value}; give {override}={recorded}"
            )


def _has_checkpoint(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob("step_*/state.json")) and find_checkpoint(run_dir).exists()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}; device=cpu always works") from error
    return device


def _next_multiple(value: int, step: int) -> int:
    return (value // step + 1) * step
