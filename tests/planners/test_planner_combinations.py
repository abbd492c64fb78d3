"""Every planner with every basis and every noise."""

import math
from dataclasses import dataclass

import pytest
import torch
from planner_problems import CountingScorer, bowl, is_valid, seeded
from torch import Tensor

from planners import BASES, NOISES, PLANNERS, Plan, SamplingPlanner

HORIZON = 10
# Bounds that floats cannot hold: a comparison with the Python numbers would miss a rounding.
LOW, HIGH = (torch.tensor(bound).item() for bound in (-0.4, 0.7))

pytestmark = [
    pytest.mark.parametrize("noise", sorted(NOISES)),
    pytest.mark.parametrize("basis", sorted(BASES)),
]


def combine(name: str, basis: str, noise: str, **settings) -> SamplingPlanner:
    settings = {"num_candidates": 48, "num_elites": 8, "num_iterations": 4, "initial_std": 0.4} | settings
    if name in ("gradient", "hybrid"):  # to which fewer steps are no use
        settings |= {"num_iterations": 10}
    return PLANNERS[name](
        action_dim=2, horizon=HORIZON, low=LOW, high=HIGH, basis=BASES[basis](), noise=NOISES[noise](),
        **settings,
    )  # fmt: skip


def reachable(planner: SamplingPlanner, *values: float) -> Tensor:
    """A sequence for each value, made of equal parameters: (B, H, A)."""
    shape = (planner.num_parameters, planner.action_dim)
    return torch.stack([planner.decode(torch.full(shape, value)) for value in values])


@dataclass
class ClosedLoop:
    """What several decisions for the same targets gave."""

    plan: Plan
    score: CountingScorer
    worst: float  # root mean square error of the worst row


def control(
    planner: SamplingPlanner, targets: Tensor, decisions: int = 4, dtype: torch.dtype = torch.float32
) -> ClosedLoop:
    generator = seeded(1)
    score = CountingScorer(bowl(targets[:, None].to(dtype)))
    plan = planner.initial_plan(len(targets), dtype=dtype)
    for decision in range(decisions):
        start = planner.warm_start(plan) if decision else plan
        plan = planner.plan(score, start, generator=generator)
    error = (plan.actions - targets).square().mean((1, 2)).sqrt().max().item()
    return ClosedLoop(plan, score, error)


def test_finds_a_bottom_that_the_basis_can_express_for_every_row(name, basis, noise):
    planner = combine(name, basis, noise, last_action="repeat")
    targets = reachable(planner, -0.3, 0.1, 0.5)
    together = control(planner, targets)
    assert together.worst < 0.2
    if noise == "white":  # as well as alone
        assert control(planner, targets[2:]).worst < 0.2
    nothing = targets[2].square().mean().sqrt().item()
    assert nothing > 0.4


def test_bounds_are_exact_for_what_is_scored_and_what_is_executed(name, basis, noise):
    planner = combine(name, basis, noise, num_iterations=2)
    loop = control(planner, torch.full((2, HORIZON, 2), 5.0), decisions=2)
    for seen in loop.score.seen:
        assert seen.min().item() >= LOW
        assert seen.max().item() <= HIGH
    assert loop.plan.actions.min().item() >= LOW
    assert loop.plan.actions.max().item() <= HIGH
    assert is_valid(planner, loop.plan)
    assert loop.plan.actions.mean() > 0.2  # and it presses against the bound


def test_shapes_and_dtypes_are_those_of_the_plan_and_the_seed_repeats_it_to_the_bit(name, basis, noise):
    planner = combine(name, basis, noise)
    targets = reachable(planner, 0.3, -0.2)
    first, same = (control(planner, targets, 2, torch.float64) for _ in range(2))
    num_parameters = HORIZON if basis == "steps" else 5
    assert planner.num_parameters == num_parameters
    assert {seen.shape[2:] for seen in first.score.seen} == {(HORIZON, 2)}
    assert {seen.dtype for seen in first.score.seen} == {torch.float64}
    shapes = {
        "actions": (2, HORIZON, 2),
        "mean": (2, num_parameters, 2),
        "std": (2, num_parameters, 2),
        "elites": (2, 8, num_parameters, 2),
        "elite_returns": (2, 8),
        "elite_weights": (2, 8),
        "best_returns": (2, planner.num_iterations),
    }
    for field, shape in shapes.items():
        value = getattr(first.plan, field)
        assert value.shape == shape, field
        assert value.dtype == torch.float64, field
        assert torch.equal(value, getattr(same.plan, field)), field


def test_proposals_are_scored_as_the_nearest_the_basis_can_express(name, basis, noise):
    planner = combine(name, basis, noise, num_iterations=1)
    proposals = torch.rand(2, 3, HORIZON, 2, generator=seeded()) * (HIGH - LOW) + LOW
    score = CountingScorer(bowl(proposals[:, :1]))
    planner.plan(score, planner.initial_plan(2), proposals, seeded())
    nearest = planner.decode(planner.encode(proposals).clamp(LOW, HIGH))
    assert torch.equal(score.seen[0][:, 1:4], nearest)
    if basis == "steps":
        assert torch.equal(nearest, proposals)


def test_past_the_deadline_the_start_comes_back(name, basis, noise):
    planner = combine(name, basis, noise, num_iterations=1)
    previous = planner.plan(bowl(0.3), planner.initial_plan(2), generator=seeded())
    start = planner.warm_start(previous)
    score = CountingScorer(bowl(0.3))
    plan = planner.plan(score, start, generator=seeded(), deadline=-math.inf)
    assert score.seen == []
    assert (plan.num_iterations, plan.num_evaluations) == (0, 0)
    assert torch.equal(plan.actions, start.actions)
    assert torch.equal(plan.mean, start.mean)
    assert plan.best_returns.shape == (2, 0)
