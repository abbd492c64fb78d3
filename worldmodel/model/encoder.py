"""Observation -> latent."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.layers import SimNorm, mlp
from worldmodel.model.pixels import PixelEncoder


class ObservationNormalizer(nn.Module):
    """Running mean and std of every observation dimension (Chan et al. 1979, parallel update).

    The statistics are buffers: they travel with the weights.
    """

    running_mean: Tensor
    mean: Tensor
    std: Tensor
    count: Tensor
    sum_of_squares: Tensor

    def __init__(self, observation_dim: int, *, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        # float64: a sum over millions of steps loses digits in float32.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(observation_dim, dtype=torch.float64))
        self.register_buffer("sum_of_squares", torch.zeros(observation_dim, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("std", torch.ones(observation_dim))

    @torch.no_grad()
    def update(self, observations: Float[Tensor, "step observation"]) -> None:
        """Take further observations into the statistics."""
        new = observations.double()
        new_count, new_mean = len(new), new.mean(0)
        total = self.count + new_count
        delta = new_mean - self.running_mean
        self.sum_of_squares += (new - new_mean).square().sum(0)
        self.sum_of_squares += delta.square() * self.count * new_count / total
        self.running_mean += delta * new_count / total
        self.count.copy_(total)
        self.mean.copy_(self.running_mean)
        std = (self.sum_of_squares / total).sqrt()
        # A dimension that never moved carries no information; dividing by its std would only amplify noise.
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(
        self, observation: Float[Tensor, "*batch observation"]
    ) -> Float[Tensor, "*batch observation"]:
        """Shift and scale, then clip to +/- `limit`."""
        return ((observation - self.mean) / self.std).clamp(-self.limit, self.limit)


class StateFeatures(nn.Module):
    """What is seen of a state: its entries, then sines and cosines of the angles.

    `angles` are entries that wind up without limits: so a joint that has turned once around is where it was.
    """

    angles: Tensor
    others: Tensor

    def __init__(self, state_dim: int, angles: Sequence[int] = ()) -> None:
        super().__init__()
        others = [index for index in range(state_dim) if index not in angles]
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.long), persistent=False)
        self.register_buffer("others", torch.tensor(others, dtype=torch.long), persistent=False)
        self.dim = len(others) + 2 * len(angles)

    def forward(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch feature"]:
        """The features of states."""
        if not len(self.angles):
            return state
        angles = state[..., self.angles]
        return torch.cat([state[..., self.others], angles.sin(), angles.cos()], dim=-1)


class StateEncoder(nn.Module):
    """Normalise the state's features, then an MLP whose output is normalised by SimNorm (or LayerNorm alone).

    `angles`: see `StateFeatures`.
    """

    def __init__(
        self,
        state_dim: int,
        hidden_dims: tuple[int, ...],
        latent_dim: int,
        latent_norm: nn.Module,
        *,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.features = StateFeatures(state_dim, angles)
        self.normalizer = ObservationNormalizer(self.features.dim)
        self.layers = mlp(self.features.dim, hidden_dims, latent_dim)
        self.latent_norm = latent_norm

    def forward(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch latent"]:
        """Encode the observation's `state` (*batch, state)."""
        return self.latent_norm(self.layers(self.normalizer(self.features(observation["state"]))))

    def update_statistics(self, observation: dict[str, Tensor]) -> None:
        """Take the states (step, state) of further observations into the normaliser."""
        self.normalizer.update(self.features(observation["state"]))

    def share_statistics(self, other: "StateEncoder") -> None:
        """Normalise as another encoder does, now and later."""
        self.normalizer = other.normalizer


class ImageEncoder(nn.Module):
    """Embed images; `latent_norm` as in `StateEncoder`."""

    def __init__(self, kind: str, image_size: int, latent_dim: int, latent_norm: nn.Module) -> None:
        super().__init__()
        self.pixels = PixelEncoder(kind, image_size, latent_dim)
        self.latent_norm = latent_norm

    def forward(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch latent"]:
        """Encode the observation's `pixels` (*batch, 3, H, W)."""
        return self.latent_norm(self.pixels(observation["pixels"]))

    def update_statistics(self, observation: dict[str, Tensor]) -> None:
        """Images need none."""

    def share_statistics(self, other: "ImageEncoder") -> None:
        """Images need none."""


class JointEncoder(nn.Module):
    """State and images, each embedded, side by side: a goal can ask more of the one than of the other."""

    def __init__(self, state: StateEncoder, image: ImageEncoder, latent_norm: nn.Module) -> None:
        super().__init__()
        self.state, self.image = state, image
        self.latent_norm = latent_norm

    def forward(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch latent"]:
        """Encode the observation's `state` and `pixels`."""
        both = torch.cat([self.state(observation), self.image(observation)], dim=-1)
        return self.latent_norm(both)

    def update_statistics(self, observation: dict[str, Tensor]) -> None:
        """Take the states of further observations into the normaliser."""
        self.state.update_statistics(observation)

    def share_statistics(self, other: "JointEncoder") -> None:
        """Normalise as another encoder does, now and later."""
        self.state.share_statistics(other.state)


def latent_normalization(kind: str, latent_dim: int, group_dim: int) -> nn.Module:
    """LayerNorm, followed by SimNorm where `kind` is "simnorm"; nothing where it is "none"."""
    if kind == "none":
        return nn.Identity()
    layer_norm = nn.LayerNorm(latent_dim)
    return nn.Sequential(layer_norm, SimNorm(group_dim)) if kind == "simnorm" else layer_norm
