"""Candidates of the first iteration that are not drawn."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from planners.errors import PlannerError
from planners.plan import Plan

if TYPE_CHECKING:
    from planners.sampling import SamplingPlanner


@dataclass(frozen=True)
class Known:
    """Proposals, then what is left of the last decision: parameters, and which of them count.

    - `is_usable`: False for one that is not finite: it is scored as something finite, but must not win. None
      if all are.
    - `is_idle`: its place is better taken by a draw.
    """

    parameters: Float[Tensor, "batch known parameter action"]
    is_usable: Bool[Tensor, "batch known"] | None
    is_idle: Bool[Tensor, "batch known"]

    @classmethod
    def of(
        cls,
        planner: "SamplingPlanner",
        start: Plan,
        proposals: Float[Tensor, "batch proposal horizon action"] | None,
    ) -> "Known":
        """Put them together, proposals first. Errors: `PlannerError` for shapes that do not fit."""
        batch_size = len(start.mean)
        expected = (batch_size, planner.num_elites, planner.num_parameters, planner.action_dim)
        if start.elites.shape != expected:
            raise PlannerError(
                f"start.elites has shape {tuple(start.elites.shape)} (batch, elite, parameter, action); this "
                f"planner needs {expected}; begin with its own initial_plan({batch_size})."
            )
        former = start.elites[:, : planner.num_carried]
        if planner.execute == "best" and not planner.num_carried:  # what was executed is not the mean
            former = planner.encode(start.actions[:, None])
        # A plan that was never improved is nothing but its mean, which is scored anyway.
        is_idle = (former == start.mean[:, None]).flatten(2).all(2)
        most = planner.num_candidates - 1
        if proposals is None:
            return cls(former[:, :most], None, is_idle[:, :most])
        cls._check(planner, proposals, batch_size)
        proposed = planner.encode(proposals.to(start.mean))
        is_usable = torch.cat([proposed.isfinite().flatten(2).all(2), torch.ones_like(is_idle)], dim=1)
        is_idle = torch.cat([is_idle.new_zeros(proposals.shape[:2]), is_idle], dim=1)
        parameters = torch.cat([proposed.nan_to_num(0, 0, 0), former], dim=1)
        return cls(parameters[:, :most], is_usable[:, :most], is_idle[:, :most])

    @staticmethod
    def _check(planner: "SamplingPlanner", proposals: Tensor, batch_size: int) -> None:
        expected = (batch_size, proposals.shape[1], planner.horizon, planner.action_dim)
        if proposals.shape != expected:
            raise PlannerError(
                f"proposals have shape {tuple(proposals.shape)}; they must be (batch, proposal, horizon, "
                f"action) = {expected}, as the plan they compete with."
            )
        if proposals.shape[1] > planner.num_candidates - 1:
            raise PlannerError(
                f"{proposals.shape[1]} proposals and the nominal plan are more than num_candidates "
                f"{planner.num_candidates}; pass fewer proposals or raise num_candidates."
            )

    def take_places(self, candidates: Float[Tensor, "batch candidate parameter action"]) -> None:
        """Replace the draws behind the mean."""
        if count := self.parameters.shape[1]:
            places = candidates[:, 1 : 1 + count]
            places.copy_(torch.where(self.is_idle[..., None, None], places, self.parameters))

    def disqualify(self, returns: Float[Tensor, "batch candidate"]) -> Float[Tensor, "batch candidate"]:
        """-inf for those that are not usable."""
        if self.is_usable is not None:
            returns[:, 1 : 1 + self.is_usable.shape[1]].masked_fill_(~self.is_usable, -math.inf)
        return returns
