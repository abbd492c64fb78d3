"""Planning problems with known answers, and what the planner tests share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from planners import PLANNERS, Plan, SamplingPlanner

Score = Callable[[Tensor], Tensor]


def build(name: str, **settings) -> SamplingPlanner:
    """Build a planner for two actions and three steps unless told otherwise."""
    return PLANNERS[name](**({"action_dim": 2, "horizon": 3} | settings))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bowl(target: Tensor | float) -> Score:
    """Score by the squared distance of every action to `target`, best 0."""
    return lambda candidates: -(candidates - target).square().sum((2, 3))


def flat(candidates: Tensor) -> Tensor:
    """Score every candidate 0, with a gradient of 0."""
    return 0 * candidates.sum((2, 3))


def solve(
    planner: SamplingPlanner, score: Score, batch_size: int = 1, decisions: int = 4, seed: int = 0, **start
) -> Plan:
    """Plan several times from where the last plan ended, without a step in between."""
    generator = seeded(seed)
    plan = planner.initial_plan(batch_size, **start)
    wide = plan.std
    for _ in range(decisions):
        plan = planner.plan(score, plan, generator=generator)
        plan = Plan(**(vars(plan) | {"std": wide}))
    return plan


class CountingScorer:
    """Remembers the candidates of each call."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.seen: list[Tensor] = []

    def __call__(self, candidates: Tensor) -> Tensor:
        self.seen.append(candidates.clone())
        return self.score(candidates)


@dataclass
class LinearPlant:
    """Two carts pushed by bounded forces; quadratic cost, so the best controller is known exactly."""

    horizon: int = 10

    def __post_init__(self) -> None:
        cart = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
        push = torch.tensor([[0.02], [0.4]], dtype=torch.float64)
        self.a, self.b = torch.block_diag(cart, cart), torch.block_diag(push, push)
        self.q, self.r = torch.eye(4, dtype=torch.float64), 0.1 * torch.eye(2, dtype=torch.float64)
        # With the infinite-horizon cost as terminal value, the optimum of any horizon is the LQR's.
        self.p = torch.as_tensor(scipy.linalg.solve_discrete_are(self.a, self.b, self.q, self.r))

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state @ self.a.T + action @ self.b.T

    def cost(self, state: Tensor, action: Tensor) -> Tensor:
        return (state @ self.q * state).sum(-1) + (action @ self.r * action).sum(-1)

    def cost_to_go(self, state: Tensor) -> Tensor:
        return (state @ self.p * state).sum(-1)

    def scorer(self, state: Tensor) -> Score:
        def score(candidates: Tensor) -> Tensor:
            states = state[:, None].expand(*candidates.shape[:2], 4)
            cost = candidates.new_zeros(candidates.shape[:2])
            for step in range(candidates.shape[2]):
                cost = cost + self.cost(states, candidates[:, :, step])
                states = self.step(states, candidates[:, :, step])
            return -(cost + self.cost_to_go(states))

        return score

    def closed_loop_ratio(self, planner: SamplingPlanner | None, decisions: int = 25, seed: int = 0) -> float:
        """Return cost / exact LQR cost from six starts; without a planner that of doing nothing."""
        generator = seeded(seed)
        start = torch.rand(6, 4, generator=generator, dtype=torch.float64) - 0.5
        state, cost = start, torch.zeros(6, dtype=torch.float64)
        plan = planner.initial_plan(6, dtype=torch.float64) if planner else None
        for _ in range(decisions):
            action = torch.zeros(6, 2, dtype=torch.float64)
            if planner and plan:
                plan = planner.plan(self.scorer(state), plan, generator=generator)
                action = plan.actions[:, 0]
                plan = planner.warm_start(plan)
            cost = cost + self.cost(state, action)
            state = self.step(state, action)
        return ((cost + self.cost_to_go(state)) / self.cost_to_go(start)).mean().item()


def is_valid(planner: SamplingPlanner, plan: Plan) -> bool:
    """Finite and inside the bounds, to the last bit."""
    sequences = (plan.actions, plan.mean, plan.elites)
    return all(
        bool(x.isfinite().all()) and x.min().item() >= planner.low and x.max().item() <= planner.high
        for x in sequences
    ) and bool(plan.std.isfinite().all() and not (plan.elite_returns == math.inf).any())
