"""Predictive sampling, and random shooting as its special case."""

from dataclasses import dataclass, replace
from functools import cache
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
        sizes = self.smallest_scale ** _spread(noise.shape[1]).to(noise)[:, None, None]
        return noise.mul_(plan.std[:, None]).mul_(sizes).add_(plan.mean[:, None])

    @property
    def is_recordable(self) -> bool:
        """No: its scales are the host's."""
        return False

    @property
    def adapts_std(self) -> bool:
        """No: it stays."""
        return False

    def refine(self, plan: Plan) -> Plan:
        """Move to the best candidate so far."""
        return replace(plan, mean=plan.elites[:, 0].clone(), elite_weights=best_only(plan.elite_returns))

    def scores_mean(self, iteration: int) -> bool:
        """Only what it started from: from then on the mean is the best elite, whose return is known."""
        return iteration == 0


@cache
def _spread(count: int) -> Float[Tensor, " count"]:
    """Numbers evenly spaced from 0 to 1, in the order of multiples of the golden ratio.

    Any piece of it holds large and small ones: proposals take the places of draws of all sizes.
    """
    order = (torch.arange(count, dtype=torch.float64) * 0.6180339887498949 % 1).argsort().argsort()
    return order / max(1, count - 1)
