"""What a model expects to see, one step ahead and several, against what is then seen."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.model import LatentModel

AHEAD = 3  # steps, of the model's own predictions: as many as it is trained over (`training.horizon`)


class Expectation:
    """Follows one robot, and foresees what it will observe, one step ahead and up to `ahead`.

    Of what is seen next a model is not sure: a bounce can be as much of a surprise as a ball that stops in
    the air. Foreseen over several steps, errors of what goes on being wrong add up.
    """

    def __init__(self, model: LatentModel, ahead: int = AHEAD) -> None:
        self._model, self._ahead = model, ahead
        self._foreseen: Tensor | None = None  # (n, L), n <= ahead: the latent now, foreseen 1 to n steps ago

    def reset(self) -> None:
        """A new episode."""
        self._foreseen = None

    @torch.no_grad()
    def note(self, latent: Float[Tensor, "1 latent"], action: Float[Tensor, "1 action"]) -> None:
        """Be told where the robot is, and what is done there."""
        known = latent if self._foreseen is None else torch.cat([latent, self._foreseen])[: self._ahead]
        self._foreseen = self._model.step(known, action.expand(len(known), -1))

    def errors(self, embedding: Float[Tensor, "1 embedding"]) -> Float[np.ndarray, "2 embedding"]:
        """By what is seen now: of what was foreseen a step ago, and `ahead` steps ago or at the start."""
        assert self._foreseen is not None, "nothing was done yet"
        errors = self._model.layout.current(self._foreseen[[0, -1]]) - embedding
        return errors.float().cpu().numpy()
