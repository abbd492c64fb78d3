"""Where a planning agent's futures come from: the learned world model, or the simulator itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

import envs
from planners import SamplingPlanner, Scorer
from worldmodel.apps.memory import Memory, Observation, to_tensors
from worldmodel.apps.outlook import Outlook, RecordedPlanner
from worldmodel.errors import ConfigError
from worldmodel.model import Acceleration, LatentModel, WorldModel, estimate_return, propose

Scoring = Callable[..., Tensor]


@runtime_checkable
class Foresight(Protocol):
    """Looks ahead from what is observed now."""

    action_dim: int

    @property
    def device(self) -> torch.device:
        """Where its scores are computed."""

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of the environments where `is_new` (B,), or of all."""

    def outlook(self, observation: Observation) -> Outlook:
        """From observations {key: (B, ...)}, one step after those before, `note`d actions in between."""

    def note(self, action: np.ndarray) -> None:
        """Be told what is done (B, A) where it was last looked ahead from."""


class ImaginingForesight(ABC):
    """Imagines in a model's latent space, from what it remembers of the past.

    `disagreement_weight` of the predictors' disagreement is taken off what a future is worth.
    Errors: `ConfigError` where it is asked for of a model with one predictor.
    """

    def __init__(
        self,
        model: LatentModel,
        *,
        disagreement_weight: float = 0.0,
        acceleration: Acceleration | None = None,
    ) -> None:
        if disagreement_weight and model.size.num_dynamics == 1:
            raise ConfigError(
                f"disagreement_weight={disagreement_weight}: this model has one predictor, which agrees with "
                "itself; train one with model.num_dynamics=3"
            )
        self.model, self.action_dim = model, model.size.action_dim
        self.memory = Memory(model)
        self._acceleration = acceleration or Acceleration()
        self._recordings: dict[str, RecordedPlanner] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of the environments where `is_new` (B,), or of all."""
        self.memory.reset(is_new)

    def note(self, action: np.ndarray) -> None:
        """Be told what is done (B, A)."""
        self.memory.note(action)

    def outlook(self, observation: Observation) -> Outlook:
        """Encode once, then imagine."""
        return self.outlook_from(self.memory.see(to_tensors(observation, self.device)))

    @abstractmethod
    def outlook_from(self, latent: Tensor) -> Outlook:
        """From latents (B, L), whatever was seen."""

    def _recordable(self, outlook: Outlook, *inputs: Tensor) -> Outlook:
        """The outlook from `inputs`, with the way to record decisions where that is worth it."""
        if not self._acceleration.records(self.device):
            return outlook
        return replace(outlook, recorded=self._recorded, inputs=inputs)

    def _recorded(self, planner: SamplingPlanner) -> RecordedPlanner:
        """Its decisions as one launch: one recording for all agents with such a planner."""
        settings = repr(planner)
        if settings not in self._recordings:
            self._recordings[settings] = RecordedPlanner(planner, self._look)
        return self._recordings[settings]

    @abstractmethod
    def _look(self, *inputs: Tensor) -> Outlook:
        """The outlook as a function of tensors alone, to be part of a recording."""


class LearnedForesight(ImaginingForesight):
    """Imagines returns; `discount` is theirs."""

    model: WorldModel

    def __init__(
        self,
        model: WorldModel,
        *,
        discount: float,
        disagreement_weight: float = 0.0,
        acceleration: Acceleration | None = None,
    ) -> None:
        super().__init__(model, disagreement_weight=disagreement_weight, acceleration=acceleration)
        self.discount = discount
        accelerate, device = self._acceleration, self.device
        # Launched by themselves where a deadline may cut a plan short, or as part of a recorded decision.
        self._alone, self._part = (
            (
                partial(
                    made(estimate_return, device), discount=discount, disagreement_weight=disagreement_weight
                ),
                made(propose, device),
            )
            for made in (accelerate.of, accelerate.fused)
        )

    def outlook_from(self, latent: Tensor) -> Outlook:
        """Returns from these latents, and the policy's proposals."""
        return self._recordable(self._outlook(latent, *self._alone), latent)

    def _look(self, *inputs: Tensor) -> Outlook:
        (latent,) = inputs
        return self._outlook(latent, *self._part)

    def _outlook(self, latent: Tensor, estimate: Scoring, suggest: Scoring) -> Outlook:
        return Outlook(
            score=partial(estimate, self.model, latent),
            propose=lambda noise: suggest(self.model, latent, noise.to(latent)),
        )


class OracleForesight:
    """Plays in the simulator itself, from the state that the environments are in.

    - `env`: where the agent acts.
    - `learned`: what the last state of a candidate is worth, and proposals; without it, nothing follows.
    - `seeks_goals`: whether nearness to the episodes' goals is what counts, also where the task's reward
      knows nothing of them.
    - `change_model`: what differs in the simulator that it plays in, as in `envs.Oracle`.
    """

    device = torch.device("cpu")  # the simulator's

    def __init__(
        self,
        env: envs.TaskVectorEnv,
        *,
        num_threads: int = 1,
        learned: LearnedForesight | None = None,
        seeks_goals: bool = False,
        change_model: Callable[[Any], None] | None = None,
    ) -> None:
        if not isinstance(env, envs.SyncTaskVectorEnv):
            raise ConfigError(
                "model=oracle needs environments that it can look into: envs.make_vec(..., how='sync')"
            )
        self._env, self._learned, self._seeks_goals = env, learned, seeks_goals
        assert env.single_action_space.shape is not None
        self.action_dim = int(env.single_action_space.shape[0])
        self.oracle = envs.Oracle(
            env.task,
            action_repeat=env.action_repeat,
            num_threads=num_threads,
            discount=1.0 if learned is None else learned.discount,
            change_model=change_model,
        )

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """The simulator has no past; the learned part may."""
        if self._learned is not None:
            self._learned.reset(is_new)

    def note(self, action: np.ndarray) -> None:
        """For the learned part."""
        if self._learned is not None:
            self._learned.note(action)

    def outlook(self, observation: Observation) -> Outlook:
        """From the environments' physics states; the observation serves the learned part alone."""
        learned = None if self._learned is None else self._learned.outlook(observation)
        value = None if learned is None else self._value
        reward = envs.goal_reward(self._env.task_envs) if self._seeks_goals else None
        return Outlook(
            score=oracle_scorer(self.oracle, self._env.simulations, terminal_value=value, reward=reward),
            propose=None if learned is None else learned.propose,
        )

    def _value(self, observation: Observation) -> np.ndarray:
        assert self._learned is not None
        model = self._learned.model
        with torch.no_grad():
            return model.value(model.encode(to_tensors(observation, self._learned.device))).cpu().numpy()


def oracle_scorer(oracle: envs.Oracle, simulations: Sequence[envs.Simulation], **options: Any) -> Scorer:
    """An oracle as a planner's scorer, from the states that these simulations are in.

    `options`: `terminal_value`, `reward`, `violation` and `weight`, as in `envs.Oracle.returns`. Several
    oracles with different `change_model` make one scorer by `planners.risk.over_members`.
    """

    def score(candidates: Tensor) -> Tensor:
        returns = oracle.returns(simulations, candidates.detach().cpu().numpy(), **options)
        return torch.from_numpy(returns).to(candidates)

    return score
