"""Noise for candidates: drawn white before planning starts, then shaped in time, noise = L @ white.

A noise gives the matrix L (P, P): the Cholesky factor of the covariance between the parameters of a sequence,
with variance 1 for each. The algorithm that scales it by its std does not know.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError


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


class Noise(ABC):
    """Gives the matrix that turns white noise into correlated noise."""

    @abstractmethod
    def matrix(self, size: int) -> Float[Tensor, "size size"]:
        """L in float64, lower triangular, rows of length 1. Errors: `PlannerError` for a wrong setting."""


@final
@dataclass(frozen=True)
class White(Noise):
    """Every parameter on its own (L = I)."""

    def matrix(self, size: int) -> Float[Tensor, "size size"]:
        """The identity."""
        return torch.eye(size, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Colored(Noise):
    """Power 1 / frequency^`exponent`: 0 is white, 1 pink, 2 red; higher lingers longer.

    Source: Pinneri et al. 2020 (iCEM), arXiv 2008.06389, section 3.1; spectrum: Timmer and Koenig 1995. The
    paper's exponents: 0.25 cheetah, 2 humanoid, 2.5 to 3.5 manipulation. Its noise repeats after the horizon,
    so that the last step resembles the first; ours has twice that period.
    """

    exponent: float = 1.0

    def matrix(self, size: int) -> Float[Tensor, "size size"]:
        """Factor of the autocovariance of that spectrum."""
        if not 0 <= self.exponent <= 6:
            raise PlannerError(f"exponent is {self.exponent}; it must lie between 0 (white) and 6.")
        return _factor(size, lambda frequencies: frequencies ** (-self.exponent))


@final
@dataclass(frozen=True)
class LowPass(Noise):
    """White noise through a second-order Butterworth filter.

    Source: Vlahov et al. 2024, arXiv 2404.03094; Kicki 2025, arXiv 2503.11717.
    `cutoff`: frequency of half power, in cycles per step; 0.5 is the fastest that steps can show.
    """

    cutoff: float = 0.1

    def matrix(self, size: int) -> Float[Tensor, "size size"]:
        """Factor of the filtered noise's autocovariance."""
        if not 0.005 <= self.cutoff <= 0.5:
            raise PlannerError(f"cutoff is {self.cutoff}; it must lie between 0.005 and 0.5 cycles per step.")
        return _factor(size, lambda frequencies: 1 / (1 + (frequencies / self.cutoff) ** 4))


@final
@dataclass(frozen=True)
class RateLimited(Noise):
    """A leaky random walk: from step to step it changes by `rate` standard deviations of its own.

    Integrated noise, as in smooth MPPI (Kim et al. 2022, arXiv 2112.09988), with a leak that keeps its
    variance at 1: an Ornstein-Uhlenbeck process. A limit that no sequence may break is a constraint
    (`planners.constraints`).
    """

    rate: float = 0.3

    def matrix(self, size: int) -> Float[Tensor, "size size"]:
        """Factor of the covariance correlation^|i - j|, with correlation 1 - rate^2 / 2."""
        if not 0.001 <= self.rate <= math.sqrt(2):
            raise PlannerError(
                f"rate is {self.rate}; it must lie between 0.001 and sqrt(2), the rate of white noise."
            )
        steps = torch.arange(size, dtype=torch.float64)
        correlation = max(0.0, 1 - self.rate**2 / 2)
        return torch.linalg.cholesky(correlation ** (steps[:, None] - steps).abs())


def _factor(size: int, power: Callable[[Tensor], Tensor]) -> Float[Tensor, "size size"]:
    """Cholesky factor of stationary noise with this power spectrum, of period 2 * size."""
    frequencies = torch.fft.rfftfreq(2 * size, dtype=torch.float64)
    frequencies[0] = frequencies[1]  # 1 / 0 otherwise
    covariance = torch.fft.irfft(power(frequencies), n=2 * size)
    steps = torch.arange(size)
    return torch.linalg.cholesky((covariance / covariance[0])[(steps[:, None] - steps).abs()])


NOISES: dict[str, type[Noise]] = {
    "white": White,
    "colored": Colored,
    "low_pass": LowPass,
    "rate_limited": RateLimited,
}
