"""Training online: act, record, update, evaluate, repeat."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.exploration import Experience, Exploration, Explored, Explorer, OwnExperience
from worldmodel.apps.launcher import check_place
from worldmodel.apps.training_loop import Training
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import WorldModel
from worldmodel.training import Checkpoint, Processes

MAX_UPDATES_AT_ONCE = 50  # an interruption waits for them


class OnlineTraining(Training):
    """Experience comes from acting with the model as it is learned: here, or on a cluster (`collector`)."""

    unit = "env steps"
    dataset: EpisodeDataset

    def __init__(
        self, run_dir: Path, config: dict[str, Any], checkpoint: Checkpoint | None, processes: Processes
    ) -> None:
        _check(config)
        super().__init__(run_dir, config, checkpoint, processes)
        if not isinstance(self.trainer.model, WorldModel):
            raise ConfigError(
                "a model without rewards learns from a dataset: record one with `worldmodel collect`, and "
                "give dataset="
            )
        # Taken, also those of episodes that an interruption cut off.
        self.env_steps: int = self._begun_at["env_steps"]
        self._agent = self.planning_agent(seed=self.seed, is_averaged=False)
        if checkpoint is not None:
            self._agent.restore(str(self._begun_at["agent_state"]))
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
        self._experience = self._begun_experience()

    @property
    def progress(self) -> int:
        """Env steps, action repeat counted."""
        return self.env_steps

    @property
    def target(self) -> int:
        """Env steps to reach."""
        return self.config["env_steps"]

    @property
    def is_over(self) -> bool:
        """Whether the last step is taken, and what was due before it is learned.

        It was, unless the run goes on after it was killed: with episodes that it had not learned from.
        """
        last_step = self.env.num_envs * self.env.action_repeat
        return super().is_over and not self._num_due_updates(min(self.env_steps, self.target) - last_step)

    def advance(self) -> dict[str, str]:
        """Some of the updates that are due, and what there is of new experience."""
        num_due, numbers = self._num_due_updates(self.env_steps), dict[str, str]()
        for _ in range(min(num_due, MAX_UPDATES_AT_ONCE)):
            numbers |= self.update()
        for explored in self._experience.explored(self._exploration(), num_due):
            numbers |= self._take_up(explored)
        return numbers

    def close(self) -> None:
        """Record what was still on its way, too; a run that goes on counts it in."""
        try:
            for explored in self._experience.close():
                self._take_up(explored)
        finally:
            super().close()

    def _begun_experience(self) -> Experience:
        if self.config["collector"] == "ray":
            from worldmodel.apps.cluster.experience import RayExperience

            return RayExperience(self.config, self.trainer, self.num_episodes)
        return OwnExperience(Explorer(self.env, self._agent, self.chance, self._start_seeds()))

    def _exploration(self) -> Exploration:
        """How to act next: even noise at first; where that met no reward, noise that gets further."""
        is_early = self._agent_steps < self.config["random_steps"] or not len(self.dataset)
        noise: Literal["random", "wander"] = "random" if is_early else "wander"
        return Exploration(
            policy="planner" if self._is_model_trusted else noise,
            std=exploration_std(self.config, self.env_steps),
            env_steps=self.env_steps,
        )

    def _take_up(self, explored: Explored) -> dict[str, str]:
        numbers = {}
        self.env_steps += explored.env_steps
        for episode in explored.episodes:
            self.dataset.append(episode)
            self.num_episodes += 1
            self.normalize(episode)
            self._note_rewards(episode)
            numbers["return"] = f"{episode.total_reward:.0f}"
            self.metrics.log(
                self.env_steps, {"train/return": episode.total_reward, "train/length": episode.num_steps}
            )
        if explored.episodes:
            self.share_statistics()
        return numbers

    def _cost(self) -> dict[str, int | float]:
        return super()._cost() | self._experience.metrics()

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

    def _note_rewards(self, episode: Episode) -> None:
        self._lowest_reward = min(self._lowest_reward, float(episode.reward.min()))
        self._highest_reward = max(self._highest_reward, float(episode.reward.max()))

    def _num_due_updates(self, env_steps: int) -> int:
        if not self._is_model_trusted:
            return 0
        due = math.ceil(env_steps / self.env.action_repeat * self.config["training"]["update_ratio"])
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


def _check(config: dict[str, Any]) -> None:
    check_place("collector", config["collector"], config["ray_address"])
    positive(config, "num_workers", "publish_every", "stretch_steps", "max_ahead")
    not_negative(config, "max_staleness")
