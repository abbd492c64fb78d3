"""Latent -> action: a Gaussian squashed into [-1, 1]."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.layers import mlp

LOG_STD_LOW, LOG_STD_HIGH = -10.0, 2.0  # TD-MPC2, table 8


class Policy(nn.Module):
    """The policy prior: proposes candidates to the planner and acts in the terminal value."""

    def __init__(self, latent_dim: int, hidden_dims: tuple[int, ...], action_dim: int) -> None:
        super().__init__()
        self.layers = mlp(latent_dim, hidden_dims, 2 * action_dim)

    def forward(
        self, latent: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch action"]]:
        """Mean and log std of the Gaussian before squashing."""
        mean, log_std = self.layers(latent).to(latent.dtype).chunk(2, dim=-1)
        log_std = LOG_STD_LOW + 0.5 * (LOG_STD_HIGH - LOG_STD_LOW) * (log_std.tanh() + 1)
        return mean, log_std

    def best_action(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch action"]:
        """The squashed mean: deterministic."""
        return self(latent)[0].tanh()

    def sample(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch action"]
    ) -> tuple[Float[Tensor, "*batch action"], Float[Tensor, "*batch"]]:
        """Action and its log probability, for standard normal `noise` (reparametrised)."""
        mean, log_std = self(latent)
        raw = mean + noise * log_std.exp()
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        # log(1 - tanh(x)^2), written so that it stays finite (SAC, appendix C).
        log_prob = log_prob - (2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(-1)
        return torch.tanh(raw), log_prob
