"""A problem as the environment that torchrl's planners want; importing this needs torchrl."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import ModelBasedEnvBase

from worldmodel.apps.bench.problems import Problem


class ProblemEnv(ModelBasedEnvBase):
    """Steps a problem's model; the last of `horizon` steps is rewarded with the value of where it leads."""

    def __init__(self, problem: Problem, horizon: int) -> None:
        device = problem.states(1).device
        super().__init__(nn.Identity(), device=device)  # type: ignore[arg-type]
        self._problem, self._horizon, self._num_steps = problem, horizon, 0
        shape = (problem.states(1).shape[1],)
        self.observation_spec = Composite(state=Unbounded(shape, device=device))
        self.state_spec = Composite(state=Unbounded(shape, device=device))
        self.action_spec = Bounded(-1.0, 1.0, (problem.action_dim,), device=device)
        self.reward_spec = Unbounded((1,), device=device)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        state, action = tensordict["state"], tensordict["action"]
        step, value = self._problem.step, self._problem.value
        assert step is not None
        states, rewards = step(state.flatten(0, -2), action.flatten(0, -2))
        self._num_steps += 1
        if value is not None and self._num_steps % self._horizon == 0:
            rewards = rewards + value(states)
        leading: Any = state.shape[:-1]
        done = torch.zeros((*leading, 1), dtype=torch.bool, device=state.device)
        return TensorDict(
            {"state": states.view(state.shape), "reward": rewards.view(*leading, 1), "done": done},
            batch_size=tensordict.batch_size,
            device=state.device,
        )

    def _reset(self, tensordict: TensorDictBase | None, **kwargs: Any) -> TensorDictBase:
        return TensorDict({"state": self._problem.states(1)[0]}, batch_size=[], device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        """Nothing here is random."""


class RewardToGo(nn.Module):
    """Advantage: the rewards from each step on, summed."""

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write `advantage`."""
        rewards: Tensor = tensordict["next", "reward"]
        tensordict["advantage"] = rewards.flip(-2).cumsum(-2).flip(-2)
        return tensordict


def make_env(problem: Problem, horizon: int) -> ProblemEnv:
    """The environment, for states with any leading axes."""
    return ProblemEnv(problem, horizon)
