"""Planning loops as one writes them by hand for one problem: they tell what a library's generality costs.

Noise is drawn in each iteration, candidates are clamped, the best are found by `topk`, the plan moves one
step on from decision to decision. No proposals, no elites that stay, no care for NaN, nothing to look at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.apps.bench.problems import Problem

TEMPERATURE, STD, MIN_STD = 0.5, 1.0, 0.05


def num_elites(num_candidates: int) -> int:
    """An eighth, at most 64: TD-MPC2's 64 of 512, for smaller budgets too."""
    return min(64, max(2, num_candidates // 8))


class Loop:
    """Cross-entropy method, or MPPI over its elites (`is_mppi`), for one state (S,)."""

    def __init__(
        self,
        problem: Problem,
        num_candidates: int,
        horizon: int,
        num_iterations: int,
        *,
        is_mppi: bool,
        seed: int,
    ) -> None:
        self.problem, self.is_mppi = problem, is_mppi
        self.num_candidates, self.horizon, self.num_iterations = num_candidates, horizon, num_iterations
        self.num_elites = num_elites(num_candidates)
        self.generator: torch.Generator | None = None
        self.seed, self.mean = seed, torch.empty(0)

    def act(self, state: Tensor) -> Tensor:
        """First action (A,) of the plan."""
        if self.generator is None:
            self.generator = torch.Generator(state.device).manual_seed(self.seed)
            self.mean = torch.zeros(self.horizon, self.problem.action_dim, device=state.device)
        mean = torch.cat([self.mean[1:], torch.zeros_like(self.mean[:1])])
        std = torch.full_like(mean, STD)
        for _ in range(self.num_iterations):
            noise = torch.randn(
                self.num_candidates, *mean.shape, generator=self.generator, device=state.device
            )
            candidates = (mean + std * noise).clamp_(-1, 1)
            states = state.expand(self.num_candidates, -1)
            best, order = self._returns(states, candidates).topk(self.num_elites)
            elites = candidates[order]
            if self.is_mppi:
                weights = ((best - best[0]) / (TEMPERATURE * best.std())).softmax(0)[:, None, None]
                mean = (weights * elites).sum(0)
                std = (weights * (elites - mean).square()).sum(0).sqrt().clamp_(min=MIN_STD)
            else:
                std, mean = torch.std_mean(elites, dim=0)
                std = std.clamp_(min=MIN_STD)
        self.mean = mean
        return mean[0]

    def _returns(self, states: Tensor, candidates: Tensor) -> Tensor:
        step, value = self.problem.step, self.problem.value
        assert step is not None
        returns = torch.zeros(len(states), device=states.device)
        for t in range(self.horizon):
            states, rewards = step(states, candidates[:, t])
            returns += rewards
        return returns if value is None else returns + value(states)


class BatchLoop(Loop):
    """The same for states (B, S), all in one."""

    def act(self, state: Tensor) -> Tensor:
        """First actions (B, A)."""
        size, shape = len(state), (self.horizon, self.problem.action_dim)
        if self.generator is None:
            self.generator = torch.Generator(state.device).manual_seed(self.seed)
            self.mean = torch.zeros(size, *shape, device=state.device)
        mean = torch.cat([self.mean[:, 1:], torch.zeros_like(self.mean[:, :1])], dim=1)
        std = torch.full_like(mean, STD)
        states = state.repeat_interleave(self.num_candidates, dim=0)
        rows = torch.arange(size, device=state.device)[:, None]
        for _ in range(self.num_iterations):
            noise = torch.randn(
                size, self.num_candidates, *shape, generator=self.generator, device=state.device
            )
            candidates = (mean[:, None] + std[:, None] * noise).clamp_(-1, 1)
            returns = self._returns(states, candidates.flatten(0, 1)).view(size, -1)
            best, order = returns.topk(self.num_elites)
            elites = candidates[rows, order]
            if self.is_mppi:
                scale = TEMPERATURE * best.std(1, keepdim=True)
                weights = ((best - best[:, :1]) / scale).softmax(1)[..., None, None]
                mean = (weights * elites).sum(1)
                std = (weights * (elites - mean[:, None]).square()).sum(1).sqrt().clamp_(min=MIN_STD)
            else:
                std, mean = torch.std_mean(elites, dim=1)
                std = std.clamp_(min=MIN_STD)
        self.mean = mean
        return mean[:, 0]
