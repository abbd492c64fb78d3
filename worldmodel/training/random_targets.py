"""What a network that never learns sees in images: embeddings shall tell it, so nothing small is left out."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.model import keypoints, scaled

_NUM_FILTERS, _NUM_MAPS = 32, 64
_PATCH, _STRIDE = 8, 4  # pixels
_SHARPNESS = 5.0  # of the softmax, for maps of std 1


class RandomTargets(nn.Module):
    """Where in an image each of some random features is, and a linear guess of it from embeddings.

    Embeddings that are only asked to be predictable and spread out may be of what moves a large part of the
    picture alone. Random features of what differs from the mean picture respond to all that is seen, and each
    of them counts alike.

    Sources: targets of a fixed random network: Burda et al. 2018 (arXiv 1810.12894); to learn embeddings:
    Chiu et al. 2022 (BEST-RQ, arXiv 2202.01855).
    """

    mean_image: Tensor
    map_std: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, _NUM_FILTERS, _PATCH, stride=_STRIDE, padding=(_PATCH - _STRIDE) // 2),
            nn.SiLU(),
            nn.Conv2d(_NUM_FILTERS, _NUM_MAPS, 1),
        ).requires_grad_(False)
        self.guess = nn.Linear(embedding_dim, 3 * _NUM_MAPS)
        self.register_buffer("mean_image", torch.zeros(3, image_size, image_size))
        self.register_buffer("map_std", torch.ones(_NUM_MAPS, 1, 1))
        self.register_buffer("mean", torch.zeros(3 * _NUM_MAPS))
        self.register_buffer("std", torch.ones(3 * _NUM_MAPS))

    @torch.no_grad()
    def fit(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> None:
        """Take the units of everything from these images."""
        images = scaled(pixels.flatten(0, -4))
        self.mean_image.copy_(images.mean(0))
        self.map_std.copy_(self.maps(images - self.mean_image).std((0, 2, 3))[:, None, None].clamp(min=1e-6))
        rows = self._places(pixels).flatten(0, -2)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp(min=1e-3))  # what hardly moves is not to count as much as the rest

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch feature"]:
        """What is seen, each feature with mean 0 and std 1 over the images of `fit`."""
        return (self._places(pixels) - self.mean) / self.std

    def errors(
        self,
        embeddings: Float[Tensor, "*member batch time embedding"],
        features: Float[Tensor, "batch time feature"],
    ) -> Float[Tensor, "*member batch time"]:
        """Squared errors of the guess, mean over the features: 1 where nothing is known."""
        return (self.guess(embeddings) - features).square().mean(-1)

    def _places(self, pixels: Tensor) -> Tensor:
        maps = self.maps(scaled(pixels.flatten(0, -4)) - self.mean_image) / self.map_std
        return keypoints(maps, _SHARPNESS).reshape(*pixels.shape[:-3], -1)
