"""Agents: what acts in an environment. The only place where model and planner meet.

Every agent acts for a batch of environments at once: observations {key: (B, ...)} in, actions (B, A) out.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from planners import Plan, SamplingPlanner
from worldmodel.apps.foresight import Foresight
from worldmodel.apps.memory import Memory, Observation, to_tensors
from worldmodel.apps.outlook import Outlook
from worldmodel.errors import CheckpointError
from worldmodel.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Actions (B, A) for a batch of environments, and what the agent meant by them.

    `mean` and `std` (B, A) describe the distribution that the agent would act from, before exploration: the
    plan's Gaussian, or a std of 0 where it is sure. They are recorded with every step, so that a policy can
    later be trained towards the planner.
    """

    action: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The extra columns of an episode."""
        return {"plan_mean": self.mean, "plan_std": self.std}


@runtime_checkable
class Agent(Protocol):
    """Acts; `reset` tells it which environments start a new episode."""

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of the environments where `is_new` (B,), or of all."""

    def act(self, observation: Observation) -> Decision:
        """Decide for every environment of the batch."""


class PolicyAgent:
    """The policy prior alone, without planning."""

    def __init__(self, model: WorldModel) -> None:
        self._model, self._memory = model, Memory(model)

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of these environments."""
        self._memory.reset(is_new)

    @torch.inference_mode()
    def act(self, observation: Observation) -> Decision:
        """The policy's mean action."""
        latent = self._memory.see(to_tensors(observation, next(self._model.parameters()).device))
        action = self._model.policy.best_action(latent).cpu().numpy()
        self._memory.note(action)
        return Decision(action=action, mean=action, std=np.zeros_like(action))


class PlanningAgent:
    """Looks into futures and executes the first action of the best plan (MPC).

    - `foresight`: where the futures come from.
    - `num_proposals`: candidates from the policy prior, if the foresight has one.
    - `exploration_std`: std of noise added to each action; 0 while evaluating. Where the planner is less
      sure than that, its own std is taken.
    - `generator`: all its chance.

    Its only state is the previous plan, and what its foresight remembers.
    """

    def __init__(
        self,
        foresight: Foresight,
        planner: SamplingPlanner,
        *,
        num_proposals: int,
        generator: torch.Generator,
        exploration_std: float = 0.0,
    ) -> None:
        self._foresight, self._planner = foresight, planner
        self._num_proposals, self._generator = num_proposals, generator
        self.exploration_std = exploration_std
        self.plan: Plan | None = None
        self._is_new: Tensor | None = None

    @property
    def planner(self) -> SamplingPlanner:
        """With what it plans."""
        return self._planner

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget plan and past of these environments."""
        self._foresight.reset(is_new)
        if is_new is None or self.plan is None:
            self.plan, self._is_new = None, None
        elif is_new.any():
            fresh = torch.from_numpy(is_new)
            self._is_new = fresh if self._is_new is None else self._is_new | fresh

    def resume(self, plan: Plan, is_new: np.ndarray) -> None:
        """Go on from a plan of B environments, except where `is_new` (B,)."""
        self.plan, self._is_new = plan, torch.from_numpy(is_new)

    def state(self) -> str:
        """Its chance, as text for a checkpoint."""
        return self._generator.get_state().numpy().tobytes().hex()

    def restore(self, state: str) -> None:
        """Continue with the chance of `state`. Errors: `CheckpointError` for what is none."""
        try:
            self._generator.set_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the state of the agent's chance is damaged: {error}") from error

    def act(self, observation: Observation, deadline: float | None = None) -> Decision:
        """Plan for every environment; `deadline` as in `SamplingPlanner.plan`."""
        planner = self._planner
        plan = self.plan_from(
            self._foresight.outlook(observation), batch_size(observation), deadline=deadline
        )
        action = plan.actions[:, 0]
        std = planner.action_std(plan.std)[:, 0] if planner.adapts_std else torch.zeros_like(action)
        if self.exploration_std > 0:
            action = action + std.clamp(min=self.exploration_std) * self._noise(action.shape, action.device)
        executed = action.clamp(-1, 1).cpu().numpy()
        self._foresight.note(executed)
        return Decision(
            action=executed,
            mean=planner.decode(plan.mean)[:, 0].cpu().numpy(),
            std=std.cpu().numpy(),
        )

    @torch.no_grad()  # not inference mode: some planners take gradients of the score
    def plan_from(
        self, outlook: Outlook, size: int, *, num_steps_on: int = 1, deadline: float | None = None
    ) -> Plan:
        """Plan for `size` environments, from where the last plan is `num_steps_on` steps later."""
        planner, device = self._planner, self._foresight.device
        start = self._start(size, device, num_steps_on)
        proposal_noise = None
        if outlook.propose is not None:
            shape = (size, self._num_proposals, planner.horizon, planner.action_dim)
            proposal_noise = self._noise(shape, device)
        noise = planner.draw_noise(size, self._generator, device)
        if outlook.recorded is not None and planner.is_recordable and deadline is None:
            recorded = outlook.recorded(planner)  # which knows no time
            self.plan = recorded.plan(outlook.inputs, start, noise, proposal_noise)
        else:
            proposals = None
            if outlook.propose is not None and proposal_noise is not None:
                proposals = outlook.propose(proposal_noise)
            self.plan = planner.plan(outlook.score, start, proposals, deadline=deadline, noise=noise)
        return self.plan

    def _start(self, size: int, device: torch.device, num_steps_on: int) -> Plan:
        is_new, self._is_new = self._is_new, None
        if self.plan is None or len(self.plan.mean) != size:
            return self._planner.initial_plan(size, device)
        start = self.plan
        for _ in range(num_steps_on):
            start = self._planner.warm_start(start)
        if is_new is None:
            return start
        return start.replace_rows(is_new.to(device), self._planner.initial_plan(size, device))

    def _noise(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(device)


def batch_size(observation: Observation) -> int:
    """B of a batch of observations."""
    return len(next(iter(observation.values())))
