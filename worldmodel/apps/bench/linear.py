"""A linear plant with quadratic cost: the one control problem whose best controller is known exactly."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from planners import Scorer, shooting

NUM_STATES, NUM_ACTIONS = 8, 2
HORIZON, NUM_STEPS, NUM_STARTS = 15, 40, 16
PERIOD_S = 0.15
MAX_START = 0.15  # so that the exact controller's forces stay within [-1, 1]: then it is the optimum


class LinearPlant:
    """Four masses in a row, joined by springs and dampers; the two in the middle are pushed.

    Reward: -(|state|^2 + 0.1 |action|^2). With the Riccati cost-to-go as value of the last state, the optimal
    plan of any horizon begins with the exact controller's action.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        springs = 2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)
        drift = np.block([[np.zeros((4, 4)), np.eye(4)], [-springs, -0.1 * springs]])
        push = np.zeros((NUM_STATES, NUM_ACTIONS))
        push[5, 0] = push[6, 1] = 2.0
        # Exactly sampled: the exponential of drift and push together (Van Loan 1978).
        both = scipy.linalg.expm(np.block([[drift, push], [np.zeros((2, 10))]]) * PERIOD_S)
        self._a, self._b = both[:8, :8], both[:8, 8:]
        self._r = 0.1 * np.eye(NUM_ACTIONS)
        self._p = scipy.linalg.solve_discrete_are(self._a, self._b, np.eye(NUM_STATES), self._r)
        self.dtype = dtype

    def starts(self, seed: int, count: int = NUM_STARTS) -> Tensor:
        """States (count, 8) to control from."""
        generator = torch.Generator().manual_seed(seed)
        states = torch.rand(count, NUM_STATES, generator=generator, dtype=torch.float64)
        return ((2 * states - 1) * MAX_START).to(self.dtype)

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Next states (M, 8) and rewards (M,)."""
        a, b = self._matrices
        rewards = -(states.square().sum(-1) + 0.1 * actions.square().sum(-1))
        return torch.addmm(actions @ b, states, a), rewards

    def value(self, states: Tensor) -> Tensor:
        """Minus the exact cost-to-go (M,)."""
        return -((states @ torch.from_numpy(self._p).to(states)) * states).sum(-1)

    def exact_action(self, states: Tensor) -> Tensor:
        """What the exact controller does (M, 2)."""
        gain = np.linalg.solve(self._r + self._b.T @ self._p @ self._b, self._b.T @ self._p @ self._a)
        return -states @ torch.from_numpy(gain).to(states).T

    def closed_loop_cost(self, states: Tensor, act: Callable[[Tensor], Tensor]) -> float:
        """Cost of acting for `NUM_STEPS` steps from every start, and of what remains then."""
        cost = torch.zeros(len(states), dtype=torch.float64)
        for _ in range(NUM_STEPS):
            states, rewards = self.step(states, act(states))
            cost -= rewards
        return float((cost - self.value(states)).sum())

    def scorer(self, states: Tensor) -> Scorer:
        """Candidates played from these states."""
        return shooting(self.step, states, terminal_value=self.value)

    @cached_property
    def _matrices(self) -> tuple[Tensor, Tensor]:
        return (torch.from_numpy(self._a).to(self.dtype).T.contiguous(),
                torch.from_numpy(self._b).to(self.dtype).T.contiguous())  # fmt: skip
