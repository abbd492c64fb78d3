"""What a model holds of a recorded episode."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.data import Episode
from worldmodel.model import LatentModel


@torch.inference_mode()
def latents_of(model: LatentModel, episode: Episode) -> Float[Tensor, "time latent"]:
    """The latent at each of an episode's T + 1 observations; the first ones as at an episode's start."""
    # Copies: an episode's arrays are read-only, which tensors are not.
    seen = {key: torch.from_numpy(np.array(episode.observation[key])) for key in model.size.observes}
    return model.encode_along(seen, torch.from_numpy(np.array(episode.action)))
