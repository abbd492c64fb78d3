"""Annealed MPPI: the search narrows by a schedule instead of by what the elites look like."""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.elites import softmax_weights, weighted_moments
from planners.errors import PlannerError
from planners.plan import Plan
from planners.sampling import SamplingPlanner


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DIAL(SamplingPlanner):
    """MPPI whose std anneals twice: from iteration to iteration, and from the plan's far end to its start.

    std(i, p) = start std * exp(-i / (iteration_scale * I) - (P - 1 - p) / (horizon_scale * P)) in iteration
    i of I, for parameter p of P: near actions were refined in many decisions already, far ones are new.
    The mean is the elites', weighted by softmax(return / temperature), the temperature in standard
    deviations of their returns.

    Source: Xue et al. 2024, "Full-Order Sampling-Based MPC for Torque-Level Locomotion Control via
    Diffusion-Style Annealing" (DIAL-MPC), arXiv 2409.15610, algorithm 1.
    """

    temperature: float = 0.1
    iteration_scale: float = 0.5
    horizon_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "iteration_scale", "horizon_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise PlannerError(f"{name} is {getattr(self, name)}; it must be positive and finite.")

    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate parameter action"]
    ) -> Float[Tensor, "batch candidate parameter action"]:
        """Draw around the mean, as wide as the schedule says; never narrower than `min_std`."""
        std = (plan.std * self.schedule(iteration).to(plan.std)[:, None]).clamp(min=self.min_std)
        return noise.mul_(std[:, None]).add_(plan.mean[:, None])

    @property
    def is_recordable(self) -> bool:
        """No: its schedule is the host's."""
        return False

    @property
    def adapts_std(self) -> bool:
        """No: it follows the schedule."""
        return False

    def schedule(self, iteration: int) -> Float[Tensor, " parameter"]:
        """Share of the start's std that an iteration searches with, for each parameter; from 1 down."""
        to_the_end = torch.arange(self.num_parameters - 1, -1, -1)
        return torch.exp(
            -iteration / (self.iteration_scale * self.num_iterations)
            - to_the_end / (self.horizon_scale * self.num_parameters)
        )

    def refine(self, plan: Plan) -> Plan:
        """Move the mean to that of the elites; the std stays the start's, from which the schedule counts."""
        weights = softmax_weights(
            plan.elite_returns, self.temperature, relative=True, all_scored=plan.all_scored
        )
        mean, _ = weighted_moments(plan.elites, weights)
        return replace(plan, mean=mean, elite_weights=weights)
