"""The loop every sampling planner shares: draw candidates, score them, refine the plan."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.noise import white_noise
from planners.plan import Plan
from planners.scorer import Scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingPlanner(ABC):
    """Improves a plan by sampling around it; subclasses say how in `draw` and `refine`.

    A planner holds settings and no state: a plan is a function of the scorer, the plan it starts from, the
    proposals and the generator.

    What the loop promises for every algorithm: candidates, mean and actions lie inside the bounds; the
    plan it started from, the current mean and all proposals compete; NaN and infinite returns never win;
    exactly `num_candidates` candidates of each row are scored in an iteration, all of these counted; the
    elites are the best so far.

    - `action_dim`, `horizon`: A and H of every action sequence.
    - `num_candidates`, `num_iterations`, `num_elites`: sequences scored in an iteration; iterations; the
      best sequences that shape the next plan.
    - `num_kept`: elites that stay in the running in the next iteration (their returns are known, so this
      costs no scoring); None keeps all of them.
    - `initial_std`, `min_std`, `max_std`: of an action, at the start of each plan and its limits.
    - `low`, `high`: bounds of every action.
    - `execute`: the "mean" of the plan, or the "best" candidate found. The mean is smoother and averages out
      a scorer's noise; but where two good ways lead around something, it may lead right into it.
    - `if_all_nan`: what to do with a row in which no candidate has a finite return: "raise" a
      `PlannerError`, or keep the "nominal" plan it started from.
    """

    action_dim: int
    horizon: int
    num_candidates: int = 512
    num_iterations: int = 6
    num_elites: int = 64
    num_kept: int | None = None
    initial_std: float = 1.0
    min_std: float = 0.05
    max_std: float = 2.0
    low: float = -1.0
    high: float = 1.0
    execute: Literal["mean", "best"] = "mean"
    if_all_nan: Literal["raise", "nominal"] = "raise"

    def __post_init__(self) -> None:
        for name in ("action_dim", "horizon", "num_candidates", "num_iterations", "num_elites"):
            if getattr(self, name) < 1:
                raise PlannerError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.num_elites > self.num_candidates:
            raise PlannerError(
                f"num_elites is {self.num_elites}, more than the {self.num_candidates} candidates to choose "
                "from; lower num_elites or raise num_candidates."
            )
        if self.num_kept is not None and not 1 <= self.num_kept <= self.num_elites:
            raise PlannerError(
                f"num_kept is {self.num_kept}; it must lie between 1 and num_elites {self.num_elites}, or be "
                "None to keep all elites."
            )
        if not 0 < self.min_std <= self.initial_std <= self.max_std < math.inf:
            raise PlannerError(
                f"min_std {self.min_std}, initial_std {self.initial_std}, max_std {self.max_std}: they must "
                "be positive, finite and in this order; widen min_std or max_std."
            )
        if not -math.inf < self.low < self.high < math.inf:
            raise PlannerError(
                f"low is {self.low} and high is {self.high}; low must be below high, both finite."
            )
        if self.execute not in ("mean", "best"):
            raise PlannerError(f"execute is {self.execute!r}; choose 'mean' or 'best'.")
        if self.if_all_nan not in ("raise", "nominal"):
            raise PlannerError(f"if_all_nan is {self.if_all_nan!r}; choose 'raise' or 'nominal'.")

    @abstractmethod
    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate horizon action"]
    ) -> Float[Tensor, "batch candidate horizon action"]:
        """Turn standard normal noise into candidates; the loop clamps them into the bounds."""

    @abstractmethod
    def refine(
        self,
        plan: Plan,
        candidates: Float[Tensor, "batch candidate horizon action"],
        returns: Float[Tensor, "batch candidate"],
    ) -> Plan:
        """Return the plan with new `actions`, `mean` and `std`; the loop clamps the first two.

        `plan.elites` and `plan.elite_returns` are up to date, best first, returns finite or -inf. The loop
        discards the result for rows in which all are -inf. `candidates` and `returns` are all of this
        iteration and the kept elites.
        """

    def initial_plan(
        self, batch_size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Plan:
        """Return a plan that knows nothing: mean 0 (or the bound nearest to it), wide std."""
        if batch_size < 1:
            raise PlannerError(f"batch_size is {batch_size}; it must be at least 1.")
        shape = (batch_size, self.horizon, self.action_dim)
        mean = torch.zeros(shape, device=device, dtype=dtype).clamp(self.low, self.high)
        return Plan(
            actions=mean,
            mean=mean,
            std=torch.full_like(mean, self.initial_std),
            elites=mean[:, None].repeat(1, self.num_elites, 1, 1),
            elite_returns=mean.new_full((batch_size, self.num_elites), -math.inf),
        )

    def warm_start(self, previous: Plan) -> Plan:
        """Return `previous` one step on: shifted by one action, std wide again, nothing scored.

        The new last action is 0 (or the bound nearest to it). The std is not carried over: a narrowed one
        cannot follow a target that jumps.
        """
        return Plan(
            actions=self._shift(previous.actions),
            mean=self._shift(previous.mean),
            std=torch.full_like(previous.std, self.initial_std),
            elites=self._shift(previous.elites),
            elite_returns=torch.full_like(previous.elite_returns, -math.inf),
        )

    def plan(
        self,
        score: Scorer,
        start: Plan,
        proposals: Float[Tensor, "batch proposal horizon action"] | None = None,
        generator: torch.Generator | None = None,
        deadline: float | None = None,
    ) -> Plan:
        """Improve `start` and return the best plan found.

        `score` must be deterministic during the call. `proposals` are candidates from elsewhere (a policy's);
        one that is not finite never wins. They are scored once, in the first iteration, in place of as many
        draws. Device and dtype follow `start`. `generator` None means torch's default one.

        `deadline` is a time of `time.perf_counter()` in seconds: no iteration starts that would end after it
        if it took as long as the one before. If it has passed already, `start` comes back as a valid plan
        with 0 iterations, without a call of `score`.

        Raises `PlannerError` for shapes that do not fit and, with `if_all_nan="raise"`, if no candidate of
        some row had a finite return in any iteration.
        """
        began = perf_counter()
        proposals = self._check_inputs(start, proposals)
        if self.execute == "best":  # what was executed is not the mean, and competes too
            proposals = torch.cat([start.actions[:, None], proposals], dim=1)[:, : self.num_candidates - 1]
        batch_size, _, horizon, action_dim = proposals.shape
        # All noise first: how far the generator moves does not depend on the deadline, and nothing random
        # is left inside the loop.
        shape = (self.num_iterations, batch_size, self.num_candidates - 1, horizon, action_dim)
        noise = white_noise(shape, generator, start.mean.device, start.mean.dtype)

        # Returns belong to the situation they were scored in; those of another decision must not compete.
        plan = replace(
            start,
            actions=start.actions.clamp(self.low, self.high),
            mean=start.mean.clamp(self.low, self.high),
            elite_returns=torch.full_like(start.elite_returns, -math.inf),
            num_iterations=0,
        )
        last_seconds = 0.0
        for iteration in range(self.num_iterations):
            iteration_began = perf_counter()
            if deadline is not None and iteration_began + last_seconds > deadline:
                break
            plan = self._iterate(score, plan, iteration, noise[iteration], proposals)
            plan = replace(plan, num_iterations=iteration + 1)
            proposals = proposals[:, :0]  # known from here on; the good ones are among the elites
            if deadline is not None and plan.mean.device.type != "cpu":
                torch.accelerator.synchronize(plan.mean.device)  # else only the launches are timed
            last_seconds = perf_counter() - iteration_began

        if self.if_all_nan == "raise" and plan.num_iterations > 0:
            self._raise_if_unscored(plan)
        return replace(plan, seconds=perf_counter() - began)

    def _iterate(
        self,
        score: Scorer,
        plan: Plan,
        iteration: int,
        noise: Float[Tensor, "batch noise horizon action"],
        proposals: Float[Tensor, "batch proposal horizon action"],
    ) -> Plan:
        """One draw-score-refine round."""
        num_drawn = self.num_candidates - 1 - proposals.shape[1]
        drawn = self.draw(plan, iteration, noise[:, :num_drawn])
        candidates = torch.cat([plan.mean[:, None], proposals, drawn], dim=1)
        # A diverged policy's NaN would survive a weight of 0; it is scored as something finite but not kept.
        usable = candidates.isfinite().flatten(2).all(2)
        candidates = candidates.nan_to_num().clamp(self.low, self.high)
        returns = score(candidates)
        if returns.shape != candidates.shape[:2]:
            raise PlannerError(
                f"score returned shape {tuple(returns.shape)} for candidates {tuple(candidates.shape)}; it "
                f"must return one number for each candidate, {tuple(candidates.shape[:2])}."
            )
        returns = returns.to(plan.mean.dtype)  # first: a float64 may become infinite by it
        returns = returns.masked_fill(~(usable & returns.isfinite()), -math.inf)

        kept, kept_returns = plan.elites[:, : self.num_kept], plan.elite_returns[:, : self.num_kept]
        # A current mean that is a kept elite too (predictive sampling's always is) must not count twice.
        is_twin = (kept == plan.mean[:, None]).flatten(2).all(2) & kept_returns.isfinite()
        returns[:, 0].masked_fill_(is_twin.any(1), -math.inf)
        candidates = torch.cat([kept, candidates], dim=1)
        returns = torch.cat([kept_returns, returns], dim=1)

        # Stable: among equal returns (a sparse reward's zeros) the plan at hand wins, and does not wander.
        best = returns.argsort(dim=1, descending=True, stable=True)[:, : self.num_elites]
        elite_returns = returns.gather(1, best)
        elites = candidates.gather(1, best[:, :, None, None].expand(-1, -1, *candidates.shape[2:]))
        before = replace(plan, elites=elites, elite_returns=elite_returns)
        after = self.refine(before, candidates, returns)
        # Averages of clamped actions leave the bounds by rounding.
        after = replace(
            after,
            actions=(elites[:, 0] if self.execute == "best" else after.actions).clamp(self.low, self.high),
            mean=after.mean.clamp(self.low, self.high),
        )
        return after.replace_rows(before.best_return.isneginf(), before)

    def _shift(self, sequences: Float[Tensor, "... horizon action"]) -> Float[Tensor, "... horizon action"]:
        """Drop the first action, which was executed, and append a 0."""
        last = torch.zeros_like(sequences[..., -1:, :]).clamp(self.low, self.high)
        return torch.cat([sequences[..., 1:, :], last], dim=-2)

    def _check_inputs(
        self, start: Plan, proposals: Float[Tensor, "batch proposal horizon action"] | None
    ) -> Float[Tensor, "batch proposal horizon action"]:
        """Raise for shapes that do not fit; return the proposals, none of them if there are none."""
        batch_size = start.mean.shape[0]
        expected = (batch_size, self.num_elites, self.horizon, self.action_dim)
        if start.elites.shape != expected:
            raise PlannerError(
                f"start.elites has shape {tuple(start.elites.shape)} (batch, elite, horizon, action); this "
                f"planner needs {expected}; begin with its own initial_plan({batch_size})."
            )
        if proposals is None:
            return start.mean.new_empty((batch_size, 0, self.horizon, self.action_dim))
        expected = (batch_size, proposals.shape[1], self.horizon, self.action_dim)
        if proposals.shape != expected:
            raise PlannerError(
                f"proposals have shape {tuple(proposals.shape)}; they must be (batch, proposal, horizon, "
                f"action) = {expected}, as the plan they compete with."
            )
        if proposals.shape[1] > self.num_candidates - 1:
            raise PlannerError(
                f"{proposals.shape[1]} proposals and the nominal plan are more than num_candidates "
                f"{self.num_candidates}; pass fewer proposals or raise num_candidates."
            )
        return proposals.to(start.mean)

    def _raise_if_unscored(self, plan: Plan) -> None:
        is_unscored = plan.best_return.isneginf()
        if is_unscored.any():
            rows = is_unscored.nonzero().flatten().tolist()
            raise PlannerError(
                f"no candidate of batch rows {rows} has a finite return after {plan.num_iterations} "
                "iterations. The scorer returned only NaN or infinity: look at what it was given and at its "
                "model, or build the planner with if_all_nan='nominal' to keep the plan it started from."
            )
