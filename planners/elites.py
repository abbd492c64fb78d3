"""What planners learn from the best candidates: how much each weighs, and the Gaussian through them."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def even_weights(
    elite_returns: Float[Tensor, "batch elite"], *, all_scored: bool = False
) -> Float[Tensor, "batch elite"]:
    """The same for all that were scored, summing to 1 in each row; NaN in a row without any.

    `all_scored`: as `Plan.all_scored` says; then no mask is needed.
    """
    if all_scored:
        return torch.full_like(elite_returns, 1 / elite_returns.shape[1])
    is_scored = elite_returns.isfinite().to(elite_returns.dtype)
    return is_scored / is_scored.sum(1, keepdim=True)


def best_only(elite_returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
    """1 for the first, which is the best."""
    weights = torch.zeros_like(elite_returns)
    weights[:, 0] = 1
    return weights


def softmax_weights(
    elite_returns: Float[Tensor, "batch elite"],
    temperature: float,
    *,
    relative: bool,
    all_scored: bool = False,
) -> Float[Tensor, "batch elite"]:
    """softmax(return / temperature), best first; those at -inf weigh 0, each row sums to 1.

    - `relative`: the temperature counts in standard deviations of the row's scored returns.
    - `all_scored`: as `Plan.all_scored` says; then no mask is needed.
    """
    # In float64: squares of tiny or huge returns would leave the floats.
    below_best = elite_returns.double() - elite_returns[:, :1].double()
    is_scored = None if all_scored else elite_returns.isfinite()
    if is_scored is not None:
        below_best = below_best.masked_fill(~is_scored, 0)
    scale: float | Tensor = temperature
    if relative:
        scale = temperature * _std(below_best, is_scored).clamp(min=torch.finfo(torch.float64).tiny)
    exponents = below_best / scale
    if is_scored is not None:
        exponents = exponents.masked_fill(~is_scored, -math.inf)
    return exponents.softmax(1).to(elite_returns.dtype)


def _std(
    values: Float[Tensor, "batch elite"], counts: Bool[Tensor, "batch elite"] | None
) -> Float[Tensor, "batch 1"]:
    """Population std of each row, over the values that count; the others are 0."""
    if counts is None:
        return values.std(1, correction=0, keepdim=True)
    number = counts.sum(1, keepdim=True).clamp(min=1)
    mean = values.sum(1, keepdim=True) / number
    return ((values - mean).masked_fill(~counts, 0).square().sum(1, keepdim=True) / number).sqrt()


def weighted_moments(
    elites: Float[Tensor, "batch elite parameter action"], weights: Float[Tensor, "batch elite"]
) -> tuple[Float[Tensor, "batch parameter action"], Float[Tensor, "batch parameter action"]]:
    """Return mean and std (population, not a variance) of the elites; weights sum to 1 in each row."""
    # Products with the weights as a row: quicker than weighting every elite and summing.
    row, flat = weights[:, None], elites.flatten(2)
    mean = torch.bmm(row, flat)
    # Around the mean, not E[x^2] - mean^2: that difference goes negative by rounding when elites agree.
    std = torch.bmm(row, (flat - mean).square_()).sqrt_()
    shape = elites[:, 0].shape
    return mean.view(shape), std.view(shape)
