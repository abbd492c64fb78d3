"""The cross-entropy method."""

from dataclasses import dataclass, replace
from typing import final

from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.gaussian import gaussian_candidates, weighted_moments
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CEM(SamplingPlanner):
    """Fits the Gaussian to the elites, all weighing the same.

    Source: Rubinstein 1999; de Boer et al. 2005, "A Tutorial on the Cross-Entropy Method", the algorithm for
    optimization with smoothed updating.

    - `momentum`: share of the old mean and std in the new ones, in [0, 1).
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise PlannerError(f"momentum is {self.momentum}; it must be at least 0 and below 1.")

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
        """Move the Gaussian to the moments of the elites."""
        is_scored = plan.elite_returns.isfinite().to(plan.mean.dtype)
        mean, std = weighted_moments(plan.elites, is_scored / is_scored.sum(1, keepdim=True))
        mean = self.momentum * plan.mean + (1 - self.momentum) * mean
        std = self.momentum * plan.std + (1 - self.momentum) * std
        return replace(plan, actions=mean, mean=mean, std=std.clamp(self.min_std, self.max_std))
