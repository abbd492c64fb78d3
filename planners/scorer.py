"""The one function a planner knows."""

import math
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError


@runtime_checkable
class Scorer(Protocol):
    """Estimates the return of every candidate action sequence; higher is better.

    Row `b` of the batch is one planning problem (one environment) and is scored alone. A scorer is a
    deterministic function while one plan is made: returns of earlier iterations are kept and compared
    with later ones. NaN or infinite returns are allowed and never win. It must not change the candidates.
    """

    def __call__(
        self, candidates: Float[Tensor, "batch candidate horizon action"]
    ) -> Float[Tensor, "batch candidate"]:
        """Return the estimated return of each candidate, on the device and in the dtype it came in."""
        ...


def finite_returns(
    score: Scorer, candidates: Float[Tensor, "batch candidate horizon action"]
) -> Float[Tensor, "batch candidate"]:
    """What `score` says, in the candidates' dtype: finite, or -inf for what must not win.

    Errors: `PlannerError` for what is no tensor of that shape.
    """
    returns = score(candidates)
    if not isinstance(returns, Tensor):
        raise PlannerError(f"score returned a {type(returns).__name__}; it must return a tensor of returns.")
    if returns.shape != candidates.shape[:2]:
        raise PlannerError(
            f"score returned shape {tuple(returns.shape)} for {tuple(candidates.shape[:2])} (batch, "
            "candidate) action sequences; it must return one number for each."
        )
    returns = returns.to(candidates.dtype)  # first: a float64 may become infinite by it
    return returns.nan_to_num(-math.inf, -math.inf, -math.inf)
