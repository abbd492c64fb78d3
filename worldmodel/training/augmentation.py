"""What a model is to take for the same: images that are changed at random before it learns from them."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.data import Batch
from worldmodel.training.processes import ALONE, Processes


def jitter_hues(
    batch: Batch, reach: float, generator: torch.Generator, processes: Processes = ALONE
) -> Batch:
    """The batch with each image's colours turned by its own random share of `reach` turns, either way.

    Colours that change from one image to the next foretell nothing: who predicts has no use for them.
    `batch` is this process's part of one; chance is drawn for all of it.
    """
    pixels = batch.observation["pixels"]
    drawn = torch.rand((batch.batch_size * processes.count, pixels.shape[1]), generator=generator)
    turns = reach * (processes.cut(drawn) - 0.5)
    turned = turn_hues(pixels, turns.to(pixels.device))
    return replace(batch, observation=batch.observation | {"pixels": turned})


def turn_hues(
    pixels: UInt8[Tensor, "*batch 3 height width"], turns: Float[Tensor, "*batch"]
) -> UInt8[Tensor, "*batch 3 height width"]:
    """Images whose colours are turned around the axis of greys; a third of a turn makes red green."""
    angle = 2 * math.pi * turns.flatten()[:, None, None]
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3).
    same = torch.eye(3, device=pixels.device)
    grey = torch.full((3, 3), 1 / 3, device=pixels.device)
    across = (same.roll(1, 0) - same.roll(-1, 0)) / math.sqrt(3)
    rotation = angle.cos() * same + (1 - angle.cos()) * grey + angle.sin() * across
    colours = pixels.reshape(-1, 3, pixels.shape[-2] * pixels.shape[-1]).float()
    return (rotation @ colours).round_().clamp_(0, 255).to(torch.uint8).reshape(pixels.shape)
