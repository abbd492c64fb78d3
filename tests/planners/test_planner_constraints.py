"""What plans must not do, and the scorer that plays a model step by step."""

import math

import pytest
import torch
from planner_problems import CountingScorer, bowl, build, flat, is_valid, seeded, solve
from torch import Tensor

from planners import PlannerError, shooting
from planners.constraints import action_rate, penalized


def above(limit: float):
    """Violation: by how much actions lie above a limit."""
    return lambda candidates: (candidates - limit).clamp(min=0).sum((2, 3))


def some_candidates(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape, generator=seeded(), dtype=torch.float64) - 1


def test_a_penalty_is_the_weighted_violation():
    candidates = some_candidates(2, 5, 3, 2)
    expected = bowl(0.4)(candidates) - 3.0 * above(0.2)(candidates)
    assert torch.allclose(penalized(bowl(0.4), above(0.2), 3.0)(candidates), expected)


def test_a_weight_of_zero_changes_nothing():
    candidates = some_candidates(2, 5, 3, 2)
    assert torch.equal(penalized(bowl(0.4), above(0.2), 0.0)(candidates), bowl(0.4)(candidates))


def test_penalties_nest():
    candidates = some_candidates(2, 5, 3, 2)
    nested = penalized(penalized(bowl(0.4), above(0.2), 3.0), above(-0.1), 0.5)
    expected = bowl(0.4)(candidates) - 3.0 * above(0.2)(candidates) - 0.5 * above(-0.1)(candidates)
    assert torch.allclose(nested(candidates), expected)
    hard_inside = penalized(penalized(bowl(0.4), above(0.2), math.inf), above(-0.1), 0.5)(candidates)
    assert torch.equal(hard_inside == -math.inf, above(0.2)(candidates) > 0)


def test_an_infinite_weight_keeps_the_returns_of_what_keeps_the_rule_and_no_other():
    candidates = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    returns = penalized(bowl(0.4), above(0.25), math.inf)(candidates)
    assert torch.equal(returns[0, :2], bowl(0.4)(candidates)[0, :2])
    assert returns[0, 2] == -math.inf


@pytest.mark.parametrize("weight", [1.0, math.inf])
def test_a_violation_of_nan_never_wins(weight):
    def unknown(candidates):
        return flat(candidates).masked_fill(candidates[:, :, 0, 0] > 0, math.nan)

    planner = build("cem", action_dim=1, horizon=1, execute="best")
    plan = solve(planner, penalized(bowl(0.5), unknown, weight))
    assert plan.actions.item() <= 0


def test_a_heavy_penalty_keeps_every_planner_off_what_is_forbidden(name):
    plan = solve(build(name), penalized(bowl(0.8), above(0.2), 100.0), decisions=6)
    assert (plan.actions - 0.2).abs().max() < 0.15


def test_an_infinite_weight_is_a_wall_for_every_planner(name):
    planner = build(name, horizon=1, execute="best", low=-0.4, high=0.9)
    plan = solve(planner, penalized(bowl(0.8), above(0.2), math.inf), decisions=6)
    assert is_valid(planner, plan)
    assert plan.actions.max() <= 0.2
    assert plan.actions.min() > 0.0
    assert plan.best_return.isfinite().all()


def test_a_row_in_which_all_break_a_hard_rule_is_told(name):
    score = penalized(bowl(0.0), lambda candidates: flat(candidates) + 1, math.inf)
    with pytest.raises(PlannerError, match=r"rows \[0, 1\]"):
        build(name).plan(score, build(name).initial_plan(2), generator=seeded())


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_that_would_reward_violations_is_refused_by_name(weight):
    with pytest.raises(PlannerError, match=f"weight is {weight}"):
        penalized(flat, above(0.0), weight)


@pytest.mark.parametrize("max_change", [-0.1, math.nan])
def test_a_negative_largest_change_is_refused_by_name(max_change):
    with pytest.raises(PlannerError, match=f"max_change is {max_change}"):
        action_rate(max_change)


def test_the_rate_violation_sums_what_steps_change_beyond_the_limit():
    # Changes: 0.5, -0.1, 0.3 and 0.0, 0.2, -0.9.
    candidates = torch.tensor([[[0.0, 0.5, 0.4, 0.7], [0.1, 0.1, 0.3, -0.6]]])
    one_candidate = candidates.transpose(1, 2)[:, None]
    assert action_rate(0.2)(one_candidate).item() == pytest.approx(0.3 + 0.1 + 0.7)
    assert action_rate(0.9)(one_candidate).item() == pytest.approx(0, abs=1e-6)
    assert action_rate(0.0)(one_candidate).item() == pytest.approx(0.9 + 1.1)


def test_the_previous_action_counts_row_by_row_and_the_first_is_free_without_it():
    candidates = torch.full((2, 3, 4, 2), 0.5)
    assert not action_rate(0.1)(candidates).any()
    previous = torch.tensor([[0.5, 0.5], [0.0, -0.5]], dtype=torch.float64)
    violations = action_rate(0.1, previous)(candidates)
    assert violations.dtype == candidates.dtype
    assert torch.allclose(violations, torch.tensor([0.0, 0.4 + 0.9])[:, None].expand(2, 3))


def test_a_plan_obeys_a_limit_on_its_changes(name):
    limit, previous = 0.2, torch.tensor([[-0.5, 0.0]])
    score = penalized(bowl(0.9), action_rate(limit, previous), 30.0)
    planner = build(name, horizon=5)
    plan = solve(planner, score, decisions=8)
    changes = torch.cat([previous[:, None], plan.actions], dim=1).diff(dim=1)
    assert changes.abs().max() < limit + 0.05
    assert plan.actions[0, -1].mean() > 0.2  # and goes far: 0.5 and 0.9 at most
    free = solve(planner, bowl(0.9), decisions=8)
    assert (free.actions[:, 0] - previous).abs().max() > 0.7


def step(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    next_states = 0.9 * states + actions @ torch.tensor([[0.5, 0.1], [-0.2, 0.4]], dtype=states.dtype)
    return next_states, -(next_states.square().sum(1) + 0.1 * actions.square().sum(1))


def value(states: Tensor) -> Tensor:
    return 3 * states[:, 0]


def broken(states: Tensor, actions: Tensor) -> Tensor:
    return (states[:, 1] + actions[:, 0]).clamp(min=0)


def by_hand(state: Tensor, actions: Tensor, discount: float, terminal: bool, weight: float) -> float:
    """The return of one sequence, a step at a time."""
    total = 0.0
    for time, action in enumerate(actions):
        next_state, reward = step(state[None], action[None])
        total += discount**time * (reward.item() - weight * broken(state[None], action[None]).item())
        state = next_state[0]
    return total + (discount ** len(actions) * value(state[None]).item() if terminal else 0.0)


@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
def test_shooting_is_the_sum_over_steps(discount, terminal, weight):
    state = some_candidates(3, 2)
    candidates = some_candidates(3, 4, 5, 2)
    score = shooting(
        step,
        state,
        discount=discount,
        terminal_value=value if terminal else None,
        violation=broken if weight else None,
        weight=weight,
    )
    returns = score(candidates)
    assert returns.shape == (3, 4)
    for row in range(3):
        for candidate in range(4):
            expected = by_hand(state[row], candidates[row, candidate], discount, terminal, weight)
            assert returns[row, candidate].item() == pytest.approx(expected, abs=1e-9)


def test_shooting_takes_one_batched_step_for_each_step_of_the_horizon():
    sizes = []

    def counted(states, actions):
        sizes.append((tuple(states.shape), tuple(actions.shape)))
        return step(states, actions)

    shooting(counted, some_candidates(3, 2))(some_candidates(3, 4, 5, 2))
    assert sizes == [((12, 2), (12, 2))] * 5


def test_a_gradient_flows_through_shooting_to_every_action_and_to_no_other_candidate():
    candidates = some_candidates(2, 3, 4, 2).requires_grad_()
    score = shooting(step, some_candidates(2, 2), discount=0.9, terminal_value=value, violation=broken)
    (gradient,) = torch.autograd.grad(score(candidates)[1, 2], candidates)
    assert (gradient[1, 2] != 0).all()
    assert not gradient[0].any()
    assert not gradient[1, :2].any()


def test_an_infinite_weight_in_shooting_is_hard():
    def high(states, actions):
        return (actions[:, 0] - 0.5).clamp(min=0)

    state = torch.zeros(1, 2)
    candidates = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 2)
    returns = shooting(step, state, discount=0.9, violation=high, weight=math.inf)(candidates)
    assert torch.allclose(returns[0, :2], shooting(step, state, discount=0.9)(candidates)[0, :2])
    assert returns[0, 2] == -math.inf


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_in_shooting_that_would_reward_violations_is_refused_by_name(weight):
    with pytest.raises(PlannerError, match=f"weight is {weight}"):
        shooting(step, torch.zeros(1, 2), violation=broken, weight=weight)


def test_a_plan_through_shooting_steers_every_row_to_its_goal(name):
    goals = torch.tensor([[0.5, -0.3], [-0.4, 0.2], [0.0, 0.6]])

    def walk(states, actions):
        places = states[:, :2] + 0.4 * actions
        return torch.cat([places, states[:, 2:]], 1), -(places - states[:, 2:]).square().sum(1)

    state = torch.cat([torch.zeros(3, 2), goals], 1)
    score = CountingScorer(shooting(walk, state))
    plan = solve(build(name, horizon=4), score, batch_size=3, decisions=6)
    assert all(len(seen) == 3 for seen in score.seen)
    assert (0.4 * plan.actions.sum(1) - goals).abs().max() < 0.1


def test_rewards_with_one_axis_too_many_are_refused_by_shape():
    def step(states, actions):
        return states, actions  # (M, 1) instead of (M,)

    with pytest.raises(PlannerError, match=r"rewards of shape \(6, 1\) for 6 actions"):
        shooting(step, torch.zeros(2, 4))(torch.zeros(2, 3, 5, 1))
