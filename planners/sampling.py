"""The loop that all planners share: draw, score, refine."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.known import Known
from planners.noise import white_noise
from planners.plan import Plan, check_scored
from planners.scorer import Scorer, finite_returns
from planners.sequences import Sequences, check_counts


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingPlanner(Sequences, ABC):
    """Improves a plan by sampling around it; subclasses say in `refine` what they learn from the elites.

    A planner holds settings and no state: a plan is a function of the scorer, the plan it starts from, the
    proposals and the generator.

    What the loop promises for every algorithm: candidates and actions lie inside the bounds; the plan it
    started from and all proposals compete; NaN and infinite returns never win; exactly
    `num_candidates_in(iteration)` candidates of each row are scored in an iteration, all of these counted;
    the elites are the best so far.

    - `action_dim`, `horizon`, `low`, `high`, `basis`, `noise`, `last_action`: of action sequences, see
      `Sequences`.
    - `num_candidates`, `num_iterations`, `num_elites`: sequences scored in an iteration; iterations; the
      best sequences that shape the next plan.
    - `num_kept`: elites that stay in the running in the next iteration (their returns are known, so this
      costs no scoring); None keeps all of them.
    - `num_carried`: so many elites of the last decision, at most, compete in the first iteration of the next,
      one step on.
    - `initial_std`, `min_std`, `max_std`: of a parameter, at the start of each plan and its limits.
    - `execute`: the "mean" of the plan, or the "best" candidate found. The mean is smoother and averages out
      a scorer's noise; but where two good ways lead around something, it may lead right into it.
    - `if_all_nan`: what to do with a row in which no candidate has a finite return: "raise" a
      `PlannerError`, or keep the "nominal" plan it started from.
    """

    num_candidates: int = 512
    num_iterations: int = 6
    num_elites: int = 64
    num_kept: int | None = None
    num_carried: int = 0
    initial_std: float = 1.0
    # TD-MPC2 has 0.05: on a linear plant MPPI then costs 1.024 of the exact controller, with this 1.015.
    min_std: float = 0.02
    max_std: float = 2.0
    execute: Literal["mean", "best"] = "mean"
    if_all_nan: Literal["raise", "nominal"] = "raise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_candidates", "num_iterations", "num_elites")
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
        if self.num_carried < 0:
            raise PlannerError(f"num_carried is {self.num_carried}; it must be at least 0.")
        if not 0 < self.min_std <= self.initial_std <= self.max_std < math.inf:
            raise PlannerError(
                f"min_std {self.min_std}, initial_std {self.initial_std}, max_std {self.max_std}: they must "
                "be positive, finite and in this order; widen min_std or max_std."
            )
        if self.execute not in ("mean", "best"):
            raise PlannerError(f"execute is {self.execute!r}; choose 'mean' or 'best'.")
        if self.if_all_nan not in ("raise", "nominal"):
            raise PlannerError(f"if_all_nan is {self.if_all_nan!r}; choose 'raise' or 'nominal'.")

    @abstractmethod
    def refine(self, plan: Plan) -> Plan:
        """Return the plan with new `mean`, `std` and `elite_weights`; the loop clamps the mean in place.

        `plan.elites` and `plan.elite_returns` are up to date, best first, returns finite or -inf. The loop
        discards the result for rows in which all are -inf.
        """

    def draw(
        self, plan: Plan, iteration: int, noise: Float[Tensor, "batch candidate parameter action"]
    ) -> Float[Tensor, "batch candidate parameter action"]:
        """Turn noise of variance 1 into candidates around the plan, in place; the loop clamps them."""
        return noise.mul_(plan.std[:, None]).add_(plan.mean[:, None])

    def num_candidates_in(self, iteration: int) -> int:
        """How many candidates of each row are scored in this iteration."""
        return self.num_candidates

    def scores_mean(self, iteration: int) -> bool:
        """Whether the current mean is among the candidates; in the first iteration it always is."""
        return True

    @property
    def adapts_std(self) -> bool:
        """Whether the std of a plan tells how sure the planner is; else it stays the start's."""
        return True

    @property
    def _num_draws(self) -> int:
        """Iterations that draw."""
        return self.num_iterations

    def initial_plan(
        self, batch_size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Plan:
        """Return a plan that knows nothing: mean 0 (or the bound nearest to it), wide std."""
        if batch_size < 1:
            raise PlannerError(f"batch_size is {batch_size}; it must be at least 1.")
        shape = (batch_size, self.num_parameters, self.action_dim)
        mean = torch.zeros(shape, device=device, dtype=dtype).clamp(self.low, self.high)
        return Plan(
            actions=self.decode(mean),
            mean=mean,
            std=torch.full_like(mean, self.initial_std),
            elites=mean[:, None].repeat(1, self.num_elites, 1, 1),
            elite_returns=mean.new_full((batch_size, self.num_elites), -math.inf),
            elite_weights=mean.new_zeros((batch_size, self.num_elites)),
            best_returns=mean.new_zeros((batch_size, 0)),
        )

    def draw_noise(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "iteration batch candidate parameter action"]:
        """All the chance of a plan: white noise, drawn as `white_noise` says."""
        shape = (self._num_draws, batch_size, self.num_candidates, self.num_parameters, self.action_dim)
        return white_noise(shape, generator, device, dtype)

    def warm_start(self, previous: Plan) -> Plan:
        """Return `previous` one step on: shifted by one action, std wide again, nothing scored.

        The std is not carried over: a narrowed one cannot follow a target that jumps.
        """
        return Plan(
            actions=self.shift_actions(previous.actions),
            mean=self.shift(previous.mean),
            std=torch.full_like(previous.std, self.initial_std),
            elites=self.shift(previous.elites),
            elite_returns=torch.full_like(previous.elite_returns, -math.inf),
            elite_weights=torch.zeros_like(previous.elite_weights),
            best_returns=previous.best_returns[:, :0],
        )

    def plan(
        self,
        score: Scorer,
        start: Plan,
        proposals: Float[Tensor, "batch proposal horizon action"] | None = None,
        generator: torch.Generator | None = None,
        deadline: float | None = None,
        noise: Float[Tensor, "iteration batch candidate parameter action"] | None = None,
    ) -> Plan:
        """Improve `start` and return the best plan found.

        `score` must be deterministic during the call. `proposals` are candidates from elsewhere (a policy's);
        one that is not finite never wins. They are scored once, in the first iteration, in place of as many
        draws; with another basis than single steps, as the nearest sequences that it can express. Device and
        dtype follow `start`. `generator` None: torch's default one; `noise`, of `draw_noise`, is used up.

        `deadline` is a time of `time.perf_counter()` in seconds: no iteration starts that would end after it
        if it took as long as the one before. If it has passed already, `start` comes back as a valid plan
        with 0 iterations, without a call of `score`.

        Raises `PlannerError` for shapes that do not fit and, with `if_all_nan="raise"`, if no candidate of
        some row had a finite return in any iteration.
        """
        began = _now()
        known = Known.of(self, start, proposals)
        # All noise first: how far the generator moves does not depend on the deadline.
        if noise is None:
            noise = self.draw_noise(len(start.mean), generator, start.mean.device, start.mean.dtype)
        noise = self.shape_noise(noise)
        # Returns belong to the situation they were scored in; those of another decision must not compete.
        plan = replace(
            start,
            mean=start.mean.clamp(self.low, self.high),
            elite_returns=torch.full_like(start.elite_returns, -math.inf),
            elite_weights=torch.zeros_like(start.elite_weights),
            num_evaluations=0,
        )
        improvements = self._improve(score, plan, known, noise)
        best_returns: list[Tensor] = []
        last_seconds = 0.0
        for _ in range(self.num_iterations):
            iteration_began = _now()
            if deadline is not None and iteration_began + last_seconds > deadline:
                break
            plan = next(improvements)
            best_returns.append(plan.best_return)
            if deadline is not None and plan.mean.device.type != "cpu":
                torch.accelerator.synchronize(plan.mean.device)  # else only the launches are timed
            last_seconds = _now() - iteration_began

        if self.if_all_nan == "raise" and best_returns:
            check_scored(plan, len(best_returns))
        # Clamped once more, which is a copy too: what the caller does to the actions stays theirs.
        best_or_mean = plan.elites[:, 0] if self.execute == "best" else plan.mean
        actions = self.decode(best_or_mean).clamp(self.low, self.high)
        if not plan.all_scored:
            is_scored = plan.best_return.isfinite()[:, None, None]
            actions = torch.where(is_scored, actions, start.actions.clamp(self.low, self.high))
        return replace(
            plan,
            actions=actions,
            best_returns=torch.stack(best_returns, 1) if best_returns else start.best_returns[:, :0],
            num_iterations=len(best_returns),
            seconds=_now() - began,
        )

    def _improve(
        self,
        score: Scorer,
        plan: Plan,
        known: Known,
        noise: Float[Tensor, "iteration batch candidate parameter action"],
    ) -> Iterator[Plan]:
        """Yield a better plan after each iteration."""
        for iteration in range(self.num_iterations):
            candidates = self._candidates(plan, iteration, noise[iteration], known)
            # A model's weights may want gradients; plans that kept them would hold every former decision.
            returns = finite_returns(score, self.decode(candidates))
            returns = returns.detach() if returns.requires_grad else returns
            if iteration == 0:
                returns = known.disqualify(returns)
            plan = self.improved(plan, candidates, returns, num_kept=self.num_kept)
            yield plan

    def _candidates(
        self,
        plan: Plan,
        iteration: int,
        noise: Float[Tensor, "batch draw parameter action"],
        known: Known,
    ) -> Float[Tensor, "batch candidate parameter action"]:
        """The parameters to be scored in an iteration: the mean, the known ones if it is the first, draws."""
        candidates = self.draw(plan, iteration, noise[:, : self.num_candidates_in(iteration)])
        if iteration == 0 or self.scores_mean(iteration):
            candidates[:, 0] = plan.mean
        if iteration == 0:
            known.take_places(candidates)
        return candidates.clamp_(self.low, self.high)

    def improved(
        self,
        plan: Plan,
        candidates: Float[Tensor, "batch candidate parameter action"],
        returns: Float[Tensor, "batch candidate"],
        *,
        num_kept: int | None,
    ) -> Plan:
        """The plan after its elites (`num_kept` of them, or all) met newly scored candidates; refined."""
        num_evaluations = plan.num_evaluations + candidates.shape[1]
        if plan.num_evaluations:  # else the elites are those of an earlier decision
            candidates = torch.cat([plan.elites[:, :num_kept], candidates], dim=1)
            returns = torch.cat([plan.elite_returns[:, :num_kept], returns], dim=1)
        # Stable: among equal returns (a sparse reward's zeros) the plan at hand wins, and does not wander.
        returns, order = returns.sort(dim=1, descending=True, stable=True)
        best = order[:, : self.num_elites, None, None].expand(-1, -1, *candidates.shape[2:])
        plan = replace(
            plan,
            elites=candidates.gather(1, best),
            elite_returns=returns[:, : self.num_elites].contiguous(),
            num_evaluations=num_evaluations,
        )
        refined = self.refine(plan)
        if plan.all_scored:
            refined.mean.clamp_(self.low, self.high)
            return refined
        is_scored = plan.best_return.isfinite()[:, None]
        return replace(
            plan,
            mean=torch.where(is_scored[..., None], refined.mean, plan.mean).clamp_(self.low, self.high),
            std=torch.where(is_scored[..., None], refined.std, plan.std),
            elite_weights=refined.elite_weights.where(is_scored, 0),
        )


def _now() -> float:
    """Seconds; what is compiled knows no time."""
    return 0.0 if torch.compiler.is_compiling() else perf_counter()
