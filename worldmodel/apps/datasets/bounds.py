"""Whether recorded actions lie where all actions lie: in [-1, 1]."""

import numpy as np

AT_BOUND = 0.999
_IN_BOUNDS = 1 + 1e-5  # a clamped mean may leave [-1, 1] by rounding


def largest_of(action: np.ndarray) -> float:
    """The size of the largest number in actions."""
    return float(np.abs(action).max(initial=0.0))


def breaks_bounds(largest: float) -> str | None:
    """What to say of actions whose largest number is this one; None where all is well."""
    if largest <= _IN_BOUNDS:
        return None
    return (
        f"actions reach {largest:.4g}, and they must lie in [-1, 1], as a planner proposes them: divide each "
        "by its limit when recording (docs/datasets.md, Bring your own robot's logs)"
    )
