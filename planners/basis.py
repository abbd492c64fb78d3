"""How few numbers make an action sequence: actions = W @ parameters, one column of parameters per action.

A basis gives the matrix W (H, P). Fewer parameters than steps make a smaller search, and smooth actions; the
algorithm that searches does not know.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError


class Basis(ABC):
    """Gives the matrix that turns parameters into the steps of an action sequence."""

    @abstractmethod
    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """W in float64. Errors: `PlannerError` where it does not fit the horizon."""


@final
@dataclass(frozen=True)
class Steps(Basis):
    """Every step is a parameter of its own (W = I)."""

    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """The identity."""
        return torch.eye(horizon, dtype=torch.float64)


@dataclass(frozen=True)
class Knots(Basis):
    """Values at `num_knots` times; subclasses say what lies between them."""

    num_knots: int = 5

    def _check(self, horizon: int, least: int = 1) -> None:
        if not least <= self.num_knots <= horizon:
            raise PlannerError(
                f"num_knots is {self.num_knots}; {type(self).__name__} needs at least {least} and at most "
                f"one for each of the {horizon} steps of the horizon."
            )

    def _positions(self, horizon: int) -> Float[Tensor, " horizon"]:
        """Where the steps lie, counted in knots: the first step on the first knot, the last on the last."""
        return torch.linspace(0, self.num_knots - 1, horizon, dtype=torch.float64)


@final
@dataclass(frozen=True)
class ZeroHold(Knots):
    """Each knot's value is held until the next (a zero-order spline); pieces as equal as they come."""

    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """Rows with a single 1."""
        self._check(horizon)
        held = torch.arange(horizon) * self.num_knots // horizon
        return torch.nn.functional.one_hot(held, self.num_knots).double()


@final
@dataclass(frozen=True)
class Linear(Knots):
    """Straight lines between knots."""

    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """Rows that sum to 1, with two entries at most."""
        self._check(horizon, least=2)
        knots = torch.arange(self.num_knots, dtype=torch.float64)
        return (1 - (self._positions(horizon)[:, None] - knots).abs()).clamp(min=0)


@final
@dataclass(frozen=True)
class Cubic(Knots):
    """Cubic Hermite pieces with slopes from the neighbouring knots (Catmull and Rom 1974).

    Local: a knot moves the two pieces on either side. Actions may overshoot their knots; the planner clamps.
    """

    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """Rows that sum to 1, with four entries at most."""
        self._check(horizon, least=2)
        positions = self._positions(horizon)
        left = positions.floor().clamp(max=self.num_knots - 2).long()
        t = (positions - left)[:, None]
        values = torch.eye(self.num_knots, dtype=torch.float64)
        slopes = torch.gradient(values, dim=0)[0]  # central inside, one-sided at both ends
        return (
            (2 * t**3 - 3 * t**2 + 1) * values[left]
            + (t**3 - 2 * t**2 + t) * slopes[left]
            + (-2 * t**3 + 3 * t**2) * values[left + 1]
            + (t**3 - t**2) * slopes[left + 1]
        )


@final
@dataclass(frozen=True)
class Kernel(Knots):
    """Smooth interpolation with a squared-exponential kernel (as KMPPI: Miura et al. 2024).

    W = K(steps, knots) K(knots, knots)^-1. `width`: length scale, in distances between knots.
    """

    width: float = 1.0

    def matrix(self, horizon: int) -> Float[Tensor, "horizon parameter"]:
        """Dense rows; 1 at a knot for that knot's step."""
        self._check(horizon)
        if not 0 < self.width <= 3:
            raise PlannerError(
                f"width is {self.width}; it must be positive and at most 3: with a wider kernel the knots "
                "cannot be told apart."
            )
        knots = torch.arange(self.num_knots, dtype=torch.float64)

        def kernel(times: Tensor) -> Tensor:
            return (-0.5 * ((times[:, None] - knots) / self.width).square()).exp()

        # A trace of ridge: wide kernels of many knots are singular to rounding.
        ridge = 1e-9 * torch.eye(self.num_knots, dtype=torch.float64)
        return torch.linalg.solve(kernel(knots) + ridge, kernel(self._positions(horizon)).T).T


BASES: dict[str, type[Basis]] = {
    "steps": Steps,
    "zero": ZeroHold,
    "linear": Linear,
    "cubic": Cubic,
    "kernel": Kernel,
}
