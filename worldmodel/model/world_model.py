"""The world model: encodes observations, steps latents, predicts rewards and values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.errors import ConfigError
from worldmodel.model.encoder import StateEncoder, latent_normalization
from worldmodel.model.heads import DiscreteRegression
from worldmodel.model.layers import ensemble_mlp, mlp, zero_last_layer
from worldmodel.model.policy import Policy


@dataclass(frozen=True, kw_only=True)
class WorldModelSize:
    """Everything that fixes the shapes of a `WorldModel`; kept beside its weights.

    Errors: `ConfigError` for a combination that cannot be built.
    """

    state_dim: int
    action_dim: int
    latent_dim: int = 64
    hidden_dim: int = 256
    encoder_dim: int = 256
    num_encoder_layers: int = 1
    num_q: int = 2
    num_bins: int = 101
    latent_norm: str = "simnorm"
    group_dim: int = 8
    predicts_continuation: bool = False
    angles: Sequence[int] = ()  # entries of the state that are angles without limits

    def __post_init__(self) -> None:
        """Check what the layers would only complain about obscurely."""
        for name, value in asdict(self).items():
            if name.endswith("_dim") or name.startswith("num_"):
                least = 0 if name == "num_encoder_layers" else 3 if name == "num_bins" else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise ConfigError(f"model {name}={value!r}: must be a whole number of at least {least}")
        object.__setattr__(self, "angles", tuple(self.angles))  # JSON gives a list
        if sorted(set(self.angles) & set(range(self.state_dim))) != list(self.angles):
            raise ConfigError(
                f"model angles={list(self.angles)}: must be entries of a state of {self.state_dim}, rising"
            )
        if self.latent_norm not in ("simnorm", "layernorm"):
            raise ConfigError(f"model latent_norm={self.latent_norm!r}: must be simnorm or layernorm")
        if self.latent_norm == "simnorm" and self.latent_dim % self.group_dim:
            raise ConfigError(
                f"model latent_dim={self.latent_dim}: SimNorm needs a multiple of group_dim={self.group_dim}"
            )


class WorldModel(nn.Module):
    """Value-aware latent model of the TD-MPC2 family (Hansen et al. 2024, arXiv 2310.16828).

    Leading axes are free: every method takes (*batch, ...) and gives (*batch, ...).
    """

    def __init__(self, size: WorldModelSize) -> None:
        super().__init__()
        self.size = size
        hidden, both = (size.hidden_dim, size.hidden_dim), size.latent_dim + size.action_dim

        def norm() -> nn.Module:
            return latent_normalization(size.latent_norm, size.latent_dim, size.group_dim)

        self.encoder = StateEncoder(
            size.state_dim,
            (size.encoder_dim,) * size.num_encoder_layers,
            size.latent_dim,
            norm(),
            angles=size.angles,
        )
        self.dynamics = nn.Sequential(mlp(both, hidden, size.latent_dim), norm())
        self.scalar = DiscreteRegression(size.num_bins)
        self.reward_head = zero_last_layer(mlp(both, hidden, size.num_bins))
        self.q_heads = zero_last_layer(ensemble_mlp(size.num_q, both, hidden, size.num_bins))
        self.policy = Policy(size.latent_dim, hidden, size.action_dim)
        self.continuation_head = (
            mlp(size.latent_dim, (size.hidden_dim,), 1) if size.predicts_continuation else None
        )

    def encode(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch latent"]:
        """Latent of an observation."""
        return self._full(self.encoder(observation))

    def step(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch latent"]:
        """Latent after an action."""
        return self._full(self.dynamics(torch.cat([latent, action], dim=-1)))

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

    def num_parameters(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _full(self, output: Tensor) -> Tensor:
        """In the precision of the weights, whatever that of matrix products is."""
        return output.to(self.scalar.bins.dtype)

    def config(self) -> dict[str, Any]:
        """What `WorldModelSize` needs to build this model again (plain JSON values)."""
        return asdict(self.size)
