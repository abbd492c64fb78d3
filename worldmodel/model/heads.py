"""Read-outs of a latent: rewards and values as discrete regression, continuation as a probability."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): linear near zero, logarithmic far away (DreamerV3, equation 1)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class DiscreteRegression(nn.Module):
    """A scalar as a distribution over bins that lie evenly on the symlog scale (DreamerV3, section 3).

    The loss is a cross-entropy, so it does not depend on the scale of a task's rewards: one set of
    coefficients serves every task. The bins are far apart where numbers are large, but their mean is taken
    between the numbers themselves: where a target is 0 or 100 by turns, it is 50. (TD-MPC2 takes the mean of
    their symlogs, and reads 9; values then hardly spread from where rewards are rare.)
    """

    bins: Tensor

    def __init__(self, num_bins: int = 101, low: float = -10.0, high: float = 10.0) -> None:
        super().__init__()
        self.low, self.num_bins = low, num_bins
        self.width = (high - low) / (num_bins - 1)
        self.register_buffer("bins", symexp(torch.linspace(low, high, num_bins)), persistent=False)

    def two_hot(self, scalar: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch bin"]:
        """Spread each scalar on its two nearest bins."""
        # NaN makes no index; the loss that follows is NaN all the same, and the trainer stops at it.
        scalar = scalar.nan_to_num().clamp(self.bins[0], self.bins[-1])
        index = ((symlog(scalar) - self.low) / self.width).long().clamp(0, self.num_bins - 2)
        below, above = self.bins[index], self.bins[index + 1]
        # Rounding may have found the bin beside.
        upper_weight = ((scalar - below) / (above - below)).clamp(0, 1).unsqueeze(-1)
        index = index.unsqueeze(-1)
        encoded = torch.zeros(*scalar.shape, self.num_bins, dtype=scalar.dtype, device=scalar.device)
        encoded.scatter_(-1, index, 1 - upper_weight)
        return encoded.scatter_(-1, index + 1, upper_weight)

    def mean(self, logits: Float[Tensor, "*batch bin"]) -> Float[Tensor, "*batch"]:
        """The scalar that logits stand for."""
        # No matrix product: those may be narrow, and a narrow value is no value.
        return (logits.softmax(-1) * self.bins).sum(-1)

    def cross_entropy(
        self, logits: Float[Tensor, "*batch bin"], target: Float[Tensor, "*target_batch bin"]
    ) -> Float[Tensor, "*batch"]:
        """Cross-entropy with a `two_hot` target, whose shape may broadcast."""
        return -(target * logits.log_softmax(-1)).sum(-1)
