"""One return from many: scorers of an ensemble, or of simulators that differ, reduced as risk allows."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.scorer import Scorer

Reduce = Callable[[Float[Tensor, "member batch candidate"]], Float[Tensor, "batch candidate"]]


def over_members(scorers: Sequence[Scorer], reduce: Reduce) -> Scorer:
    """Score with every member, then reduce. What one member calls NaN or infinite does not win."""
    if not scorers:
        raise PlannerError("there are no scorers to reduce; give one for each member of the ensemble.")

    def score(
        candidates: Float[Tensor, "batch candidate horizon action"],
    ) -> Float[Tensor, "batch candidate"]:
        returns = torch.stack([score_member(candidates) for score_member in scorers])
        is_sound = returns.isfinite().all(0)
        return reduce(returns.nan_to_num(0, 0, 0)).masked_fill(~is_sound, -math.inf)

    return score


def mean() -> Reduce:
    """Risk-neutral: the mean over members."""
    return partial(torch.mean, dim=0)


def worst_case() -> Reduce:
    """The lowest return of any member."""
    return partial(torch.amin, dim=0)


def cvar(fraction: float) -> Reduce:
    """Conditional value at risk: the mean of the worst `fraction` of members.

    A fraction that is no whole number of members counts the last one in part (Rockafellar and Uryasev 2000).
    1 is the mean; at 1 / members or below, the worst case.
    """
    if not 0 < fraction <= 1:
        raise PlannerError(f"fraction is {fraction}; it must be above 0 and at most 1.")

    def reduce(returns: Float[Tensor, "member batch candidate"]) -> Float[Tensor, "batch candidate"]:
        count = max(1.0, fraction * len(returns))
        ranks = torch.arange(len(returns), dtype=returns.dtype, device=returns.device)
        weights = (count - ranks).clamp(0, 1) / count
        return torch.tensordot(weights, returns.sort(dim=0).values, dims=1)

    return reduce


def mean_minus_std(num_stds: float) -> Reduce:
    """The mean less `num_stds` standard deviations (population): what members disagree on counts less.

    A negative number looks for disagreement, which is one way to explore.
    """
    if not math.isfinite(num_stds):
        raise PlannerError(f"num_stds is {num_stds}; it must be finite.")

    def reduce(returns: Float[Tensor, "member batch candidate"]) -> Float[Tensor, "batch candidate"]:
        std, average = torch.std_mean(returns, dim=0, correction=0)
        return average - num_stds * std

    return reduce
