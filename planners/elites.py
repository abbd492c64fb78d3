"""What planners learn from the best candidates: how much each weighs, and the Gaussian through them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def even_weights(elite_returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
    """The same for all that were scored, summing to 1 in each row; NaN in a row without any."""
    is_scored = elite_returns.isfinite().to(elite_returns.dtype)
    return is_scored / is_scored.sum(1, keepdim=True)


def best_only(elite_returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
    """1 for the first, which is the best."""
    weights = torch.zeros_like(elite_returns)
    weights[:, 0] = 1
    return weights


def softmax_weights(
    elite_returns: Float[Tensor, "batch elite"], temperature: float, *, relative: bool
) -> Float[Tensor, "batch elite"]:
    """softmax(return / temperature), best first; those at -inf weigh 0, each row sums to 1.

    `relative`: the temperature counts in standard deviations of the row's scored returns.
    """
    is_scored = elite_returns.isfinite()
    below_best = (elite_returns - elite_returns[:, :1]).masked_fill(~is_scored, 0)
    if relative:
        # In units of the range first: squares of tiny or huge returns would leave the floats.
        tiny = torch.finfo(below_best.dtype).tiny
        below_best = below_best / -below_best.amin(1, keepdim=True).clamp(max=-tiny)
        num_scored = is_scored.sum(1, keepdim=True).clamp(min=1)
        mean = below_best.sum(1, keepdim=True) / num_scored
        deviations = (below_best - mean).masked_fill(~is_scored, 0)
        std = (deviations.square().sum(1, keepdim=True) / num_scored).sqrt()
        below_best = below_best / std.clamp(min=tiny)
    return (below_best / temperature).masked_fill(~is_scored, -math.inf).softmax(1)


def weighted_moments(
    elites: Float[Tensor, "batch elite parameter action"], weights: Float[Tensor, "batch elite"]
) -> tuple[Float[Tensor, "batch parameter action"], Float[Tensor, "batch parameter action"]]:
    """Return mean and std (population, not a variance) of the elites; weights sum to 1 in each row."""
    weights = weights[:, :, None, None]
    mean = (weights * elites).sum(1)
    # Around the mean, not E[x^2] - mean^2: that difference goes negative by rounding when elites agree.
    std = (weights * (elites - mean[:, None]).square()).sum(1).sqrt()
    return mean, std
