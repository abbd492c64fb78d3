"""Latent -> action: a Gaussian squashed into [-1, 1]."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.layers import mlp

LOG_STD_LOW, LOG_STD_HIGH = -10.0, 2.0  # TD-MPC2, table 8


class Policy(nn.Module):
    """The policy prior: proposes candidates to the planner and acts in the terminal value.

    `mask`: where latents say which entries of an action their task has (1) or not (0), if tasks differ in
    that. The others are always 0, and are no part of what is probable.
    """

    def __init__(
        self, latent_dim: int, hidden_dims: tuple[int, ...], action_dim: int, *, mask: slice | None = None
    ) -> None:
        super().__init__()
        self.layers = mlp(latent_dim, hidden_dims, 2 * action_dim)
        self._mask = mask

    def forward(
        self, latent: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch action"]]:
        """Mean and log std of the Gaussian before squashing."""
        mean, log_std = self.layers(latent).to(latent.dtype).chunk(2, dim=-1)
        log_std = LOG_STD_LOW + 0.5 * (LOG_STD_HIGH - LOG_STD_LOW) * (log_std.tanh() + 1)
        return mean, log_std

    def best_action(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch action"]:
        """The squashed mean: deterministic."""
        return self._masked(self(latent)[0], latent).tanh()

    def sample(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch action"]
    ) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch"]]:
        """Action and its log probability, for standard normal `noise` (reparametrised)."""
        mean, log_std = self(latent)
        raw = self._masked(mean + noise * log_std.exp(), latent)
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = self._masked(log_prob, latent).sum(-1)
        # log(1 - tanh(x)^2), written so that it stays finite (SAC, appendix C); it is 0 for an entry of 0.
        log_prob = log_prob - (2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(-1)
        return torch.tanh(raw), log_prob

    def _masked(self, entries: Tensor, latent: Tensor) -> Tensor:
        """0 where the task has no such entry of an action."""
        return entries if self._mask is None else entries * latent[..., self._mask]
