"""Embedding -> picture, to see what a model imagines; no model learns from it."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.model.layers import mlp

_CELL = 8  # pixels along each side that the first layer paints as one: three doublings
_HIDDEN_DIM = 256
_CHANNELS = (64, 48, 24)


class ImageDecoder(nn.Module):
    """Paints images of one size: an MLP places cells of 8 x 8 pixels, transposed convolutions sharpen them.

    What it paints is a difference from the mean image, since little of a picture ever moves; its statistics
    are buffers, set by `set_statistics`, and travel with the weights.
    """

    mean: Tensor
    std: Tensor
    mean_image: Tensor

    def __init__(self, embedding_dim: int, image_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("std", torch.ones(embedding_dim))
        self.register_buffer("mean_image", torch.zeros(3, image_size, image_size))
        size, first = image_size // _CELL, _CHANNELS[0]
        layers: list[nn.Module] = [
            mlp(embedding_dim, (_HIDDEN_DIM,), first * size * size),
            nn.Unflatten(-1, (first, size, size)),
        ]
        for channels, fewer in zip(_CHANNELS, [*_CHANNELS[1:], 3], strict=True):
            # 4 is a multiple of the stride: so all pixels are painted as often, and no grid is seen.
            layers += [nn.SiLU(), nn.ConvTranspose2d(channels, fewer, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    @torch.no_grad()
    def set_statistics(
        self, embeddings: Float[Tensor, "image embedding"], images: UInt8[Tensor, "image 3 height width"]
    ) -> None:
        """Take mean and std of the embeddings, and the mean image."""
        self.mean.copy_(embeddings.mean(0))
        self.std.copy_(embeddings.std(0, correction=0).clamp(min=1e-6))
        self.mean_image.copy_(images.sum(0, dtype=torch.int64) / (255 * len(images)))

    def forward(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch 3 height width"]:
        """Pixels, 0 for black and 1 for white, and a little beyond."""
        flat = ((embedding - self.mean) / self.std).reshape(-1, embedding.shape[-1])
        images = self.mean_image + self.layers(flat)
        return images.reshape(*embedding.shape[:-1], *images.shape[1:])

    @torch.inference_mode()
    def paint(self, embedding: Float[Tensor, "*batch embedding"]) -> UInt8[Tensor, "*batch 3 height width"]:
        """Images as an environment gives them."""
        return (self(embedding).clamp(0, 1) * 255).round().to(torch.uint8)
