"""How the last observations and actions lie in one latent, so that a latent is all that a model knows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """W embeddings (oldest first), then the W - 1 actions between them, side by side; W = 1: the embedding.

    Velocities are not seen in one image; they are in several.
    """

    embedding_dim: int
    action_dim: int
    history: int

    @property
    def dim(self) -> int:
        """Size of a latent."""
        return self.history * self.embedding_dim + (self.history - 1) * self.action_dim

    def embeddings(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch time embedding"]:
        """The embeddings in a latent."""
        return latent[..., : self._split].unflatten(-1, (self.history, self.embedding_dim))

    def actions(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch time action"]:
        """The actions in a latent, one fewer."""
        return latent[..., self._split :].unflatten(-1, (self.history - 1, self.action_dim))

    def current(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch embedding"]:
        """The newest embedding in a latent."""
        return latent[..., self._split - self.embedding_dim : self._split]

    def steps(
        self, rows: Float[Tensor, "*batch both"]
    ) -> tuple[Float[Tensor, "*batch time embedding"], Float[Tensor, "*batch time action"]]:
        """The embeddings, and the action taken at each, of a latent and the next action side by side."""
        latent, action = rows[..., : self.dim], rows[..., self.dim :]
        return self.embeddings(latent), torch.cat([self.actions(latent), action[..., None, :]], dim=-2)

    def start(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch latent"]:
        """The latent where nothing came before: as if all had been at rest."""
        if self.history == 1:
            return embedding
        rest = embedding.new_zeros(*embedding.shape[:-1], (self.history - 1) * self.action_dim)
        return torch.cat([embedding] * self.history + [rest], dim=-1)

    def advance(
        self,
        latent: Float[Tensor, "*batch latent"],
        action: Float[Tensor, "*batch action"],
        embedding: Float[Tensor, "*batch embedding"],
    ) -> Float[Tensor, "*batch latent"]:
        """The latent one step on, after `action`, where `embedding` is seen (or imagined)."""
        if self.history == 1:
            return embedding
        kept = latent[..., self.embedding_dim : self._split]
        acted = latent[..., self._split + self.action_dim :]
        return torch.cat([kept, embedding, acted, action], dim=-1)

    def over(
        self, embeddings: Float[Tensor, "batch time embedding"], actions: Float[Tensor, "batch time_1 action"]
    ) -> Float[Tensor, "batch later latent"]:
        """The latents at each time that has W - 1 times before it, of T embeddings and T - 1 actions."""
        num_times = embeddings.shape[1] - self.history + 1
        parts = [embeddings[:, offset : offset + num_times] for offset in range(self.history)]
        parts += [actions[:, offset : offset + num_times] for offset in range(self.history - 1)]
        return torch.cat(parts, dim=-1)

    def along(
        self, embeddings: Float[Tensor, "time embedding"], actions: Float[Tensor, "time_1 action"]
    ) -> Float[Tensor, "time latent"]:
        """The latents at each time of an episode, from its start on."""
        before = embeddings[:1].expand(self.history - 1, -1)
        rest = actions.new_zeros(self.history - 1, self.action_dim)
        return self.over(torch.cat([before, embeddings])[None], torch.cat([rest, actions])[None])[0]

    @property
    def _split(self) -> int:
        return self.history * self.embedding_dim
