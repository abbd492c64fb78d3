"""What a network that never learns sees in images: embeddings shall tell it, so nothing small is left out."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.model import scaled

# In pixels; patches so small that most see one thing alone: linear in the features, places of things 5 pixels
# wide then have an R2 of 0.99, and of 0.97 in patches of 8, 4 apart.
_NUM_FILTERS, _PATCH, _STRIDE = 32, 4, 2
_NUM_FEATURES = 6 * _NUM_FILTERS
_AT_ONCE = 64  # images whose responses fit a CPU's cache
_FAINT = 0.01  # of the mean strength: a response so faint is nowhere


class RandomTargets(nn.Module):
    """Where in an image random filters respond, and how strongly; and a linear guess of it from embeddings.

    Embeddings that are only asked to be predictable and spread out may be of what moves a large part of the
    picture alone. Filters that see what differs from the mean picture respond to all that moves, each to some
    colours and edges more than to others; the centres of what they see move with it, however small it is.

    Sources: targets of a fixed random network: Burda et al. 2018 (arXiv 1810.12894); to learn embeddings:
    Chiu et al. 2022 (BEST-RQ, arXiv 2202.01855).
    """

    places: Tensor
    mean_image: Tensor
    mean_strength: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(
            3, _NUM_FILTERS, _PATCH, stride=_STRIDE, padding=(_PATCH - _STRIDE) // 2, bias=False
        ).requires_grad_(False)
        along = torch.linspace(-1.0, 1.0, image_size // _STRIDE)
        y, x = torch.meshgrid(along, along, indexing="ij")
        places = torch.stack([torch.ones_like(x), x, y], dim=-1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)
        self.guess = nn.Linear(embedding_dim, _NUM_FEATURES)
        self.register_buffer("mean_image", torch.zeros(3, image_size, image_size))
        self.register_buffer("mean_strength", torch.zeros(2 * _NUM_FILTERS))
        self.register_buffer("mean", torch.zeros(_NUM_FEATURES))
        self.register_buffer("std", torch.ones(_NUM_FEATURES))

    @torch.no_grad()
    def fit(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> None:
        """Take from these images what is ordinary, and the unit of each feature."""
        self.mean_image.copy_(scaled(pixels.flatten(0, -4)).mean(0))
        sums = self._sums(pixels)
        self.mean_strength.copy_(sums[..., 0].mean(0))
        rows = self._seen(sums)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp(min=1e-3))  # what hardly moves is not to count as much as the rest

    @torch.no_grad()
    def features(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch feature"]:
        """What is seen, each feature with mean 0 and std 1 over the images of `fit`."""
        rows = self._seen(self._sums(pixels))
        return ((rows - self.mean) / self.std).reshape(*pixels.shape[:-3], -1)

    def errors(
        self,
        embeddings: Float[Tensor, "*member batch time embedding"],
        features: Float[Tensor, "batch time feature"],
    ) -> Float[Tensor, "*member batch time"]:
        """Squared errors of the guess, mean over the features: 1 where nothing is known."""
        return (self.guess(embeddings) - features).square().mean(-1)

    def _seen(self, sums: Tensor) -> Tensor:
        """How strong the response of each filter and of its negative is, and the x and y of its centre."""
        strength = sums[..., 0]
        clear = strength + (_FAINT * self.mean_strength).clamp(min=1e-6)
        return torch.cat([strength, sums[..., 1] / clear, sums[..., 2] / clear], dim=-1)

    def _sums(self, pixels: Tensor) -> Tensor:
        """Of each filter and its negative, over all places: of its responses, and of these times x and y."""
        sums = []
        for images in pixels.flatten(0, -4).split(_AT_ONCE):
            found = self.filters(scaled(images) - self.mean_image).flatten(2)
            both = found @ self.places
            positive = found.relu_() @ self.places
            sums.append(torch.cat([positive, positive - both], dim=1))
        return torch.cat(sums)
