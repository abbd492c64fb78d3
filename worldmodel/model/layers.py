"""Building blocks shared by every part of the world model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SimNorm(nn.Module):
    """Softmax inside groups of latent dimensions (simplicial normalisation; TD-MPC2, section 3.1).

    Bounds the latent, so that a long imagined future cannot blow up.
    """

    def __init__(self, group_dim: int) -> None:
        super().__init__()
        self.group_dim = group_dim

    def forward(self, x: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Normalise the last axis; its size is a multiple of `group_dim`."""
        return x.unflatten(-1, (-1, self.group_dim)).softmax(-1).flatten(-2)


class EnsembleLinear(nn.Module):
    """`num_members` independent linear layers as one batched matrix product."""

    def __init__(self, num_members: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, out_dim))

    def forward(self, x: Float[Tensor, "member batch in"]) -> Float[Tensor, "member batch out"]:
        """Apply each member to its own rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """LayerNorm whose scale and shift belong to each member of an ensemble."""

    def __init__(self, num_members: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_members, 1, dim))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, dim))

    def forward(self, x: Float[Tensor, "member batch dim"]) -> Float[Tensor, "member batch dim"]:
        """Normalise the last axis."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


def mlp(in_dim: int, hidden_dims: Sequence[int], out_dim: int) -> nn.Sequential:
    """Linear -> LayerNorm -> SiLU for each hidden layer, then a bare linear layer.

    SiLU instead of TD-MPC2's Mish: on a CPU it costs a sixth.
    """
    layers: list[nn.Module] = []
    for hidden_dim in hidden_dims:
        layers += [nn.Linear(in_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.SiLU()]
        in_dim = hidden_dim
    return initialize(nn.Sequential(*layers, nn.Linear(in_dim, out_dim)))


def ensemble_mlp(num_members: int, in_dim: int, hidden_dims: Sequence[int], out_dim: int) -> nn.Sequential:
    """`num_members` independent `mlp`s; maps (member, batch, in) to (member, batch, out)."""
    layers: list[nn.Module] = []
    for hidden_dim in hidden_dims:
        layers += [
            EnsembleLinear(num_members, in_dim, hidden_dim),
            EnsembleLayerNorm(num_members, hidden_dim),
            nn.SiLU(),
        ]
        in_dim = hidden_dim
    return initialize(nn.Sequential(*layers, EnsembleLinear(num_members, in_dim, out_dim)))


def initialize(layers: nn.Sequential) -> nn.Sequential:
    """Truncated normal weights (std 0.02), zero biases: TD-MPC2's initialisation."""
    for layer in layers:
        if isinstance(layer, nn.Linear | EnsembleLinear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return layers


def zero_last_layer(layers: nn.Sequential) -> nn.Sequential:
    """Start the output at exactly zero, so that an untrained head predicts nothing."""
    last = layers[-1]
    assert isinstance(last, nn.Linear | EnsembleLinear)
    nn.init.zeros_(last.weight)
    return layers
