"""What a planner needs of one moment: an outlook; and whole decisions from such, recorded for GPUs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from torch import Tensor

from planners import PLAN_TENSORS, Plan, SamplingPlanner, Scorer, check_scored
from worldmodel.model import Recorded


@dataclass(frozen=True)
class Outlook:
    """What a planner needs of one moment in B environments.

    - `score`: its one function.
    - `propose`: action sequences from a policy, given standard normal noise (B, N, H, A); None without one.
    - `recorded`, `inputs`: where whole decisions are worth being recorded: a planner, recorded, and the
      tensors that it looks ahead from.
    """

    score: Scorer
    propose: Callable[[Tensor], Tensor] | None = None
    recorded: "Callable[[SamplingPlanner], RecordedPlanner] | None" = None
    inputs: tuple[Tensor, ...] = ()


class RecordedPlanner:
    """Plans as its `planner` does, from noise that is handed in, in one launch.

    It is compiled as one function: what all iterations share (narrowed weights) is made once, and what lies
    between scores is fused. That takes a minute for each number of environments.

    - `planner`: one that `is_recordable`.
    - `look`: the outlook from some tensors, a function of these alone.
    """

    def __init__(self, planner: SamplingPlanner, look: Callable[..., Outlook]) -> None:
        # Whether anything was scored is asked when all is done: to ask is to wait.
        self._patient = replace(planner, if_all_nan="nominal")
        self._raises = planner.if_all_nan == "raise"
        self._look = look
        self._recorded = Recorded(self.planned)
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
        made = self._recorded(noise, *start.tensors.values(), *inputs, *extra)
        plan = _plan(made)
        num_iterations = plan.best_returns.shape[1]
        if self._raises:
            check_scored(plan, num_iterations)
        return replace(
            plan,
            num_iterations=num_iterations,
            num_evaluations=self._num_evaluations,
            seconds=perf_counter() - began,
        )

    def planned(self, noise: Tensor, *tensors: Tensor) -> list[Tensor]:
        """What is recorded: the tensors of a plan, from those of its start, the inputs, and noise."""
        count = len(PLAN_TENSORS)
        start, inputs = _plan(tensors[:count]), list(tensors[count:])
        proposals = None
        if self._has_proposals:
            proposal_noise = inputs.pop()
        outlook = self._look(*inputs)
        if self._has_proposals:
            assert outlook.propose is not None
            proposals = outlook.propose(proposal_noise)
        plan = self._patient.plan(outlook.score, start, proposals, noise=noise)
        self._num_evaluations = plan.num_evaluations
        return list(plan.tensors.values())


def _plan(tensors: Sequence[Tensor]) -> Plan:
    named: dict[str, Any] = dict(zip(PLAN_TENSORS, tensors, strict=True))
    return Plan(**named)
