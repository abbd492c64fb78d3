"""Model predictive path integral control."""

import math
from dataclasses import dataclass, replace
from typing import final

from planners.elites import softmax_weights, weighted_moments
from planners.errors import PlannerError
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

    @property
    def adapts_std(self) -> bool:
        """As `adapt_std` says."""
        return self.adapt_std

    def refine(self, plan: Plan) -> Plan:
        """Move the Gaussian to the weighted moments of the elites."""
        weights = softmax_weights(
            plan.elite_returns,
            self.temperature,
            relative=self.relative_temperature,
            all_scored=plan.all_scored,
        )
        mean, std = weighted_moments(plan.elites, weights)
        std = std.clamp(self.min_std, self.max_std) if self.adapt_std else plan.std
        return replace(plan, mean=mean, std=std, elite_weights=weights)
