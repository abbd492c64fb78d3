"""Noise for candidates, drawn before planning starts."""

import torch
from jaxtyping import Float
from torch import Tensor


def white_noise(
    shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "..."]:
    """Draw independent standard normal numbers.

    Drawn on the generator's own device and then moved, so that a CPU generator gives the same plan on every
    device. Without a generator, torch's default one for `device` is used.
    """
    drawn_on = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=drawn_on, dtype=dtype).to(device)
