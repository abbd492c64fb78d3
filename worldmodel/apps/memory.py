"""What a model remembers of what it has seen, from one decision to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodel.model import LatentModel

Observation = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is remembered of B environments between two decisions: latents (B, L), and actions done (B, A)."""

    latent: Tensor
    action: Tensor

    @classmethod
    def stack(cls, pasts: Sequence["Past"]) -> "Past":
        """Several as one batch, one after the other."""
        return cls(
            latent=torch.cat([past.latent for past in pasts]),
            action=torch.cat([past.action for past in pasts]),
        )

    def rows(self, start: int, stop: int) -> "Past":
        """Rows `start` to `stop` (excluded)."""
        return Past(latent=self.latent[start:stop], action=self.action[start:stop])


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

    @property
    def past(self) -> Past | None:
        """What it remembers; None before something was both seen and done."""
        if self._latent is None or self._action is None:
            return None
        return Past(latent=self._latent, action=self._action)

    def resume(self, past: Past, is_new: np.ndarray) -> None:
        """Go on from a past, except where `is_new` (B,)."""
        self._latent, self._action, self._is_new = past.latent, past.action, is_new

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
