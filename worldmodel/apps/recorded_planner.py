"""A whole decision as one recorded graph, for GPUs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from planners import Plan, SamplingPlanner, check_scored
from worldmodel.apps.foresight import Outlook
from worldmodel.model import Recorded

_STARTS = ("actions", "mean", "std", "elites", "elite_returns", "elite_weights", "best_returns")


class RecordedPlanner:
    """Plans as its `planner` does, from noise that is handed in, in one launch.

    - `look`: the outlook from some tensors, a function of these alone.
    - `is_compiled`: as one function, too: what all iterations share (narrowed weights) is made once, and what
      lies between scores is fused. Takes a minute, for each number of environments.
    """

    def __init__(
        self, planner: SamplingPlanner, look: Callable[..., Outlook], *, is_compiled: bool = True
    ) -> None:
        # Whether anything was scored is asked when all is done: to ask is to wait.
        self._patient = replace(planner, if_all_nan="nominal")
        self._raises = planner.if_all_nan == "raise"
        self._look = look
        self._recorded = Recorded(
            torch.compile(self._planned, dynamic=False) if is_compiled else self._planned
        )
        self._has_proposals, self._num_evaluations = False, 0

    def plan(
        self, inputs: Sequence[Tensor], start: Plan, noise: Tensor, proposal_noise: Tensor | None = None
    ) -> Plan:
        """As `SamplingPlanner.plan` from `start`, with `look(*inputs)`, its noise and that of its proposals.

        `proposal_noise` None: without proposals. Errors: `PlannerError` as there.
        """
        began = perf_counter()
        self._has_proposals = proposal_noise is not None
        extra = () if proposal_noise is None else (proposal_noise,)
        starts = [getattr(start, name) for name in _STARTS]
        made = self._recorded(noise, *starts, *inputs, *extra)
        plan = replace(
            _plan_of(made), num_iterations=made[-1].shape[1], num_evaluations=self._num_evaluations
        )
        if self._raises:
            check_scored(plan, plan.num_iterations)
        return replace(plan, seconds=perf_counter() - began)

    def _planned(self, noise: Tensor, *tensors: Tensor) -> list[Tensor]:
        start, inputs = _plan_of(tensors[: len(_STARTS)]), list(tensors[len(_STARTS) :])
        proposals = None
        if self._has_proposals:
            proposal_noise = inputs.pop()
        outlook = self._look(*inputs)
        if self._has_proposals:
            assert outlook.propose is not None
            proposals = outlook.propose(proposal_noise)
        plan = self._patient.plan(outlook.score, start, proposals, noise=noise)
        self._num_evaluations = plan.num_evaluations
        return [getattr(plan, name) for name in _STARTS]


def _plan_of(tensors: Sequence[Tensor]) -> Plan:
    named: dict[str, Any] = dict(zip(_STARTS, tensors, strict=True))
    return Plan(**named)
