"""The world model with rewards: a latent model that also predicts rewards, values and a policy."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.heads import DiscreteRegression
from worldmodel.model.latent_model import LatentModel
from worldmodel.model.layers import ensemble_mlp, mlp, zero_last_layer
from worldmodel.model.policy import Policy
from worldmodel.model.size import WorldModelSize


class WorldModel(LatentModel):
    """Value-aware latent model of the TD-MPC2 family (Hansen et al. 2024, arXiv 2310.16828).

    Leading axes are free: every method takes (*batch, ...) and gives (*batch, ...).
    """

    def __init__(self, size: WorldModelSize) -> None:
        super().__init__(size)
        latent_dim = self.layout.dim
        hidden, both = (size.hidden_dim, size.hidden_dim), latent_dim + size.action_dim
        self.scalar = DiscreteRegression(size.num_bins)
        self.reward_head = zero_last_layer(mlp(both, hidden, size.num_bins))
        self.q_heads = zero_last_layer(ensemble_mlp(size.num_q, both, hidden, size.num_bins))
        # Of the newest embedding, which ends in the task's code, and this in its mask of actions.
        end = size.history * self.layout.embedding_dim
        mask = slice(end - size.action_dim, end) if size.tasks else None
        self.policy = Policy(latent_dim, hidden, size.action_dim, mask=mask)
        self.continuation_head = (
            mlp(latent_dim, (size.hidden_dim,), 1) if size.predicts_continuation else None
        )

    def reward(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch"]:
        """Reward expected for an action."""
        return self.scalar.mean(self.reward_logits(latent, action))

    def reward_logits(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch bin"]:
        """Reward as a distribution over bins."""
        return self._full(self.reward_head(torch.cat([latent, action], dim=-1)))

    def q_values(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, " num_q *batch"]:
        """Discounted return expected for an action and the policy after it, by each head."""
        return self.scalar.mean(self.q_logits(latent, action))

    def q_logits(
        self,
        latent: Float[Tensor, "*batch latent"],
        action: Float[Tensor, "*batch action"],
        heads: nn.Module | None = None,
    ) -> Float[Tensor, " num_q *batch bin"]:
        """Q as a distribution over bins; `heads` may be a copy of the model's own (a target network)."""
        rows = torch.cat([latent, action], dim=-1)
        flat = rows.reshape(1, -1, rows.shape[-1]).expand(self.size.num_q, -1, -1)
        logits = self._full((self.q_heads if heads is None else heads)(flat))
        return logits.reshape(self.size.num_q, *rows.shape[:-1], self.size.num_bins)

    def value(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
        """Discounted return expected under the policy: mean over the Q heads."""
        return self.q_values(latent, self.policy.best_action(latent)).mean(0)

    def continuation(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
        """Probability that the episode goes on in this latent (1 where no task can terminate)."""
        if self.continuation_head is None:
            return torch.ones_like(latent[..., 0])
        return self._full(self.continuation_head(latent)).squeeze(-1).sigmoid()
