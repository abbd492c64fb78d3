"""Predictive sampling, and random shooting as its special case."""

from dataclasses import dataclass, replace
from typing import final

from jaxtyping import Float
from torch import Tensor

from planners.gaussian import gaussian_candidates
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PredictiveSampling(SamplingPlanner):
    """Takes the best candidate found so far, the plan it started from included; the std stays.

    Source: Howell et al. 2022, "Predictive Sampling: Real-time Behaviour Synthesis with MuJoCo",
    arXiv 2212.00541. One iteration from an `initial_plan` (with a wide `initial_std`) is random shooting.
    """

    # Narrower than where the std adapts: nothing else makes the search local (measured on a linear plant).
    initial_std: float = 0.2

    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate horizon action"]
    ) -> Float[Tensor, "batch candidate horizon action"]:
        """Draw around the best candidate so far."""
        return gaussian_candidates(plan.mean, plan.std, noise)

    def refine(
        self,
        plan: Plan,
        candidates: Float[Tensor, "batch candidate horizon action"],
        returns: Float[Tensor, "batch candidate"],
    ) -> Plan:
        """Move to the best candidate so far."""
        best = plan.elites[:, 0]
        return replace(plan, actions=best, mean=best)
