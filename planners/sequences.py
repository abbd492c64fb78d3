"""Action sequences: their bounds, what parameters they are made of, and how noise runs along them."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from planners.basis import Basis, Steps
from planners.errors import PlannerError
from planners.noise import Noise, White

# Settings may come from a checkpoint, which is anybody's. These are far above what plans well, and below what
# takes all of a machine.
MAX_AXIS = 2000  # actions of a sequence, and entries of an action
MAX_COUNT = 1_000_000  # candidates, iterations, elites
MAX_NUMBERS = 2**28  # drawn for one plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """What all planners mean by an action sequence.

    - `action_dim`, `horizon`: A and H of every action sequence.
    - `low`, `high`: bounds of every action (and of every parameter).
    - `basis`: how parameters make a sequence, actions = W @ parameters.
    - `noise`: how the parameters' noise is correlated in time, noise = L @ white noise.
    - `last_action`: what a sequence that moves one step on gets as its new last action: "zero" (or the bound
      nearest to it), or a "repeat" of the one before.
    """

    action_dim: int
    horizon: int
    low: float = -1.0
    high: float = 1.0
    basis: Basis = field(default_factory=Steps)
    noise: Noise = field(default_factory=White)
    last_action: Literal["zero", "repeat"] = "zero"

    def __post_init__(self) -> None:
        for name in ("action_dim", "horizon"):
            check_count(name, getattr(self, name), MAX_AXIS)
        for name, kind in (("basis", Basis), ("noise", Noise)):
            if not isinstance(getattr(self, name), kind):
                raise PlannerError(
                    f"{name} is {getattr(self, name)!r}; it must be a {kind.__name__}, such as "
                    f"{'Cubic(num_knots=5)' if name == 'basis' else 'Colored(exponent=1.0)'}."
                )
        if not -math.inf < self.low < self.high < math.inf:
            raise PlannerError(
                f"low is {self.low} and high is {self.high}; low must be below high, both finite."
            )
        if self.last_action not in ("zero", "repeat"):
            raise PlannerError(f"last_action is {self.last_action!r}; choose 'zero' or 'repeat'.")
        _ = self._basis, self._noise, self._inverse  # wrong settings are told now

    @property
    def num_parameters(self) -> int:
        """P: parameters of each action along the horizon."""
        return self.horizon if self._basis is None else self._basis.shape[1]

    @property
    def is_recordable(self) -> bool:
        """Whether a plan is work of its device alone: no matrix of the host's, no optimizer, takes part."""
        return self._basis is None and self._noise is None

    def decode(
        self, parameters: Float[Tensor, "*batch parameter action"]
    ) -> Float[Tensor, "*batch horizon action"]:
        """The actions that parameters stand for, inside the bounds."""
        if self._basis is None:
            return parameters  # the loop keeps parameters inside the bounds
        return _along_time(self._basis, parameters).clamp_(self.low, self.high)

    def encode(
        self, actions: Float[Tensor, "*batch horizon action"]
    ) -> Float[Tensor, "*batch parameter action"]:
        """The parameters whose sequence is nearest to the actions (least squares)."""
        return actions if self._inverse is None else _along_time(self._inverse, actions)

    def shift(
        self, parameters: Float[Tensor, "*batch parameter action"]
    ) -> Float[Tensor, "*batch parameter action"]:
        """The sequence one step on, as nearly as the basis can express it."""
        if self._basis is None:
            return self.shift_actions(parameters)
        return self.encode(self.shift_actions(self.decode(parameters))).clamp(self.low, self.high)

    def shift_actions(
        self, actions: Float[Tensor, "*batch horizon action"]
    ) -> Float[Tensor, "*batch horizon action"]:
        """Drop the first action, which was executed, and append a last one."""
        last = actions[..., -1:, :]
        if self.last_action == "zero":
            last = torch.zeros_like(last).clamp(self.low, self.high)
        return torch.cat([actions[..., 1:, :], last], dim=-2)

    def shape_noise(
        self, white: Float[Tensor, "*batch parameter action"]
    ) -> Float[Tensor, "*batch parameter action"]:
        """Correlate independent noise in time; its variance stays 1."""
        return white if self._noise is None else _along_time(self._noise, white)

    def action_std(
        self, std: Float[Tensor, "batch parameter action"]
    ) -> Float[Tensor, "batch horizon action"]:
        """The std of every action that a std of every parameter means (clamping apart)."""
        if self._basis is None:
            return std
        # Var(W S L eps) with S = diag(std): the rows of W S L, squared and summed.
        noise = torch.eye(self.num_parameters) if self._noise is None else self._noise
        rows = torch.einsum("hp,bpa,pq->bhaq", self._basis.to(std), std, noise.to(std))
        return rows.square().sum(-1).sqrt()

    @cached_property
    def _basis(self) -> Tensor | None:
        """W, or None where it is the identity."""
        return None if isinstance(self.basis, Steps) else self.basis.matrix(self.horizon)

    @cached_property
    def _inverse(self) -> Tensor | None:
        return None if self._basis is None else torch.linalg.pinv(self._basis)

    @cached_property
    def _noise(self) -> Tensor | None:
        """L, or None where it is the identity."""
        return None if isinstance(self.noise, White) else self.noise.matrix(self.num_parameters)


def check_counts(planner: Any, *names: str) -> None:
    """Check these counts of a planner, and what they come to. Errors: `PlannerError`."""
    for name in names:
        check_count(name, getattr(planner, name), MAX_COUNT)
    sizes = (planner.num_iterations, planner.num_candidates, planner.num_parameters, planner.action_dim)
    if math.prod(sizes) > MAX_NUMBERS:
        raise PlannerError(
            f"{' x '.join(map(str, sizes))} numbers (iterations, candidates, parameters, action) would be "
            f"drawn for each plan, more than {MAX_NUMBERS}; lower num_candidates or num_iterations."
        )


def check_count(name: str, value: Any, most: int) -> None:
    """Errors: `PlannerError` for what is no whole number from 1 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise PlannerError(f"{name} is {value!r}; it must be a whole number.")
    if value < 1:
        raise PlannerError(f"{name} is {value}; it must be at least 1.")
    if value > most:
        raise PlannerError(f"{name} is {value}; it must be at most {most}.")


def _along_time(
    matrix: Float[Tensor, "out into"], sequences: Float[Tensor, "*batch into action"]
) -> Float[Tensor, "*batch out action"]:
    """matrix @ each sequence, as one product: many small ones take ten times longer."""
    product = torch.nn.functional.linear(sequences.transpose(-1, -2), matrix.to(sequences))
    return product.transpose(-1, -2).contiguous()
