"""What the one loop promises for every planner."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from planner_problems import CountingScorer, bowl, build, flat, is_valid, seeded, solve

import planners.sampling
from planners import PlannerError


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.3, 0.7), (0.1, 0.2)])
def test_nothing_leaves_the_bounds_not_even_by_rounding(name, low, high):
    low, high = (torch.tensor(bound, dtype=torch.float32).item() for bound in (low, high))
    planner = build(name, low=low, high=high, initial_std=2.0, num_candidates=64, num_elites=37)
    score = CountingScorer(bowl(5.0))  # everything presses against a bound
    start = planner.initial_plan(4)
    proposals = torch.full((4, 3, 3, 2), 9.0)
    plan = planner.plan(score, start, proposals, seeded())
    assert is_valid(planner, plan)
    assert all(seen.min() >= low and seen.max() <= high for seen in score.seen)
    assert is_valid(planner, planner.warm_start(plan))


def test_the_same_seed_gives_the_same_plan_to_the_bit_and_another_seed_another(name):
    first, same, other = (solve(build(name), bowl(0.4), 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.actions, same.actions)
    assert torch.equal(first.elites, same.elites)
    assert not torch.equal(first.elites, other.elites)


def test_without_a_generator_the_default_one_is_used(name):
    planner = build(name)
    plans = []
    for _ in range(2):
        torch.manual_seed(5)
        plans.append(planner.plan(bowl(0.4), planner.initial_plan(1)).actions)
    assert torch.equal(*plans)


@pytest.mark.parametrize("offset", [1000.0, 300.0, -300.0])
def test_an_offset_of_the_returns_changes_nothing(name, offset):
    planner = build(name, num_iterations=2)
    target = bowl(torch.tensor(0.4, dtype=torch.float64))
    start = planner.initial_plan(2, dtype=torch.float64)
    plain = planner.plan(target, start, generator=seeded())
    shifted = planner.plan(lambda c: target(c) + offset, start, generator=seeded())
    assert is_valid(planner, shifted)
    assert torch.allclose(plain.actions, shifted.actions, atol=1e-6)


def test_exactly_num_candidates_are_scored_in_each_iteration(name):
    planner = build(name, num_candidates=50, num_elites=10, num_iterations=4)
    score = CountingScorer(bowl(0.4))
    plan = planner.plan(score, planner.initial_plan(2), torch.zeros(2, 7, 3, 2), seeded())
    expected = [planner.num_candidates_in(iteration) for iteration in range(4)]
    assert expected[0] == 50
    if name not in ("icem", "hybrid"):  # which need fewer later on
        assert expected == [50] * 4
    assert [tuple(seen.shape) for seen in score.seen] == [(2, count, 3, 2) for count in expected]
    assert plan.num_iterations == 4
    assert plan.num_evaluations == sum(expected)


def test_the_start_and_the_proposals_are_candidates_and_never_lost(name):
    planner = build(name)
    start = solve(planner, bowl(0.5))
    proposals = torch.rand(1, 5, 3, 2, generator=seeded())
    score = CountingScorer(bowl(0.9))
    plan = planner.plan(score, start, proposals, seeded())
    assert torch.equal(score.seen[0][:, 0], start.mean)
    assert torch.equal(score.seen[0][:, 1:6], proposals)
    assert not (score.seen[1][:, 1:6] == proposals).any()  # their returns are known: draws take the places
    assert (plan.best_return >= bowl(0.9)(proposals).amax(1)).all()


def test_the_best_of_the_plan_is_never_worse_than_the_start_or_any_candidate(name):
    score = CountingScorer(lambda candidates: candidates.mul(9).cos().sum((2, 3)))
    planner = build(name, num_candidates=16, num_elites=4)
    plan = planner.plan(score, planner.initial_plan(3), generator=seeded())
    best_seen = torch.stack([score.score(seen).amax(1) for seen in score.seen]).amax(0)
    assert torch.equal(plan.best_return, best_seen)
    assert torch.equal(score.score(plan.elites[:, :1])[:, 0], plan.best_return)
    assert (plan.elite_returns.diff(dim=1) <= 0).all()


def test_a_perfect_proposal_wins(name):
    def score(candidates):  # a needle: nothing leads to it
        return (candidates - 0.77).abs().amax((2, 3)).lt(1e-3).float() + flat(candidates)

    planner = build(name, action_dim=4, horizon=5)
    proposals = torch.full((2, 1, 5, 4), 0.77)
    plan = planner.plan(score, planner.initial_plan(2), proposals, seeded())
    assert torch.equal(plan.elites[:, :1], proposals)
    assert (plan.best_return == 1).all()


def test_good_proposals_pull_the_plan(name):
    planner = build(name, action_dim=6, horizon=10, num_candidates=32, num_elites=8)
    target = torch.rand(1, 1, 10, 6, generator=seeded()) * 1.6 - 0.8
    plan = partial(planner.plan, bowl(target), planner.initial_plan(1))
    with_proposals = plan(target.expand(1, 8, 10, 6), seeded())
    without = plan(None, seeded())
    assert bowl(target)(with_proposals.actions[:, None]) > 0.5 * bowl(target)(without.actions[:, None])


def test_a_proposal_of_nan_neither_wins_nor_spoils_the_plan(name):
    planner = build(name, num_candidates=8, num_elites=8, num_kept=1)
    proposals = torch.full((1, 4, 3, 2), math.nan)
    score = CountingScorer(bowl(0.0))
    plan = planner.plan(score, planner.initial_plan(1), proposals, seeded())
    assert is_valid(planner, plan)
    assert all(seen.isfinite().all() for seen in score.seen)


def test_a_needle_at_which_a_proposal_of_nan_is_scored_is_not_its_reward(name):
    # Without a slope a climber stays at the needle, which then counts anew.
    settings = {"num_iterations": 1} if name in ("gradient", "hybrid") else {}
    planner = build(name, **settings)
    proposals = torch.full((1, 1, 3, 2), math.nan)
    start = planner.initial_plan(1)
    plan = planner.plan(lambda c: (c == 0).all(3).all(2).float() + flat(c), start, proposals, seeded())
    assert (plan.elite_returns == 1).sum() == 1  # the plan at hand, all zeros


def test_returns_too_large_for_the_plans_dtype_do_not_win(name):
    def score(candidates):
        returns = bowl(0.4)(candidates).double()
        return returns.masked_fill(candidates[:, :, 0, 0] < 0, 1e300)

    planner = build(name, initial_std=1.0)
    plan = planner.plan(score, planner.initial_plan(1), generator=seeded())
    assert is_valid(planner, plan)
    assert plan.best_return.item() <= 0


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_an_optimum_beside_a_poisoned_region_is_found_with_negative_returns(name, poison):
    def score(candidates):
        returns = bowl(0.5)(candidates) - 10
        return returns.masked_fill((candidates < 0.2).any(3).any(2), poison)

    planner = build(name, horizon=1, initial_std=1.0)
    plan = solve(planner, score, decisions=8)
    assert is_valid(planner, plan)
    assert (plan.actions - 0.5).abs().max() < 0.15
    assert plan.best_return.item() <= -10


def test_fewer_finite_candidates_than_elites_still_give_a_plan(name):
    def score(candidates):
        returns = bowl(0.5)(candidates)
        returns[:, 2:] = math.nan
        return returns

    planner = build(name, num_candidates=20, num_elites=20, num_iterations=1)
    plan = planner.plan(score, planner.initial_plan(2), generator=seeded())
    assert is_valid(planner, plan)
    assert (plan.elite_returns.isfinite().sum(1) == 2).all()
    # Whatever fills the other places of the elites does not count.
    finite = plan.elites[:, :2]
    between = (plan.mean >= finite.amin(1) - 1e-6) & (plan.mean <= finite.amax(1) + 1e-6)
    assert between.all()
    if name == "cem":
        assert torch.allclose(plan.mean, finite.mean(1), atol=1e-6)


def _score_with_a_broken_row(candidates):
    returns = bowl(0.5)(candidates)
    returns[1] = math.nan
    return returns


def test_a_row_of_nan_raises_and_names_the_row(name):
    planner = build(name)
    with pytest.raises(PlannerError, match=r"rows \[1\].*if_all_nan='nominal'"):
        planner.plan(_score_with_a_broken_row, planner.initial_plan(3), generator=seeded())


def test_a_row_of_nan_keeps_its_start_and_does_not_touch_the_others(name):
    planner = build(name, if_all_nan="nominal")
    start = solve(planner, bowl(-0.3), batch_size=3)
    plan = planner.plan(_score_with_a_broken_row, start, generator=seeded())
    healthy = planner.plan(bowl(0.5), start, generator=seeded())
    assert torch.equal(plan.actions[1], start.actions[1])
    assert torch.equal(plan.mean[1], start.mean[1])
    assert plan.best_return[1] == -math.inf
    assert torch.equal(plan.actions[[0, 2]], healthy.actions[[0, 2]])
    assert is_valid(planner, plan)


def test_equal_returns_leave_the_best_where_it_was(name):
    planner = build(name)
    start = solve(planner, bowl(0.3))
    plan = planner.plan(flat, start, generator=seeded())
    assert torch.equal(plan.elites[:, 0], start.mean)


def test_returns_of_an_earlier_decision_do_not_compete(name):
    planner = build(name)
    start = planner.plan(lambda c: bowl(-0.9)(c) + 1000, planner.initial_plan(1), generator=seeded())
    plan = planner.plan(bowl(0.9), start, generator=seeded(1))
    assert plan.best_return.item() <= 0


class Clock:
    """Stands still until a scorer takes its time."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(planners.sampling, "perf_counter", lambda: self.now)

    def scorer_taking(self, *seconds):
        durations = iter(seconds)

        def score(candidates):
            self.now += next(durations)
            return bowl(0.4)(candidates)

        return score


@pytest.mark.parametrize(
    ("deadline", "durations", "iterations"),
    [
        (100.5, (1.0,), 1),  # one iteration is always started before the deadline
        (103.0, (1.0, 1.0, 1.0), 3),  # one that ends on the deadline is in time
        (102.9, (1.0, 1.0), 2),  # a third would end at 103
        (110.0, (1.0, 6.0), 2),  # the second took 6: a third would end at 113
        (1000.0, (1.0,) * 6, 6),
    ],
)
def test_the_deadline_decides_how_many_iterations_run(name, monkeypatch, deadline, durations, iterations):
    clock = Clock(monkeypatch)
    planner = build(name, num_iterations=6)
    score = clock.scorer_taking(*durations)
    plan = planner.plan(score, planner.initial_plan(2), generator=seeded(), deadline=deadline)
    assert plan.num_iterations == iterations
    assert plan.seconds == sum(durations)
    assert is_valid(planner, plan)


def test_cut_short_the_plan_is_that_of_fewer_iterations(name, monkeypatch):
    if name in ("dial", "icem", "hybrid"):
        pytest.skip("what it does in an iteration depends on how many there will be")
    clock = Clock(monkeypatch)
    long, short = build(name, num_iterations=6), build(name, num_iterations=2)
    start = long.initial_plan(1)
    whole = short.plan(bowl(0.4), start, generator=seeded())
    cut = long.plan(clock.scorer_taking(1.0, 1.0), start, generator=seeded(), deadline=102.5)
    assert torch.equal(cut.actions, whole.actions)


def test_after_the_deadline_the_start_comes_back_unscored(name, monkeypatch):
    clock = Clock(monkeypatch)
    planner = build(name)
    start = planner.warm_start(solve(planner, bowl(0.3), batch_size=2))
    score = CountingScorer(bowl(0.4))
    plan = planner.plan(score, start, generator=seeded(), deadline=clock.now - 1)
    assert score.seen == []
    assert plan.num_iterations == 0
    assert torch.equal(plan.actions, start.actions)
    assert is_valid(planner, plan)


def test_the_deadline_does_not_move_the_generator(name, monkeypatch):
    clock = Clock(monkeypatch)
    planner = build(name)
    cut, whole = seeded(), seeded()
    planner.plan(bowl(0.4), planner.initial_plan(1), generator=cut, deadline=clock.now - 1)
    planner.plan(bowl(0.4), planner.initial_plan(1), generator=whole)
    assert torch.equal(cut.get_state(), whole.get_state())


def test_float64_in_float64_out(name):
    planner = build(name)
    plan = solve(planner, bowl(torch.tensor(0.4, dtype=torch.float64)), dtype=torch.float64)
    assert plan.actions.dtype == plan.std.dtype == plan.elite_returns.dtype == torch.float64
    assert (plan.actions - 0.4).abs().max() < 0.15


def test_gradients_are_left_on(name):
    planner = build(name)
    seen = []

    def score(candidates):
        seen.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
        return bowl(0.4)(candidates)

    planner.plan(score, planner.initial_plan(1), generator=seeded())
    assert all(seen)


def test_what_was_executed_competes_with_the_next_plan():
    """With execute="best" it is not the mean; the plan it started from is a candidate all the same."""
    planner = build("mppi", execute="best", num_iterations=1, num_candidates=8, num_elites=2)
    start = planner.initial_plan(1)
    optimum = torch.full_like(start.actions, 0.7)
    start = replace(start, actions=optimum)

    def score(candidates):
        return -(candidates - optimum[:, None]).square().sum((2, 3))

    plan = planner.plan(score, start, generator=seeded(0))
    assert plan.best_return.item() == 0.0
    assert torch.equal(plan.actions, optimum)


@pytest.mark.parametrize("best", [3e38, 1.0])
def test_returns_as_far_apart_as_floats_go_still_give_a_plan(name, best):
    def score(candidates):
        is_good = candidates[:, :, 0, 0] > 0
        return torch.where(is_good, best, -3e38) + flat(candidates)

    planner = build(name, num_candidates=16, num_elites=16)
    assert is_valid(planner, planner.plan(score, planner.initial_plan(1), generator=seeded()))


@pytest.mark.parametrize("num_kept", [1, None])
def test_a_plan_has_all_its_elites_however_few_are_kept(name, num_kept):
    planner = build(name, num_candidates=32, num_elites=16, num_kept=num_kept)
    plan = solve(planner, bowl(0.4), decisions=3)
    assert plan.elites.shape[1] == 16


def test_changing_the_actions_of_a_plan_changes_nothing_else_of_it(name):
    planner = build(name, execute="best")
    plan = planner.plan(bowl(0.4), planner.initial_plan(2), generator=seeded())
    mean, elites = plan.mean.clone(), plan.elites.clone()
    plan.actions.add_(1.0)
    plan.mean.add_(0.0)
    assert torch.equal(plan.mean, mean)
    assert torch.equal(plan.elites, elites)
    plan.mean.add_(1.0)
    assert torch.equal(plan.elites, elites)
