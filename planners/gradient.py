"""Planning by gradient, through a scorer that can be differentiated (a learned model, not a simulator)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.cem import CEM
from planners.elites import best_only
from planners.errors import PlannerError
from planners.known import Known
from planners.plan import Plan
from planners.sampling import SamplingPlanner
from planners.scorer import Scorer, finite_returns


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradient(SamplingPlanner):
    """Climbs from several starts with Adam, and takes the best point that any of them came by.

    The starts are the plan at hand, the proposals, elites of the last decision, and draws around the plan
    (`num_candidates` in all); an iteration is one gradient step of each, projected into the bounds.

    Source: Bharadhwaj et al. 2020, "Model-Predictive Control via Cross-Entropy and Gradient-Based
    Optimization", arXiv 2004.08763; Kingma and Ba 2015 (Adam), without which the step would depend on the
    scale of the returns.

    - `learning_rate`: of Adam: how far a parameter moves in an iteration, at most.
    """

    num_candidates: int = 16
    num_iterations: int = 20
    num_elites: int = 8
    num_carried: int = 4
    execute: Literal["mean", "best"] = "best"
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate < math.inf:
            raise PlannerError(f"learning_rate is {self.learning_rate}; it must be positive and finite.")

    def refine(self, plan: Plan) -> Plan:
        """Move to the best point so far."""
        return replace(plan, mean=plan.elites[:, 0].clone(), elite_weights=best_only(plan.elite_returns))

    @property
    def adapts_std(self) -> bool:
        """No: a climb says nothing about the width of the hill."""
        return False

    @property
    def is_recordable(self) -> bool:
        """No: its optimizer counts steps on the host."""
        return False

    @property
    def _num_draws(self) -> int:
        return 1

    def _improve(
        self,
        score: Scorer,
        plan: Plan,
        known: Known,
        noise: Float[Tensor, "iteration batch candidate parameter action"],
    ) -> Iterator[Plan]:
        starts = self._candidates(plan, 0, noise[0], known)
        yield from self._ascend(score, plan, starts, self.num_iterations, known)

    def _ascend(
        self,
        score: Scorer,
        plan: Plan,
        candidates: Float[Tensor, "batch candidate parameter action"],
        num_steps: int,
        known: Known | None = None,
    ) -> Iterator[Plan]:
        """Score, yield, step. `known` of the starts; None if they are elites of the plan."""
        with torch.inference_mode(False):  # what is made in that mode can have no gradient
            candidates = candidates.clone()
        adam = torch.optim.Adam([candidates], lr=self.learning_rate, maximize=True)
        for step in range(num_steps):
            returns, candidates.grad = self._returns_and_gradient(score, candidates)
            if step == 0:
                # Elites that begin to climb have their places already.
                returns = torch.full_like(returns, -math.inf) if known is None else known.disqualify(returns)
            plan = self.improved(plan, candidates.clone(), returns, num_kept=None)
            yield plan
            if step < num_steps - 1:
                # Down to 0 in the end: at a constant rate Adam circles around the optimum at that distance.
                adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / num_steps)
                adam.step()
                candidates.clamp_(self.low, self.high)

    def _returns_and_gradient(
        self, score: Scorer, candidates: Float[Tensor, "batch candidate parameter action"]
    ) -> tuple[Float[Tensor, "batch candidate"], Float[Tensor, "batch candidate parameter action"]]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = candidates.detach().clone().requires_grad_()
            returns = finite_returns(score, self.decode(leaf))
            if not returns.requires_grad:
                raise PlannerError(
                    f"{type(self).__name__} climbs along gradients, and this scorer's returns have none (a "
                    "simulator's never have): take a planner that samples, such as MPPI or CEM."
                )
            # A candidate's return depends on no other candidate, so one backward pass serves all.
            (gradient,) = torch.autograd.grad(returns.masked_fill(returns.isneginf(), 0).sum(), leaf)
        return returns.detach(), gradient.nan_to_num(0, 0, 0)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Hybrid(Gradient):
    """CEM first; then the best of what it found climb by gradient.

    Source: as `Gradient`; Huang et al. 2021 (CEM-GD), arXiv 2112.07746.

    - `num_iterations`: of both together; the last `num_gradient_iterations` of them are gradient steps (but
      the first always samples).
    - `num_refined`: so many elites climb, at most.
    """

    num_candidates: int = 64
    num_iterations: int = 12
    num_elites: int = 16
    learning_rate: float = 0.05
    num_gradient_iterations: int = 9
    num_refined: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_gradient_iterations", "num_refined"):
            if getattr(self, name) < 1:
                raise PlannerError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    def num_candidates_in(self, iteration: int) -> int:
        """All while sampling, the refined ones while climbing."""
        return (
            self.num_candidates
            if iteration < self._num_sampling_iterations
            else min(self.num_refined, self.num_elites)
        )

    def _improve(
        self,
        score: Scorer,
        plan: Plan,
        known: Known,
        noise: Float[Tensor, "iteration batch candidate parameter action"],
    ) -> Iterator[Plan]:
        sampled, num_steps = plan, self.num_iterations - self._num_sampling_iterations
        for sampled in islice(self._cem._improve(score, plan, known, noise), self._num_sampling_iterations):
            yield sampled
        yield from self._ascend(score, sampled, sampled.elites[:, : self.num_refined], num_steps)

    @property
    def adapts_std(self) -> bool:
        """Yes, while sampling."""
        return True

    @property
    def _num_draws(self) -> int:
        return self._num_sampling_iterations

    @property
    def _num_sampling_iterations(self) -> int:
        return max(1, self.num_iterations - self.num_gradient_iterations)

    @cached_property
    def _cem(self) -> CEM:
        return CEM(**{setting.name: getattr(self, setting.name) for setting in fields(SamplingPlanner)})
