"""What a plan must not do: violations that are taken off the returns of a scorer.

Bounds of single actions need nothing here: every planner keeps them exactly.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.scorer import Scorer

Violation = Callable[[Float[Tensor, "batch candidate horizon action"]], Float[Tensor, "batch candidate"]]


def penalized(score: Scorer, violation: Violation, weight: float) -> Scorer:
    """returns - weight * violation; penalties nest: `penalized(penalized(score, a, 1.0), b, 10.0)`.

    `violation` is 0 for a candidate that keeps the rule and grows with how far it breaks it. One that depends
    on states is best counted where they are made: `shooting(violation=...)`, the oracle's `violation=`.

    A weight of infinity makes a rule hard: a candidate that breaks it never wins, and a row in which all
    break it is told as any other without a finite return.
    """
    check_weight(weight)

    def constrained(
        candidates: Float[Tensor, "batch candidate horizon action"],
    ) -> Float[Tensor, "batch candidate"]:
        return lowered(score(candidates), violation(candidates), weight)

    return constrained


def check_weight(weight: float) -> None:
    """Errors: `PlannerError` for a weight that would reward violations."""
    if not weight >= 0:
        raise PlannerError(f"weight is {weight}; it must be at least 0, as violations are taken off.")


def lowered(returns: Tensor, broken: Tensor, weight: float) -> Tensor:
    """returns - weight * broken; with a weight of infinity -inf where the rule is not surely kept."""
    if math.isinf(weight):
        return returns.masked_fill(~(broken <= 0), -math.inf)  # so that NaN counts as broken
    return returns - weight * broken


def action_rate(max_change: float, previous_action: Float[Tensor, "batch action"] | None = None) -> Violation:
    """By how much actions change more than `max_change` from step to step, summed over the horizon and A.

    `previous_action`: the one that is executed now, before a plan's first; without it, that first is free.
    """
    if not max_change >= 0:
        raise PlannerError(f"max_change is {max_change}; it must be at least 0.")

    def violation(
        candidates: Float[Tensor, "batch candidate horizon action"],
    ) -> Float[Tensor, "batch candidate"]:
        if previous_action is not None:
            before = previous_action[:, None, None].expand(-1, candidates.shape[1], 1, -1)
            candidates = torch.cat([before.to(candidates), candidates], dim=2)
        return (candidates.diff(dim=2).abs() - max_change).clamp(min=0).sum((2, 3))

    return violation
