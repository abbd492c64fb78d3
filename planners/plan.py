"""What a planner returns, and what it starts from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planners.errors import PlannerError


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A batch of action sequences with the Gaussian they came from, and how the search for them went.

    Axes: B batch (one row is one planning problem), H horizon, A action, P parameters of an action sequence
    (its steps themselves, P = H, unless the planner has another `basis`), K elites, I iterations.

    - `actions`: to execute, inside the bounds.
    - `mean`, `std`: the Gaussian over parameters to plan on from.
    - `elites`: the parameters of the best candidates found so far, best first; `SamplingPlanner.decode` turns
      them into actions.
    - `elite_returns`: their returns; -inf means "not scored here": a plan that was not improved yet, a
      candidate whose return was NaN or infinite, or fewer candidates than elites.
    - `elite_weights`: how much each counted in the mean; sums to 1, 0 where nothing was scored.
    - `best_returns`: the best return after each iteration that was done.
    - `num_iterations`, `num_evaluations` (candidates scored for each row; one whose gradient was taken
      counts once), `seconds`: work done by the call to `plan` that made it (`seconds` for the whole batch).
    """

    actions: Float[Tensor, "batch horizon action"]
    mean: Float[Tensor, "batch parameter action"]
    std: Float[Tensor, "batch parameter action"]
    elites: Float[Tensor, "batch elite parameter action"]
    elite_returns: Float[Tensor, "batch elite"]
    elite_weights: Float[Tensor, "batch elite"]
    best_returns: Float[Tensor, "batch iteration"]
    num_iterations: int = 0
    num_evaluations: int = 0
    seconds: float = 0.0

    @property
    def best_return(self) -> Float[Tensor, " batch"]:
        """The highest return found, -inf where nothing was scored; that of `elites[:, 0]`."""
        return self.elite_returns[:, 0]

    @property
    def all_scored(self) -> bool:
        """True where surely every elite of every row was scored: the common case, which needs no masks.

        False on a GPU, where asking would wait for the device, and in what is compiled.
        """
        if self.elite_returns.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        return self.elite_returns[:, -1].amin().item() > -math.inf

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that is no account of work done: `Plan(**plan.tensors)` is the same plan."""
        return {name: getattr(self, name) for name in PLAN_TENSORS}

    @property
    def effective_sample_size(self) -> Float[Tensor, " batch"]:
        """How many elites the mean rests on: 1 / sum(weight^2), from 1 (one decided) to K (all alike).

        0 where nothing was scored. Near 1 the temperature is low for these returns: the mean follows single
        candidates. Source: Kish 1965.
        """
        total = self.elite_weights.square().sum(1)
        return torch.where(total > 0, 1 / total, 0)

    @classmethod
    def stack(cls, plans: Sequence["Plan"]) -> "Plan":
        """Plans of one planner as one batch, one after the other.

        So planning problems that were batched otherwise share the next decision; `rows` takes them apart.
        What tells of the search (`best_returns` and the work done) is nobody's then, and left out.
        """
        shapes = {tuple(plan.elites.shape[1:]) for plan in plans}
        if len(shapes) != 1:
            raise PlannerError(
                f"plans of shapes {sorted(shapes)} (elite, parameter, action) cannot be one batch: take all "
                "from one planner."
            )
        tensors: dict[str, Any] = {
            name: torch.cat([getattr(plan, name) for plan in plans]) for name in _BATCHED
        }
        return cls(**tensors, best_returns=tensors["mean"].new_zeros((len(tensors["mean"]), 0)))

    def rows(self, start: int, stop: int) -> "Plan":
        """Rows `start` to `stop` (excluded) as a batch of their own, sharing this plan's memory."""
        rows: dict[str, Any] = {name: tensor[start:stop] for name, tensor in self.tensors.items()}
        return replace(self, **rows)

    def replace_rows(self, mask: Bool[Tensor, " batch"], other: "Plan") -> "Plan":
        """Return this plan with the rows where `mask` is True taken from `other`.

        So single environments of a batch are reset: `plan.replace_rows(is_new, planner.initial_plan(B))`.
        What tells of the search (`best_returns` and the work done) stays this plan's.
        """
        if other.elites.shape != self.elites.shape:
            raise PlannerError(
                f"plans of shapes {tuple(self.elites.shape)} and {tuple(other.elites.shape)} (batch, elite, "
                "parameter, action) cannot share rows: take both from one planner with one batch size."
            )
        rows = mask[:, None, None]
        return replace(
            self,
            actions=torch.where(rows, other.actions, self.actions),
            mean=torch.where(rows, other.mean, self.mean),
            std=torch.where(rows, other.std, self.std),
            elites=torch.where(rows[..., None], other.elites, self.elites),
            elite_returns=torch.where(mask[:, None], other.elite_returns, self.elite_returns),
            elite_weights=torch.where(mask[:, None], other.elite_weights, self.elite_weights),
        )


# What has a row for each planning problem, but for the account of the search.
_BATCHED = ("actions", "mean", "std", "elites", "elite_returns", "elite_weights")
PLAN_TENSORS = (*_BATCHED, "best_returns")


def check_scored(plan: Plan, num_iterations: int) -> None:
    """Errors: `PlannerError` naming the rows in which nothing has a finite return."""
    is_unscored = plan.best_return.isneginf()
    if is_unscored.any():
        rows = is_unscored.nonzero().flatten().tolist()
        raise PlannerError(
            f"no candidate of batch rows {rows} has a finite return after {num_iterations} "
            "iterations. The scorer returned only NaN or infinity: look at what it was given and at its "
            "model (or at a hard constraint that no candidate keeps), or build the planner with "
            "if_all_nan='nominal' to keep the plan it started from."
        )
