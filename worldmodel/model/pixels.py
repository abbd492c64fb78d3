"""Images -> embedding: a small convolutional network, keypoints, or a small vision transformer."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.model.transformer import SelfAttention

_FIRST_CHANNELS = 32
_PATCH = 4  # pixels, of the convolutional network's first layer
_LAST_GRID = 4  # it halves the picture until so many places are left along each side
_NUM_KEYPOINTS = 64
_VIT_PATCH, _VIT_DIM, _VIT_DEPTH, _VIT_HEADS = 8, 96, 3, 3


class PixelEncoder(nn.Module):
    """Embeds images of one size; the position of what is seen is kept, since control depends on it."""

    def __init__(self, kind: str, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        make = {"cnn": _cnn, "keypoints": Keypoints, "vit": ViT}[kind]
        self.layers = make(image_size, embedding_dim)

    def forward(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch embedding"]:
        """Embed images (any leading axes)."""
        flat = scaled(pixels.reshape(-1, *pixels.shape[-3:]))
        return self.layers(flat).reshape(*pixels.shape[:-3], -1)


def scaled(
    pixels: UInt8[Tensor, "*batch 3 height width"],
) -> Float[Tensor, "*batch 3 height width"]:
    """Pixels as numbers from -0.5 to 0.5."""
    return pixels.float().div_(255.0).sub_(0.5)


def _cnn(image_size: int, embedding_dim: int) -> nn.Sequential:
    """Patches of 4 x 4 pixels, then 3 x 3 convolutions that halve the picture; no pooling over places.

    The first layer sees each pixel once: on a CPU the early, large layers would be most of the cost.
    """
    channels, size = _FIRST_CHANNELS, image_size // _PATCH
    layers: list[nn.Module] = [nn.Conv2d(3, channels, _PATCH, stride=_PATCH), nn.SiLU()]
    while size > _LAST_GRID:
        wider = min(2 * channels, 96)
        layers += [
            nn.Conv2d(channels, wider, 3, stride=2, padding=1),
            nn.GroupNorm(1, wider),
            nn.SiLU(),
        ]
        channels, size = wider, (size + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, embedding_dim))


class Keypoints(nn.Module):
    """Where in the picture each of some features is: small things, whose place is all that counts.

    Each of K maps is normalised over the picture; what goes on are the means of its x and y, and how clearly
    it was seen. An embedding is linear in these, so that half a pixel's motion of one thing is not lost in
    what another does. Source: Levine, Finn et al. 2016 (arXiv 1504.00702), spatial softmax.
    """

    def __init__(self, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, _FIRST_CHANNELS, 2 * _PATCH, stride=_PATCH, padding=_PATCH // 2),
            nn.SiLU(),
            nn.Conv2d(_FIRST_CHANNELS, _FIRST_CHANNELS, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_FIRST_CHANNELS, _NUM_KEYPOINTS, 1),
        )
        self.sharpness = nn.Parameter(torch.full((_NUM_KEYPOINTS, 1), 10.0))
        self.head = nn.Linear(3 * _NUM_KEYPOINTS, embedding_dim)
        along = torch.linspace(-1.0, 1.0, image_size // _PATCH)
        y, x = torch.meshgrid(along, along, indexing="ij")
        self.register_buffer("places", torch.stack([x.flatten(), y.flatten()], dim=-1), persistent=False)

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image embedding"]:
        """Embed images."""
        maps = self.maps(images).flatten(2)
        weights = (self.sharpness * maps).softmax(-1)
        places = weights @ self.places
        strength = (weights * maps).sum(-1)
        return self.head(torch.cat([places.flatten(1), strength], dim=-1))


class ViTBlock(nn.Module):
    """One round of attention and one of thought."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_VIT_DIM)
        self.attention = SelfAttention(_VIT_DIM, _VIT_HEADS)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(_VIT_DIM),
            nn.Linear(_VIT_DIM, 4 * _VIT_DIM),
            nn.GELU(),
            nn.Linear(4 * _VIT_DIM, _VIT_DIM),
        )

    def forward(self, tokens: Float[Tensor, "image token dim"]) -> Float[Tensor, "image token dim"]:
        """The tokens, each a little further."""
        tokens = tokens + self.attention(self.norm(tokens))
        return tokens + self.feed_forward(tokens)


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929); what it says is its tokens' mean."""

    def __init__(self, image_size: int, embedding_dim: int) -> None:
        super().__init__()
        num_tokens = (image_size // _VIT_PATCH) ** 2
        self.patches = nn.Conv2d(3, _VIT_DIM, _VIT_PATCH, stride=_VIT_PATCH)
        self.place = nn.Parameter(0.02 * torch.randn(num_tokens, _VIT_DIM))
        self.blocks = nn.Sequential(*(ViTBlock() for _ in range(_VIT_DEPTH)))
        self.head = nn.Linear(_VIT_DIM, embedding_dim)

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image embedding"]:
        """Embed images."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.place
        return self.head(self.blocks(tokens).mean(1))
