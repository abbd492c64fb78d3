"""The losses of the world model and its policy, as pure functions.

B windows, H steps, E Q heads. Each takes per-step errors to one number by `weighted_mean`.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def step_weights(valid: Bool[Tensor, "batch horizon"], rho: float) -> Float[Tensor, "batch horizon"]:
    """rho^t for real steps, 0 for padding: later steps of an imagined future count less (TD-MPC2, eq. 3)."""
    decay = rho ** torch.arange(valid.shape[1], dtype=torch.float32, device=valid.device)
    return valid * decay


def weighted_mean(
    errors: Float[Tensor, "*head batch horizon"],
    weights: Float[Tensor, "batch horizon"],
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean over heads of the weighted mean over steps.

    `total`: what the weights sum up to; where they are those of a part of a batch, the mean over its parts.
    """
    total = weights.sum() if total is None else total
    return ((errors * weights).sum((-2, -1)) / total.clamp(min=1e-6)).mean()


def td_targets(
    reward: Float[Tensor, "batch window"],
    terminated: Bool[Tensor, "batch window"],
    valid: Bool[Tensor, "batch window"],
    next_q: Float[Tensor, "q batch horizon"],
    discount: float,
) -> Float[Tensor, "batch horizon"]:
    """n-step targets: n rewards, then the lowest of the given heads; n = window - horizon + 1.

    `next_q[:, :, t]` belongs to the observation n steps after t; in a window whose episode ends before, to
    the last observation. Nothing follows a terminated step. A truncated episode is not terminated: its last
    observation still bootstraps, after as many rewards as there were.
    """
    num_steps = reward.shape[1] - next_q.shape[2] + 1
    powers = discount ** torch.arange(num_steps, dtype=reward.dtype, device=reward.device)
    rewards = (reward.unfold(1, num_steps, 1) * powers).sum(-1)  # padding has reward 0
    num_real = valid.unfold(1, num_steps, 1).sum(-1)
    goes_on = ~terminated.unfold(1, num_steps, 1).any(-1)
    return rewards + goes_on * discount**num_real * next_q.amin(0)


def consistency_errors(
    predicted: Float[Tensor, "*member batch horizon embedding"],
    target: Float[Tensor, "batch horizon embedding"],
) -> Float[Tensor, "*member batch horizon"]:
    """Squared distance between predicted and encoded embeddings, mean over dimensions."""
    return (predicted - target.detach()).square().mean(-1)


def straightening_errors(
    embeddings: Float[Tensor, "batch time embedding"],
) -> Float[Tensor, "batch time-2"]:
    """How much embeddings turn: minus the cosine of successive changes (arXiv 2603.12231)."""
    changes = embeddings.diff(dim=1)
    return -F.cosine_similarity(changes[:, :-1], changes[:, 1:], dim=-1)


def continuation_errors(
    logits: Float[Tensor, "batch horizon"], terminated: Bool[Tensor, "batch horizon"]
) -> Float[Tensor, "batch horizon"]:
    """Binary cross-entropy of "the episode goes on"."""
    return F.binary_cross_entropy_with_logits(logits, (~terminated).to(logits.dtype), reduction="none")


def moved_scale(
    scale: Float[Tensor, "*task"],
    values: Float[Tensor, " batch"],
    task: Int64[Tensor, " batch"] | None = None,
) -> Float[Tensor, "*task"]:
    """A running unit of values, moved on by their range: from the 5 % to the 95 % quantile, at least 1.

    Of several tasks each has its own, which stays where no value is of it.
    """
    if task is not None:
        tasks = torch.arange(len(scale), device=task.device)[:, None]
        values = values.where(task == tasks, torch.nan)
    quantiles = torch.tensor([0.05, 0.95], device=values.device)
    low, high = torch.nanquantile(values, quantiles, dim=-1)
    spread = (high - low).clamp(min=1.0)
    return scale.lerp(spread.where(~spread.isnan(), scale), 0.01)


def policy_errors(
    q: Float[Tensor, "q batch horizon"],
    log_prob: Float[Tensor, "batch horizon"],
    value_scale: float | Float[Tensor, ""] | Float[Tensor, "batch 1"],
    entropy_coefficient: float,
) -> Float[Tensor, "batch horizon"]:
    """Negative of the scaled value plus an entropy bonus (TD-MPC2, eq. 4)."""
    return entropy_coefficient * log_prob - q.mean(0) / value_scale
