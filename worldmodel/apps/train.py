"""Training online: act, record, update, evaluate, repeat; `make_training` also makes it offline."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps.agent import Agent
from worldmodel.apps.learner import is_offline
from worldmodel.apps.offline import OfflineTraining
from worldmodel.apps.resumed import progress_of
from worldmodel.apps.rollout import Collector
from worldmodel.apps.simple_agents import ColoredNoiseAgent, RandomAgent
from worldmodel.apps.training_loop import Training
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import WorldModel
from worldmodel.training import ALONE, Checkpoint, Processes, load_checkpoint


def make_training(run_dir: Path, config: dict[str, Any], processes: Processes = ALONE) -> Training:
    """The training that `config` (`configs/train.yaml` as plain values) asks for, new or resumed.

    The other `processes` are ready to `follow` it. Errors: `ConfigError`, `CheckpointError`, `DatasetError`
    or `EnvError` for a user's mistake; `PeerError` where another process met one.
    """
    has_checkpoint = any((run_dir / "checkpoints").glob("step_*"))
    checkpoint = load_checkpoint(run_dir) if config["resume"] and has_checkpoint else None
    kind = OfflineTraining if is_offline(config) else OnlineTraining
    training = kind(run_dir, config, checkpoint, processes)
    training.lead()
    return training


MAX_UPDATES_AT_ONCE = 50  # an interruption waits for them


class OnlineTraining(Training):
    """Experience comes from acting with the model as it is learned."""

    unit = "env steps"
    dataset: EpisodeDataset

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        checkpoint: Checkpoint | None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(run_dir, config, checkpoint, processes)
        if not isinstance(self.trainer.model, WorldModel):
            raise ConfigError(
                "a model without rewards learns from a dataset: record one with `worldmodel collect`, and "
                "give dataset="
            )
        self.env_steps = 0  # taken, also those of episodes that an interruption cut off
        self._agent = self.planning_agent(seed=self.seed, is_averaged=False)
        if checkpoint is not None:
            info = progress_of(checkpoint)
            self.env_steps = info["env_steps"]
            self._agent.restore(str(info["agent_state"]))
        facts = {"task": self.env.task, "action_repeat": self.env.action_repeat}
        capacity = config["data"]["capacity"]
        if self.env.episode_length is None and not self.env.can_terminate:
            raise ConfigError(
                f"task={config['task']} never ends an episode: give its environment a time limit"
            )
        if self.env.episode_length is not None and self.env.episode_length > capacity:
            raise ConfigError(
                f"data.capacity={capacity}: must hold an episode of {self.env.episode_length} agent steps"
            )
        self.dataset = EpisodeDataset(run_dir / "dataset", mode="a", capacity=capacity, info=facts)
        self._lowest_reward, self._highest_reward = math.inf, -math.inf
        for episode in self.dataset:
            self._note_rewards(episode)
        self._take_up_new_episodes()
        self._collector: Collector | None = None
        self._wanderer: ColoredNoiseAgent | None = None

    @property
    def progress(self) -> int:
        """Env steps, action repeat counted."""
        return self.env_steps

    @property
    def target(self) -> int:
        """Env steps to reach."""
        return self.config["env_steps"]

    def advance(self) -> dict[str, str]:
        """Some of the updates that are due, or else one agent step in every environment."""
        if num_due := self._num_due_updates():
            numbers: dict[str, str] = {}
            for _ in range(min(num_due, MAX_UPDATES_AT_ONCE)):
                numbers |= self.update()
            return numbers
        if self._collector is None:
            self._collector = Collector(self.env, self._start_seeds())
        is_random = not self._is_model_trusted
        agent: Agent = self._random_agent() if is_random else self._agent
        self._agent.exploration_std = exploration_std(self.config, self.env_steps)
        env_steps = self.env_steps + self.env.num_envs * self.env.action_repeat
        numbers = {}
        info = {"policy": "random" if is_random else "planner", "env_steps": env_steps}
        ended = self._collector.step(agent, info)
        self.env_steps = env_steps
        for _, episode in ended:
            self.dataset.append(episode)
            self.num_episodes += 1
            self.normalize(episode)
            self._note_rewards(episode)
            numbers["return"] = f"{episode.total_reward:.0f}"
            self.metrics.log(
                self.env_steps, {"train/return": episode.total_reward, "train/length": episode.num_steps}
            )
        if ended:
            self.share_statistics()
        return numbers

    @property
    def _agent_steps(self) -> float:
        return self.env_steps / self.env.action_repeat

    @property
    def _is_model_trusted(self) -> bool:
        """Whether the first random steps are over, and there is something to learn from and to plan for."""
        least = self.config["random_steps"]
        if not self._lowest_reward < self._highest_reward:
            least = max(least, self.config["max_random_steps"])
        return self._agent_steps >= least and len(self.dataset) > 0

    def _random_agent(self) -> Agent:
        """Even noise at first; where that met no reward, noise that lingers and so gets further."""
        action_dim = self.trainer.model.size.action_dim
        if self._agent_steps < self.config["random_steps"] or not len(self.dataset):
            return RandomAgent(action_dim, self.chance)
        if self._wanderer is None:
            self._wanderer = ColoredNoiseAgent(action_dim, self.chance, exponent=2.0, std=1.0)
        return self._wanderer

    def _note_rewards(self, episode: Episode) -> None:
        self._lowest_reward = min(self._lowest_reward, float(episode.reward.min()))
        self._highest_reward = max(self._highest_reward, float(episode.reward.max()))

    def _num_due_updates(self) -> int:
        if not self._is_model_trusted:
            return 0
        due = math.ceil(self._agent_steps * self.config["training"]["update_ratio"])
        return max(0, due - self.trainer.num_updates)

    def further_state(self) -> dict[str, Any]:
        """The agent's chance."""
        return {"agent_state": self._agent.state()}

    def _take_up_new_episodes(self) -> None:
        """Count in what was recorded after the checkpoint, before a crash."""
        num_new = max(0, self.dataset.num_recorded - self.num_episodes)
        for index in range(max(0, len(self.dataset) - num_new), len(self.dataset)):
            episode = self.dataset.episode(index)
            self.normalize(episode)
            env_steps = episode.info.get("env_steps")
            self.env_steps = max(self.env_steps, env_steps if isinstance(env_steps, int) else 0)
        self.num_episodes += num_new

    def _start_seeds(self) -> list[int] | None:
        """A run that goes on must not meet the same starts again; a new one keeps its environments' own."""
        if not self.num_episodes:
            return None
        sequence = np.random.SeedSequence([self.seed, self.num_episodes])
        return [int(word) for word in sequence.generate_state(self.env.num_envs)]


def exploration_std(config: dict[str, Any], env_steps: int) -> float:
    """Std of the noise on each action: in a straight line from the first to the last."""
    done = min(1.0, env_steps / config["exploration_steps"])
    first, last = config["first_exploration_std"], config["exploration_std"]
    return float(first + done * (last - first))
