"""Predictive sampling, and random shooting as its special case."""

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.elites import best_only
from planners.errors import PlannerError
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PredictiveSampling(SamplingPlanner):
    """Takes the best candidate found so far, the plan it started from included; the std stays.

    Beyond the paper, draws are of many sizes, from the start's std down to `smallest_scale` of it, so that
    one setting both finds and refines (on a linear plant 1.02 of the exact controller's cost, and 1.26 with
    the paper's equal ones, `smallest_scale=1`).

    Source: Howell et al. 2022, "Predictive Sampling: Real-time Behaviour Synthesis with MuJoCo",
    arXiv 2212.00541. One iteration from an `initial_plan` (with a wide `initial_std`) is random shooting.
    """

    initial_std: float = 0.3
    smallest_scale: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.smallest_scale <= 1:
            raise PlannerError(f"smallest_scale is {self.smallest_scale}; it must be above 0 and at most 1.")

    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate parameter action"]
    ) -> Float[Tensor, "batch candidate parameter action"]:
        """Draw around the best candidate so far; sizes spaced evenly in their logarithm."""
        # Multiples of the golden ratio: those that proposals take the places of are of all sizes too.
        exponents = (torch.arange(noise.shape[1], dtype=torch.float64) * 0.6180339887498949) % 1
        exponents = exponents.to(noise)[:, None, None]
        return torch.addcmul(plan.mean[:, None], plan.std[:, None], noise * self.smallest_scale**exponents)

    def refine(self, plan: Plan) -> Plan:
        """Move to the best candidate so far."""
        return replace(plan, mean=plan.elites[:, 0], elite_weights=best_only(plan.elite_returns))

    def scores_mean(self, iteration: int) -> bool:
        """Only what it started from: from then on the mean is the best elite, whose return is known."""
        return iteration == 0
