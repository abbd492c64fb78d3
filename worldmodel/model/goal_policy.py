"""Goal-conditioned policy: what to do here to come there."""

from jaxtyping import Float
from torch import Tensor, cat, nn

from worldmodel.model.latent_model import LatentModel
from worldmodel.model.layers import mlp, zero_last_layer


class GoalPolicy(nn.Module):
    """The first action of a way to a goal, guessed at once, where a planner would search.

    - `model`: embeds what is seen and the goal; trained along or frozen, as its trainer decides.
    """

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model, size = model, model.size
        hidden_dims = (size.hidden_dim, size.hidden_dim)
        self.head = zero_last_layer(mlp(model.layout.dim + size.latent_dim, hidden_dims, size.action_dim))

    def forward(
        self, latent: Float[Tensor, "*batch latent"], goal: Float[Tensor, "*batch embedding"]
    ) -> Float[Tensor, "*batch action"]:
        """Actions in [-1, 1]."""
        return self.head(cat([latent, goal], dim=-1)).tanh()
