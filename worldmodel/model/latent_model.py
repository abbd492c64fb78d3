"""A model without rewards: encodes observations, and predicts the latents that follow actions."""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.dynamics import EnsembleDynamics, RecurrentDynamics, SequenceDynamics
from worldmodel.model.encoder import ImageEncoder, JointEncoder, StateEncoder, latent_normalization
from worldmodel.model.layers import mlp
from worldmodel.model.size import WorldModelSize
from worldmodel.model.task_encoder import TaskEncoder

_CHUNK = 256  # of an episode's observations are embedded at once
_TRANSFORMER_DEPTH, _TRANSFORMER_HEADS = 3, 4


class LatentModel(nn.Module):
    """A joint-embedding predictive model: predicts what will be seen where it embeds it, not as it looks.

    Leading axes are free: every method takes (*batch, ...) and gives (*batch, ...). A latent holds the last
    `size.history` embeddings (see `Layout`). Of several tasks (`size.tasks`) observations say which it is,
    and embeddings end with its code (see `TaskEncoder`).

    Source: LeCun 2022, "A Path Towards Autonomous Machine Intelligence", section 4.4.
    """

    encoder: StateEncoder | ImageEncoder | JointEncoder | TaskEncoder

    def __init__(self, size: WorldModelSize) -> None:
        super().__init__()
        self.size, self.layout = size, size.layout
        self.encoder = _make_encoder(size)
        self.dynamics = _make_dynamics(size)
        # Which action led from one embedding to the next: it keeps in view what actions change.
        self.inverse_head = (
            mlp(2 * size.latent_dim, (size.hidden_dim, size.hidden_dim), size.action_dim)
            if size.predicts_action or not size.predicts_return
            else None
        )

    def embed(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch embedding"]:
        """Embedding of one observation."""
        return self._full(self.encoder(observation))

    def encode(self, observation: dict[str, Tensor]) -> Float[Tensor, "*batch latent"]:
        """Latent of an observation before which nothing was seen."""
        return self.layout.start(self.embed(observation))

    def encode_along(
        self, observation: dict[str, Tensor], actions: Float[Tensor, "time_1 action"]
    ) -> Float[Tensor, "time latent"]:
        """The latent at each of an episode's observations; the first ones as at its start.

        Observations and actions may be elsewhere than the weights; the latents are where these are.
        """
        device = next(self.parameters()).device
        embeddings = [
            self.embed({key: rows[first : first + _CHUNK].to(device) for key, rows in observation.items()})
            for first in range(0, len(actions) + 1, _CHUNK)
        ]
        return self.layout.along(torch.cat(embeddings), actions.to(device))

    def predict(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch embedding"]:
        """Embedding of the observation after an action: the mean of `predictions`."""
        members = self.predictions(latent, action)
        return members[0] if len(members) == 1 else members.mean(0)

    def predictions(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "member *batch embedding"]:
        """What each predictor predicts."""
        predictor, norm = self.dynamics
        output = predictor(torch.cat([latent, action], dim=-1))
        members = output if isinstance(predictor, EnsembleDynamics) else output[None]
        return self._moved(latent, self._full(norm(members)))

    def step(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch latent"]:
        """Latent after an action."""
        return self.layout.advance(latent, action, self.predict(latent, action))

    def disagreement(
        self, latent: Float[Tensor, "*batch latent"], action: Float[Tensor, "*batch action"]
    ) -> Float[Tensor, "*batch"]:
        """How far apart the predictors are: std over them, root mean square over dimensions; 0 for one."""
        seen = self.predictions(latent, action)[..., : self.size.latent_dim]  # the task is known
        return seen.var(0, correction=0).mean(-1).sqrt()

    def num_parameters(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def config(self) -> dict[str, Any]:
        """What `WorldModelSize` needs to build this model again (plain JSON values)."""
        return asdict(self.size)

    def _moved(self, latent: Tensor, output: Tensor) -> Tensor:
        """A norm bounds what is predicted; without one, the change is predicted, which is small.

        The task stays what it is.
        """
        seen, dim = self.layout.current(latent), self.size.latent_dim
        moved = seen[..., :dim] + output if self.size.latent_norm == "none" else output
        if not self.size.tasks:
            return moved
        return torch.cat([moved, seen[..., dim:].expand(*moved.shape[:-1], -1)], dim=-1)

    def _full(self, output: Tensor) -> Tensor:
        """In the precision of the weights, whatever that of matrix products is."""
        return output.float()


def _make_norm(size: WorldModelSize) -> nn.Module:
    return latent_normalization(size.latent_norm, size.latent_dim, size.group_dim)


def _make_encoder(size: WorldModelSize) -> StateEncoder | ImageEncoder | JointEncoder | TaskEncoder:
    hidden_dims = (size.encoder_dim,) * size.num_encoder_layers

    def of_state(norm: nn.Module) -> StateEncoder:
        return StateEncoder(size.state_dim, hidden_dims, size.state_embedding_dim, norm, angles=size.angles)

    def of_images(norm: nn.Module) -> ImageEncoder:
        dim = size.latent_dim - size.state_embedding_dim
        return ImageEncoder(size.pixel_encoder, size.image_size, dim, norm)

    norm = _make_norm(size)
    if size.tasks:
        return TaskEncoder(size.tasks, size.task_dim, hidden_dims, size.latent_dim, norm)
    if len(size.observes) == 2:
        return JointEncoder(of_state(nn.Identity()), of_images(nn.Identity()), norm)
    return of_state(norm) if size.observes == ("state",) else of_images(norm)


def _make_dynamics(size: WorldModelSize) -> nn.Sequential:
    hidden, both = (size.hidden_dim, size.hidden_dim), size.layout.dim + size.action_dim
    predictor: nn.Module
    if size.predictor == "transformer":
        predictor = SequenceDynamics(
            size.layout, dim=size.hidden_dim, depth=_TRANSFORMER_DEPTH, num_heads=_TRANSFORMER_HEADS
        )
    elif size.predictor == "gru":
        predictor = RecurrentDynamics(size.layout, dim=size.hidden_dim)
    elif size.num_dynamics > 1:
        predictor = EnsembleDynamics(size.num_dynamics, both, hidden, size.latent_dim)
    else:
        predictor = mlp(both, hidden, size.latent_dim)
    return nn.Sequential(predictor, _make_norm(size))
