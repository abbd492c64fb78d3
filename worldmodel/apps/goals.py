"""Acting towards goals: where they come from, planning to them in a model, and who reaches them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import envs
from worldmodel.apps.agent import Agent
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, share
from worldmodel.apps.evaluation import EVALUATION_SEED, MAX_NUM_ENVS, Evaluation
from worldmodel.apps.foresight import ImaginingForesight
from worldmodel.apps.memory import Observation, to_tensors
from worldmodel.apps.outlook import Outlook
from worldmodel.apps.statistics import Mean
from worldmodel.apps.trained import TrainedRun
from worldmodel.errors import ConfigError
from worldmodel.model import Acceleration, LatentModel, WorldModel, goal_distance

Goals = Callable[[], Observation]  # what would be observed at the goals {key: (B, ...)} of B environments now


def is_goal_task(task: str) -> bool:
    """Whether episodes of a task draw goals."""
    return envs.canonical_task(task) in envs.goal_task_names()


def require_goals(task: str) -> None:
    """Errors: `ConfigError` for a task whose episodes draw no goals."""
    if not is_goal_task(task):
        raise ConfigError(
            f"{task} draws no goals: give one to `worldmodel control` (goal=); those that do are "
            f"{', '.join(envs.goal_task_names())}"
        )


def num_goal_steps(env: envs.SyncTaskVectorEnv) -> int:
    """Agent steps in which a goal must be reached. Errors: `EnvError` for a task without goals."""
    return math.ceil(env.task_envs[0].goal.num_goal_steps / env.action_repeat)


def is_reached_in_time(env: envs.SyncTaskVectorEnv, num_steps: int) -> bool:
    """Whether the goal of the first environment is reached now, after so many agent steps."""
    return num_steps <= num_goal_steps(env) and envs.is_solved(env.task_envs[0])


def goals_of(env: envs.SyncTaskVectorEnv) -> Goals:
    """The goals that the environments' episodes have drawn. Errors: `EnvError` for a task without goals."""

    def observe() -> Observation:
        parts = [envs.goal_observation(each) for each in env.task_envs]
        return {key: np.stack([part[key] for part in parts]) for key in parts[0]}

    return observe


def always(goal: Observation) -> Goals:
    """One goal {key: (...)}, whatever the episode."""
    return lambda: {key: np.asarray(value)[None] for key, value in goal.items()}


@dataclass(frozen=True)
class Goal:
    """What is to be reached in the one environment of `control`, the same in every episode or drawn by each.

    - `observed`: what would be observed there.
    - `is_judged`: whether the task tells that it is reached.
    - `start`: to be called when an episode has started, before `observed` is asked.
    """

    observed: Goals
    is_judged: bool
    start: Callable[[], None] = lambda: None

    def is_reached(self, env: envs.SyncTaskVectorEnv, num_steps: int) -> bool:
        """Whether it is reached now, in time, and the task tells."""
        return self.is_judged and is_reached_in_time(env, num_steps)

    @torch.no_grad()
    def distance_left(self, model: LatentModel, first: Observation, last: Observation) -> float:
        """How far the last observation of an episode is from the goal, of how far the first one was.

        By the embeddings, of which the planner lowers the squared distance: 0 is there, 1 as at the start.
        """
        device = next(model.parameters()).device
        goal, start, end = (model.embed(to_tensors(each, device)) for each in (self.observed(), first, last))
        return float((end - goal).norm() / (start - goal).norm().clamp(min=1e-9))


def check_weights(config: Mapping[str, Any]) -> None:
    """Check how a plan is scored, of a goal and of predictors that disagree. Errors: `ConfigError`."""
    not_negative(config, "state_weight", "disagreement_weight")
    share(config, "last_weight")


class GoalForesight(ImaginingForesight):
    """Imagines how near a goal comes.

    - `goals`: asked when an episode starts.
    - `last_weight`, `state_weight`, `disagreement_weight`: see `goal_distance`.

    Errors: `ConfigError` for a `state_weight` of a model that observes states or images alone.
    """

    def __init__(
        self,
        model: LatentModel,
        goals: Goals,
        *,
        last_weight: float = 0.5,
        state_weight: float = 1.0,
        disagreement_weight: float = 0.0,
        acceleration: Acceleration | None = None,
    ) -> None:
        super().__init__(model, disagreement_weight=disagreement_weight, acceleration=acceleration)
        if state_weight != 1.0 and len(model.size.observes) < 2:
            raise ConfigError(
                f"state_weight={state_weight}: this model observes {model.size.observes[0]} alone, with "
                "nothing to weigh it against; train one with model.observes=[state,pixels]"
            )
        self._goals = goals
        self._goal: torch.Tensor | None = None
        self._alone, self._part = (
            partial(
                accelerated(goal_distance, self.device),
                model,
                last_weight=last_weight,
                state_weight=state_weight,
                disagreement_weight=disagreement_weight,
            )
            for accelerated in (self._acceleration.of, self._acceleration.fused)
        )

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of the environments where `is_new` (B,), or of all, and ask for goals again."""
        super().reset(is_new)
        if is_new is None or is_new.any():
            self._goal = None

    def goals_moved(self) -> None:
        """Ask for the goals again at the next decision."""
        self._goal = None

    @torch.no_grad()
    def outlook_from(self, latent: torch.Tensor) -> Outlook:
        """How near the goals come from these latents."""
        if self._goal is None:
            self._goal = self.model.embed(to_tensors(self._goals(), self.device))
        goal = self._goal.expand(len(latent), -1)
        outlook = Outlook(score=partial(self._alone, latent, goal))
        return self._recordable(outlook, latent, goal)

    def _look(self, *inputs: torch.Tensor) -> Outlook:
        return Outlook(score=partial(self._part, *inputs))


def foresight_of(run: TrainedRun, goals: Goals | None, config: Mapping[str, Any]) -> ImaginingForesight:
    """Futures in a run's model: what they bring in rewards, or without these, how near `goals` they come.

    Errors: `ConfigError` where `config` weighs what the model has not.
    """
    if isinstance(run.model, WorldModel):
        if (weight := config["state_weight"]) != 1.0:
            raise ConfigError(f"state_weight={weight}: this model plans for rewards, not to a goal")
        return run.foresight
    assert goals is not None
    return GoalForesight(
        run.model,
        goals,
        last_weight=config["last_weight"],
        state_weight=config["state_weight"],
        disagreement_weight=run.disagreement_weight,
        acceleration=run.acceleration,
    )


def pair_seeds(count: int, seed: int, *, is_held_out: bool) -> list[int]:
    """Seeds of starts and goals. Those held out are odd, the others even: none is both, whatever `seed`."""
    words = np.random.SeedSequence([seed]).generate_state(count)
    return [int(word) // 2 * 2 + is_held_out for word in words]


@dataclass(frozen=True)
class Attempt:
    """An episode played towards its goal: whether it was ever reached, after how many agent steps."""

    is_solved: bool
    num_steps: int


class GoalEvaluation(Evaluation):
    """Whether each of `num_episodes` episodes reaches its goal in time, by 1 and 0.

    `seeds` are those of the episodes' starts and goals: `pair_seeds`.
    Errors: `ConfigError` for a task without goals.
    """

    measure = "success"

    def __init__(
        self,
        task: str,
        env_config: dict[str, Any],
        *,
        num_episodes: int,
        seed: int,
        is_held_out: bool = False,
    ) -> None:
        self.num_episodes, seed = num_episodes, EVALUATION_SEED + seed
        num_envs = min(num_episodes, MAX_NUM_ENVS)
        require_goals(task)
        num_played = -(-num_episodes // num_envs) * num_envs
        self.seeds = pair_seeds(num_played, seed, is_held_out=is_held_out)
        env = build_env(task, env_config, num_envs=num_envs, seed=seed, how="sync")
        assert isinstance(env, envs.SyncTaskVectorEnv)
        self.env, self.goals, self.max_steps = env, goals_of(env), num_goal_steps(env)

    def values(self, agent: Agent) -> list[float]:
        """Play the episodes."""
        return [float(attempt.is_solved) for attempt in self.play(agent)]

    def told(self, summary: Mean) -> str:
        """As a share."""
        return f"{summary.mean:.0%} [{max(0, summary.low):.0%}, {min(1, summary.high):.0%}]"

    def play(self, agent: Agent, *, tell: Callable[[str], None] | None = None) -> list[Attempt]:
        """Play all; an episode counts as solved at the first step that reaches its goal.

        `tell` hears after each step how far it is.
        """
        attempts: list[Attempt] = []
        size = self.env.num_envs
        for first in range(0, self.num_episodes, size):
            seeds = self.seeds[first : first + size]
            attempts += self._round(agent, seeds, f"episode {first + 1} of {self.num_episodes}", tell)
        return attempts[: self.num_episodes]

    def close(self) -> None:
        """Free the environments."""
        self.env.close()

    def _round(
        self, agent: Agent, seeds: list[int], where: str, tell: Callable[[str], None] | None
    ) -> list[Attempt]:
        """One episode in every environment."""
        observation, _ = self.env.reset(seed=seeds)
        agent.reset()
        solved_after = np.zeros(len(seeds), np.int64)
        is_over = np.zeros(len(seeds), np.bool_)
        num_steps = 0
        while num_steps < self.max_steps and not is_over.all():
            observation, _, terminated, truncated, _ = self.env.step(agent.act(observation).action)
            num_steps += 1
            if tell is not None:
                tell(f"{where}, step {num_steps} of {self.max_steps}")
            solved = np.array([envs.is_solved(each) for each in self.env.task_envs])
            solved_after[solved & (solved_after == 0)] = num_steps
            is_over = (solved_after > 0) | terminated | truncated
            if (terminated | truncated).any():  # all have the same length
                break
        return [Attempt(bool(steps), int(steps) or num_steps) for steps in solved_after]
