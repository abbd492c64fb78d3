"""What a plan tells of the search that made it."""

import math
from dataclasses import replace

import pytest
import torch
from planner_problems import CountingScorer, bowl, build, flat, seeded, solve

import planners.sampling
from planners import Plan, PlannerError

QUICK = {"num_candidates": 24, "num_elites": 6, "num_iterations": 5}


def quick(name, **settings):
    return build(name, **(QUICK | settings))


def planned(name, score=None, batch_size=2, **settings):
    planner = quick(name, **settings)
    return planner.plan(score or bowl(0.7), planner.initial_plan(batch_size), generator=seeded())


def test_best_returns_tell_the_best_after_each_iteration(name):
    score = CountingScorer(bowl(torch.tensor([0.7, -0.3])[:, None, None, None]))
    plan = planned(name, score)
    each = torch.stack([score.score(seen).amax(1) for seen in score.seen], 1)
    assert plan.best_returns.shape == (2, 5)
    assert torch.equal(plan.best_returns, each.cummax(1).values)
    assert torch.equal(plan.best_returns[:, -1], plan.best_return)
    assert (plan.best_returns[:, -1] > plan.best_returns[:, 0]).all()


def test_best_returns_say_from_when_on_anything_was_scored(name):
    calls = []

    def silent_at_first(candidates):
        calls.append(1)
        return bowl(0.7)(candidates) if len(calls) > 2 else candidates.sum((2, 3)) * math.nan

    plan = planned(name, silent_at_first)
    assert (plan.best_returns[:, :2] == -math.inf).all()
    assert plan.best_returns[:, 2:].isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"num_candidates": 7, "num_elites": 1}, {"num_kept": 1}], ids=str)
def test_evaluations_are_the_candidates_that_were_scored_for_each_row(name, settings):
    score = CountingScorer(bowl(0.7))
    plan = planned(name, score, **settings)
    assert plan.num_evaluations == sum(seen.shape[1] for seen in score.seen)
    assert plan.num_iterations == len(score.seen) == 5


def test_work_is_counted_anew_in_each_decision(name):
    planner = quick(name)
    plan = planner.plan(bowl(0.7), planner.initial_plan(2), generator=seeded())
    again = planner.plan(bowl(0.7), plan, generator=seeded(1))
    assert again.num_evaluations == plan.num_evaluations
    assert again.num_iterations == plan.num_iterations
    assert again.best_returns.shape == plan.best_returns.shape


def test_weights_of_the_elites_sum_to_one_and_make_the_mean(name):
    plan = planned(name, num_iterations=1)
    assert torch.allclose(plan.elite_weights.sum(1), torch.ones(2))
    assert (plan.elite_weights >= 0).all()
    assert (plan.elite_weights.diff(dim=1) <= 1e-7).all()  # the better, the more
    momentum = 0.1 if name == "icem" else 0.0
    mean = (plan.elite_weights[:, :, None, None] * plan.elites).sum(1)
    assert torch.allclose(plan.mean, (1 - momentum) * mean, atol=1e-6)


def test_the_effective_sample_size_is_one_over_the_sum_of_squared_weights(name):
    plan = planned(name)
    expected = 1 / plan.elite_weights.square().sum(1)
    assert torch.allclose(plan.effective_sample_size, expected)
    assert (plan.effective_sample_size >= 1 - 1e-5).all()
    assert (plan.effective_sample_size <= 6 + 1e-5).all()


@pytest.mark.parametrize("best_only", ["predictive_sampling", "gradient", "hybrid"])
def test_one_candidate_decides_where_the_plan_is_the_best_one(best_only):
    assert torch.equal(planned(best_only).effective_sample_size, torch.ones(2))


@pytest.mark.parametrize("kind", ["cem", "icem"])
def test_all_elites_count_alike_in_cem(kind):
    assert torch.allclose(planned(kind).effective_sample_size, torch.full((2,), 6.0))


@pytest.mark.parametrize("kind", ["mppi", "dial"])
def test_softmax_weights_lie_between_and_a_higher_temperature_shares_more(kind):
    cold, warm = (planned(kind, temperature=t, num_iterations=1).effective_sample_size for t in (0.3, 3.0))
    assert (cold > 1.01).all()
    assert (cold < warm).all()
    assert (warm < 6).all()
    even = planned(kind, flat, temperature=0.3).effective_sample_size
    assert torch.allclose(even, torch.full((2,), 6.0))


def test_a_row_without_a_finite_return_rests_on_no_elite(name):
    def half_broken(candidates):
        returns = bowl(0.7)(candidates)
        return torch.cat([returns[:1], math.nan * returns[1:]])

    plan = planned(name, half_broken, if_all_nan="nominal")
    assert plan.effective_sample_size[0] >= 1 - 1e-5
    assert plan.effective_sample_size[1] == 0
    assert not plan.elite_weights[1].any()
    assert plan.best_returns[0].isfinite().all()
    assert (plan.best_returns[1] == -math.inf).all()


def test_elites_that_were_not_scored_weigh_nothing(name):
    def two_only(candidates):
        return bowl(0.7)(candidates).index_fill(1, torch.arange(2, candidates.shape[1]), math.nan)

    plan = planned(name, two_only, num_iterations=1)
    assert (plan.elite_weights[:, 2:] == 0).all()
    assert torch.allclose(plan.elite_weights.sum(1), torch.ones(2))


@pytest.mark.parametrize("step", ["initial_plan", "warm_start"])
def test_a_plan_that_was_not_searched_for_tells_of_no_search(name, step):
    planner = quick(name)
    plan = planner.initial_plan(2) if step == "initial_plan" else planner.warm_start(planned(name))
    assert not plan.effective_sample_size.any()
    assert not plan.elite_weights.any()
    assert plan.best_returns.shape == (2, 0)
    assert (plan.num_iterations, plan.num_evaluations, plan.seconds) == (0, 0, 0.0)


def test_out_of_time_nothing_is_told_of_the_search_for_the_start(name):
    planner, previous = quick(name), planned(name)
    assert previous.elite_weights.any()
    plan = planner.plan(bowl(0.7), previous, generator=seeded(), deadline=-math.inf)
    assert plan.best_returns.shape == (2, 0)
    assert (plan.num_iterations, plan.num_evaluations) == (0, 0)
    assert (plan.best_return == -math.inf).all()
    assert not plan.elite_weights.any()
    assert not plan.effective_sample_size.any()


def test_cut_short_statistics_are_those_of_the_iterations_done(name, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(planners.sampling, "perf_counter", lambda: now[0])

    def slow(candidates):
        now[0] += 1.0
        return bowl(0.7)(candidates)

    planner, score = quick(name), CountingScorer(slow)
    plan = planner.plan(score, planner.initial_plan(2), generator=seeded(), deadline=103.5)
    assert plan.num_iterations == 3
    assert plan.best_returns.shape == (2, 3)
    assert plan.num_evaluations == sum(seen.shape[1] for seen in score.seen)
    assert torch.allclose(plan.elite_weights.sum(1), torch.ones(2))
    assert plan.seconds == pytest.approx(3.0)


def test_rows_taken_from_another_plan_bring_their_weights(name):
    plan, fresh = planned(name, batch_size=3), quick(name).initial_plan(3)
    mixed = plan.replace_rows(torch.tensor([False, True, False]), fresh)
    assert mixed.effective_sample_size[1] == 0
    assert torch.equal(mixed.elite_weights[[0, 2]], plan.elite_weights[[0, 2]])
    assert torch.equal(mixed.best_returns, plan.best_returns)
    assert mixed.num_evaluations == plan.num_evaluations


def test_plans_taken_apart_and_stacked_again_are_planned_on_from_as_before(name):
    planner = quick(name)
    plan = planned(name, batch_size=3)
    parts = [plan.rows(0, 1), plan.rows(1, 3)]
    assert [len(part.actions) for part in parts] == [1, 2]
    assert torch.equal(parts[1].best_returns, plan.best_returns[1:])
    stacked = Plan.stack([parts[1], parts[0]])
    assert stacked.num_evaluations == 0
    assert stacked.best_returns.shape == (3, 0)
    order = [1, 2, 0]
    for field in ("actions", "mean", "std", "elites", "elite_returns", "elite_weights"):
        assert torch.equal(getattr(stacked, field), getattr(plan, field)[order])
    assert torch.equal(planner.warm_start(stacked).mean, planner.warm_start(plan).mean[order])


def test_plans_of_different_planners_do_not_stack():
    plans = [build("cem", num_elites=count).initial_plan(1) for count in (3, 4)]
    with pytest.raises(PlannerError, match="take all from one planner"):
        Plan.stack(plans)


def test_effective_sample_sizes_of_known_weights():
    plan = build("cem", num_elites=4).initial_plan(3)
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1]])
    sizes = replace(plan, elite_weights=weights).effective_sample_size
    assert torch.allclose(sizes, torch.tensor([4.0, 2.0, 1 / 0.52]))


def test_statistics_do_not_keep_a_plan_from_being_planned_on(name):
    plan = solve(quick(name), bowl(0.7), batch_size=2, decisions=3)
    assert plan.best_returns.shape == (2, 5)
