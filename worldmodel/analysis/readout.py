"""Observations read back from latents by least squares."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

_PRODUCT_SCALE = 0.3  # std of a main direction, whose products then count as much as the latent


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A linear map latent -> observation; `r2` is its fit on the data it was fitted to."""

    weight: Float[Tensor, "latent observation"]
    bias: Float[Tensor, " observation"]
    r2: float

    def __call__(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch observation"]:
        """Read observations from latents."""
        return latent @ self.weight + self.bias

    def score(
        self, latent: Float[Tensor, "row latent"], observation: Float[Tensor, "row observation"]
    ) -> float:
        """R2 on other data: 1 is perfect, 0 no better than their mean."""
        residual = (observation - self(latent)).double().square().sum()
        spread = (observation - observation.mean(0)).double().square().sum()
        return float(1 - residual / spread.clamp(min=1e-12))


def fit_readout(
    latent: Float[Tensor, "row latent"], observation: Float[Tensor, "row observation"], *, ridge: float = 1e-4
) -> Readout:
    """Ridge regression in float64, `ridge` relative to the latents' mean variance."""
    x, y = latent.double(), observation.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    # A collapsed model's latents do not vary: nothing can be read from them, and r2 says so.
    gram.diagonal().add_((ridge * gram.diagonal().mean()).clamp(min=1e-12))
    weight = torch.linalg.solve(gram, x.T @ y)
    residual = (y - x @ weight).square().sum()
    r2 = float(1 - residual / y.square().sum().clamp(min=1e-12))
    bias = y_mean - x_mean @ weight
    return Readout(weight=weight.float(), bias=bias.float(), r2=r2)


@dataclass(frozen=True, kw_only=True)
class QuadraticReadout:
    """A quadratic map latent -> observation: linear in the latent and in products of its main directions."""

    mean: Float[Tensor, " latent"]
    directions: Float[Tensor, "latent direction"]
    linear: Readout

    def __call__(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch observation"]:
        """Read observations from latents."""
        return self.linear(self._expand(latent))

    def _expand(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch feature"]:
        main = (latent - self.mean) @ self.directions
        first, second = torch.triu_indices(main.shape[-1], main.shape[-1], device=main.device)
        return torch.cat([latent - self.mean, main[..., first] * main[..., second]], dim=-1)


def fit_quadratic_readout(
    latent: Float[Tensor, "row latent"],
    observation: Float[Tensor, "row observation"],
    *,
    num_directions: int = 32,
    ridge: float = 1e-3,
) -> QuadraticReadout:
    """Ridge regression on the latents and on products of so many of their first principal components."""
    mean = latent.mean(0)
    _, spreads, directions = torch.linalg.svd(latent - mean, full_matrices=False)
    kept = spreads > 1e-3 * spreads[:1].clamp(min=1e-12)
    kept[num_directions:] = False
    stds = spreads[kept] / len(latent) ** 0.5
    # Products of unit components would outweigh the latent's own entries in the ridge.
    unfitted = QuadraticReadout(
        mean=mean,
        directions=directions[kept].T / (stds / _PRODUCT_SCALE),
        linear=Readout(weight=latent.new_zeros(0, 0), bias=latent.new_zeros(0), r2=0.0),
    )
    return replace(unfitted, linear=fit_readout(unfitted._expand(latent), observation, ridge=ridge))
