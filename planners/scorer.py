"""The one function a planner knows."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


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
