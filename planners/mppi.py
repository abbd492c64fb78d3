"""Model predictive path integral control."""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.gaussian import gaussian_candidates, weighted_moments
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class MPPI(SamplingPlanner):
    """Averages the elites, weighted by softmax(return / temperature).

    Source: Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning", for the
    weights; Hansen et al. 2022 (TD-MPC), arXiv 2203.04955, eq. 4-5 for elites and an adaptive std.
    `num_elites = num_candidates`, `num_kept=1`, `adapt_std=False` and `relative_temperature=False` give the
    former, without its control cost (lambda u' Sigma^-1 eps), which a scorer may include.

    - `temperature`: higher weighs the elites more evenly.
    - `relative_temperature`: count it in standard deviations of the row's elite returns, so that the plan
      does not depend on offset or scale of the returns. An absolute one weighs elites almost evenly where
      returns differ little and takes almost only the best where they differ much: no value fits all tasks,
      or one task from its start to its goal.
    - `adapt_std`: fit the std to the elites, within [min_std, max_std]; else it stays the start's.
    """

    temperature: float = 0.5
    relative_temperature: bool = True
    adapt_std: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < math.inf:
            raise PlannerError(f"temperature is {self.temperature}; it must be positive and finite.")

    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate horizon action"]
    ) -> Float[Tensor, "batch candidate horizon action"]:
        """Draw from the plan's Gaussian."""
        return gaussian_candidates(plan.mean, plan.std, noise)

    def refine(
        self,
        plan: Plan,
        candidates: Float[Tensor, "batch candidate horizon action"],
        returns: Float[Tensor, "batch candidate"],
    ) -> Plan:
        """Move the Gaussian to the weighted moments of the elites."""
        mean, std = weighted_moments(plan.elites, self.weights(plan.elite_returns))
        std = std.clamp(self.min_std, self.max_std) if self.adapt_std else plan.std
        return replace(plan, actions=mean, mean=mean, std=std)

    def weights(self, elite_returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
        """Weigh elites by their returns, best first; those at -inf weigh 0, each row sums to 1."""
        is_scored = elite_returns.isfinite()
        below_best = (elite_returns - elite_returns[:, :1]).masked_fill(~is_scored, 0)
        if self.relative_temperature:
            # In units of the range first: squares of tiny or huge returns would leave the floats.
            tiny = torch.finfo(below_best.dtype).tiny
            below_best = below_best / -below_best.amin(1, keepdim=True).clamp(max=-tiny)
            num_scored = is_scored.sum(1, keepdim=True).clamp(min=1)
            mean = below_best.sum(1, keepdim=True) / num_scored
            deviations = (below_best - mean).masked_fill(~is_scored, 0)
            std = (deviations.square().sum(1, keepdim=True) / num_scored).sqrt()
            below_best = below_best / std.clamp(min=tiny)
        return (below_best / self.temperature).masked_fill(~is_scored, -math.inf).softmax(1)
