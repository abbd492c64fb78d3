"""What a planner returns, and what it starts from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planners.errors import PlannerError


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A batch of action sequences with the Gaussian they came from.

    Axes: B batch (one row is one planning problem), H horizon, A action, K elites.

    - `actions`: to execute, inside the bounds.
    - `mean`, `std`: the Gaussian to plan on from.
    - `elites`: the best candidates found so far, best first.
    - `elite_returns`: their returns; -inf means "not scored here": a plan that was not improved yet, a
      candidate whose return was NaN or infinite, or fewer candidates than elites.
    - `num_iterations`, `seconds`: work done by the call to `plan` that made it (for the whole batch).
    """

    actions: Float[Tensor, "batch horizon action"]
    mean: Float[Tensor, "batch horizon action"]
    std: Float[Tensor, "batch horizon action"]
    elites: Float[Tensor, "batch elite horizon action"]
    elite_returns: Float[Tensor, "batch elite"]
    num_iterations: int = 0
    seconds: float = 0.0

    @property
    def best_return(self) -> Float[Tensor, " batch"]:
        """The highest return found, -inf where nothing was scored; that of `elites[:, 0]`."""
        return self.elite_returns[:, 0]

    def replace_rows(self, mask: Bool[Tensor, " batch"], other: "Plan") -> "Plan":
        """Return this plan with the rows where `mask` is True taken from `other`.

        So single environments of a batch are reset: `plan.replace_rows(is_new, planner.initial_plan(B))`.
        `num_iterations` and `seconds` stay this plan's.
        """
        if other.elites.shape != self.elites.shape:
            raise PlannerError(
                f"plans of shapes {tuple(self.elites.shape)} and {tuple(other.elites.shape)} (batch, elite, "
                "horizon, action) cannot share rows: take both from one planner with one batch size."
            )
        rows = mask[:, None, None]
        return replace(
            self,
            actions=torch.where(rows, other.actions, self.actions),
            mean=torch.where(rows, other.mean, self.mean),
            std=torch.where(rows, other.std, self.std),
            elites=torch.where(rows[..., None], other.elites, self.elites),
            elite_returns=torch.where(mask[:, None], other.elite_returns, self.elite_returns),
        )
