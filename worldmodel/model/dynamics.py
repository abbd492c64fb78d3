"""What follows a latent and an action: the embedding of the next observation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.layers import ensemble_mlp, mlp
from worldmodel.model.layout import Layout
from worldmodel.model.transformer import ModulatedTransformer


class SequenceDynamics(nn.Module):
    """A small transformer over the embeddings in a latent, each modulated by the action taken there."""

    def __init__(self, layout: Layout, *, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.layout = layout
        self.transformer = ModulatedTransformer(
            layout.embedding_dim,
            layout.action_dim,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            max_length=layout.history,
        )

    def forward(self, rows: Float[Tensor, "*batch both"]) -> Float[Tensor, "*batch embedding"]:
        """From latents and actions side by side."""
        flat = rows.reshape(-1, rows.shape[-1])
        predicted = self.transformer(*self.layout.steps(flat))
        return predicted[:, -1].reshape(*rows.shape[:-1], -1)


class RecurrentDynamics(nn.Module):
    """A recurrent network that reads the embeddings in a latent, oldest first, each with its action.

    Source: Cho et al. 2014, arXiv 1406.1078 (the gated recurrent unit).
    """

    def __init__(self, layout: Layout, *, dim: int) -> None:
        super().__init__()
        self.layout, self.dim = layout, dim
        self.cell = nn.GRUCell(layout.embedding_dim + layout.action_dim, dim)
        self.out = mlp(dim, (dim,), layout.embedding_dim)

    def forward(self, rows: Float[Tensor, "*batch both"]) -> Float[Tensor, "*batch embedding"]:
        """From latents and actions side by side."""
        flat = rows.reshape(-1, rows.shape[-1])
        embeddings, actions = self.layout.steps(flat)
        hidden = flat.new_zeros(len(flat), self.dim)
        for step in torch.cat([embeddings, actions], dim=-1).unbind(1):
            hidden = self.cell(step, hidden)
        return self.out(hidden).reshape(*rows.shape[:-1], -1)


class EnsembleDynamics(nn.Module):
    """Several predictors from different starts; where they have learned nothing, they disagree."""

    def __init__(self, num_members: int, in_dim: int, hidden_dims: tuple[int, ...], out_dim: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.layers = ensemble_mlp(num_members, in_dim, hidden_dims, out_dim)

    def forward(self, rows: Float[Tensor, "*batch both"]) -> Float[Tensor, "member *batch embedding"]:
        """What each predicts."""
        flat = rows.reshape(1, -1, rows.shape[-1]).expand(self.num_members, -1, -1)
        return self.layers(flat).reshape(self.num_members, *rows.shape[:-1], -1)
