"""What a model remembers of what it has seen, from one decision to the next."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from worldmodel.model import LatentModel

Observation = Mapping[str, np.ndarray]


class Memory:
    """The latent of each of B environments, kept up with what is seen and done there."""

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self._latent: Tensor | None = None
        self._action: Tensor | None = None
        self._is_new: np.ndarray | None = None

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of the environments where `is_new` (B,), or of all."""
        if is_new is None:
            self._latent, self._is_new = None, None
        else:
            self._is_new = is_new if self._is_new is None else self._is_new | is_new

    @torch.no_grad()
    def see(self, observation: dict[str, Tensor]) -> Tensor:
        """Latents (B, L) of what is observed now."""
        embedding = self._model.embed(observation)
        fresh = self._model.layout.start(embedding)
        is_new, self._is_new = self._is_new, None
        if self._latent is None or self._action is None or len(self._latent) != len(fresh):
            self._latent = fresh
        else:
            self._latent = self._model.layout.advance(self._latent, self._action, embedding)
            if is_new is not None:
                rows = torch.from_numpy(is_new).to(fresh.device)[:, None]
                self._latent = torch.where(rows, fresh, self._latent)
        self._action = None
        return self._latent

    def note(self, action: np.ndarray) -> None:
        """Be told what is done (B, A) where it has seen last."""
        if self._latent is not None:
            self._action = torch.from_numpy(np.asarray(action, np.float32)).to(self._latent)


def to_tensors(observation: Observation, device: torch.device) -> dict[str, Tensor]:
    """Observations as tensors."""
    return {key: torch.from_numpy(np.asarray(value)).to(device) for key, value in observation.items()}
