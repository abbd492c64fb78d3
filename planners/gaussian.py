"""The Gaussian over action sequences that sampling planners draw from and fit."""

from jaxtyping import Float
from torch import Tensor


def gaussian_candidates(
    mean: Float[Tensor, "batch horizon action"],
    std: Float[Tensor, "batch horizon action"],
    noise: Float[Tensor, "batch candidate horizon action"],
) -> Float[Tensor, "batch candidate horizon action"]:
    """Turn standard normal noise into action sequences around `mean`."""
    return mean[:, None] + std[:, None] * noise


def weighted_moments(
    elites: Float[Tensor, "batch elite horizon action"], weights: Float[Tensor, "batch elite"]
) -> tuple[Float[Tensor, "batch horizon action"], Float[Tensor, "batch horizon action"]]:
    """Return mean and std (population, not a variance) of the elites; weights sum to 1 in each row."""
    weights = weights[:, :, None, None]
    mean = (weights * elites).sum(1)
    # Around the mean, not E[x^2] - mean^2: that difference goes negative by rounding when elites agree.
    std = (weights * (elites - mean[:, None]).square()).sum(1).sqrt()
    return mean, std
