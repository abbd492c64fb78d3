"""The cross-entropy method, and the improved one."""

from dataclasses import dataclass, field, replace
from typing import final

from planners.elites import even_weights, weighted_moments
from planners.errors import PlannerError
from planners.noise import Colored, Noise
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@dataclass(frozen=True, kw_only=True, eq=False)
class CEM(SamplingPlanner):
    """Fits the Gaussian to the elites, all weighing the same.

    Source: Rubinstein 1999; de Boer et al. 2005, "A Tutorial on the Cross-Entropy Method", the algorithm for
    optimization with smoothed updating.

    - `momentum`: share of the old mean and std in the new ones, in [0, 1).
    """

    # On a linear plant with 512 candidates, 1.03 of the exact controller's cost instead of 1.16 without.
    num_carried: int = 20
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise PlannerError(f"momentum is {self.momentum}; it must be at least 0 and below 1.")

    def refine(self, plan: Plan) -> Plan:
        """Move the Gaussian to the moments of the elites."""
        weights = even_weights(plan.elite_returns, all_scored=plan.all_scored)
        mean, std = weighted_moments(plan.elites, weights)
        if self.momentum:
            mean = self.momentum * plan.mean + (1 - self.momentum) * mean
            std = self.momentum * plan.std + (1 - self.momentum) * std
        return replace(plan, mean=mean, std=std.clamp(self.min_std, self.max_std), elite_weights=weights)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ICEM(CEM):
    """CEM for few samples: coloured noise, elites carried over to the next decision, a shrinking population.

    Source: Pinneri et al. 2020, "Sample-efficient Cross-Entropy Method for Real-time Planning", arXiv
    2008.06389, algorithm 1. Beyond the paper, the plan at hand competes in the first iteration too.

    - `population_decay`: candidates of the next iteration are so many times fewer, but at least
      2 * num_elites (and never more than before).
    - `noise`: its exponent fits the task: from 0.25 where motions are fast (cheetah) to 3 where an arm
      reaches far.
    """

    momentum: float = 0.1
    population_decay: float = 1.25
    noise: Noise = field(default_factory=lambda: Colored(1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.population_decay <= 10:
            raise PlannerError(
                f"population_decay is {self.population_decay}; it must lie between 1 (none) and 10."
            )

    def num_candidates_in(self, iteration: int) -> int:
        """Fewer with each iteration."""
        decayed = round(self.num_candidates * self.population_decay**-iteration)
        return min(self.num_candidates, max(decayed, 2 * self.num_elites))

    def scores_mean(self, iteration: int) -> bool:
        """In the last iteration: earlier it would only narrow the search around itself."""
        return iteration == self.num_iterations - 1
