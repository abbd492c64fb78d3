"""What sets single algorithms apart: CEM, iCEM, DIAL, predictive sampling."""

import math

import pytest
import torch
from planner_problems import CountingScorer, bowl, build, flat, is_valid, seeded, solve

from planners import PlannerError


def scored(planner, score, start=None, seed: int = 0) -> tuple[CountingScorer, torch.Tensor]:
    """What was scored, iteration by iteration, and the actions of the plan."""
    counting = CountingScorer(score)
    plan = planner.plan(counting, start or planner.initial_plan(1), generator=seeded(seed))
    return counting, plan.actions


# iCEM


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_candidates": 100, "num_elites": 10, "population_decay": 2.0}, [100, 50, 25, 20, 20]),
        ({"num_candidates": 100, "num_elites": 10, "population_decay": 1.25}, [100, 80, 64, 51, 41]),
        ({"num_candidates": 100, "num_elites": 30, "population_decay": 2.0}, [100, 60, 60, 60, 60]),
        ({"num_candidates": 100, "num_elites": 60, "population_decay": 2.0}, [100] * 5),
        ({"num_candidates": 100, "num_elites": 10, "population_decay": 1.0}, [100] * 5),
    ],
    ids=str,
)
def test_icem_scores_fewer_candidates_with_each_iteration_but_two_for_each_elite(settings, expected):
    planner = build("icem", num_iterations=5, **settings)
    counting, _ = scored(planner, bowl(0.4))
    assert [seen.shape[1] for seen in counting.seen] == expected


@pytest.mark.parametrize("population_decay", [0.9, 11.0, math.nan])
def test_icem_refuses_a_decay_that_cannot_work_by_name(population_decay):
    with pytest.raises(PlannerError, match=f"population_decay is {population_decay}"):
        build("icem", population_decay=population_decay)


def test_icem_scores_the_mean_in_the_first_and_the_last_iteration_alone():
    means = []

    class Watching(CountingScorer):
        def __call__(self, candidates):
            returns = super().__call__(candidates)
            means.append(candidates[:, 0])
            return returns

    planner = build("icem", num_iterations=4, num_candidates=64, num_elites=8, momentum=0.0)
    score = Watching(bowl(0.4))
    start = planner.initial_plan(1)
    planner.plan(score, start, generator=seeded())
    # The Gaussian's mean as it was before each iteration, from plans that end there.
    cut = [start.mean]
    for num_iterations in (1, 2, 3):
        shorter = build("cem", num_iterations=num_iterations, num_candidates=64, num_elites=8)
        cut.append(_fit(score.seen[:num_iterations], shorter.num_elites))
    is_mean = [torch.allclose(mean, first, atol=1e-6) for mean, first in zip(cut, means, strict=True)]
    assert is_mean == [True, False, False, True]


def _fit(seen, num_elites):
    """Mean of the best candidates of several iterations, on the bowl at 0.4."""
    every = torch.cat(seen, dim=1)
    best = bowl(0.4)(every).topk(num_elites, dim=1).indices[0]
    return every[:, best].mean(1)


def test_cem_scores_its_mean_in_every_iteration():
    planner = build("cem", num_iterations=4, num_candidates=64, num_elites=8)
    counting, _ = scored(planner, bowl(0.4))
    for iteration in range(1, 4):
        mean = _fit(counting.seen[:iteration], 8)
        assert torch.allclose(counting.seen[iteration][:, 0], mean, atol=1e-6)


@pytest.mark.parametrize("kind", ["cem", "icem", "gradient", "hybrid"])
def test_a_fresh_plan_has_no_elites_to_carry_and_draws_take_their_places(kind):
    counting, _ = scored(build(kind), bowl(0.4))
    first = counting.seen[0][0]
    assert not first[0].any()  # the plan at hand
    assert first[1:].flatten(1).unique(dim=0).shape[0] == len(first) - 1
    assert (first[1:].flatten(1) != 0).all()


@pytest.mark.parametrize("num_carried", [0, 1, 5, 500])
def test_so_many_elites_are_carried_as_are_asked_for_and_exist(num_carried):
    planner = build("cem", num_carried=num_carried, num_candidates=64, num_elites=8)
    warm = planner.warm_start(planner.plan(bowl(0.4), planner.initial_plan(1), generator=seeded()))
    counting, _ = scored(planner, bowl(0.4), warm, seed=1)
    num_found = sum(bool((counting.seen[0] == elite).flatten(2).all(2).any()) for elite in warm.elites[0])
    assert num_found == min(num_carried, 8)


# DIAL


def test_dials_schedule_is_the_papers():
    planner = build("dial", horizon=5, num_iterations=4, iteration_scale=0.7, horizon_scale=1.3)
    for iteration in range(4):
        for step in range(5):
            expected = math.exp(-iteration / (0.7 * 4) - (5 - 1 - step) / (1.3 * 5))
            assert planner.schedule(iteration)[step].item() == pytest.approx(expected, rel=1e-6)
    assert planner.schedule(0)[-1] == 1


def test_dial_draws_as_wide_as_its_schedule_says_in_every_iteration():
    planner = build(
        "dial", action_dim=1, horizon=5, num_iterations=3, num_candidates=8000, initial_std=0.8, low=-90.0,
        high=90.0,
    )  # fmt: skip
    counting, _ = scored(planner, flat)
    for iteration, seen in enumerate(counting.seen):
        expected = 0.8 * planner.schedule(iteration)
        assert torch.allclose(seen[0, :, :, 0].std(0), expected, rtol=0.04), iteration


def test_dial_never_draws_narrower_than_min_std():
    planner = build(
        "dial", action_dim=1, horizon=5, num_candidates=8000, num_iterations=3, initial_std=0.8, min_std=0.3,
        iteration_scale=0.05, low=-90.0, high=90.0,
    )  # fmt: skip
    counting, _ = scored(planner, flat)
    last = counting.seen[-1][0, :, :, 0].std(0)
    assert torch.allclose(last, torch.full((5,), 0.3), rtol=0.04)
    assert counting.seen[0][0, :, -1, 0].std().item() == pytest.approx(0.8, rel=0.04)


def test_dial_keeps_the_std_that_its_schedule_counts_from():
    planner = build("dial", initial_std=0.6)
    plan = planner.plan(bowl(0.4), planner.initial_plan(1), generator=seeded())
    assert (plan.std == 0.6).all()


@pytest.mark.parametrize("setting", ["temperature", "iteration_scale", "horizon_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_dial_refuses_a_scale_that_is_not_positive_by_name(setting, value):
    with pytest.raises(PlannerError, match=f"{setting} is {value}"):
        build("dial", **{setting: value})


# Predictive sampling


def test_predictive_samplings_draws_are_of_all_sizes_from_the_whole_std_to_the_smallest_scale():
    planner = build(
        "predictive_sampling", horizon=40, action_dim=50, num_candidates=9, num_elites=1, initial_std=0.5,
        smallest_scale=0.01, num_iterations=2,
    )  # fmt: skip
    score = CountingScorer(lambda candidates: -candidates.square().sum((2, 3)))  # the plan at hand stays best
    planner.plan(score, planner.initial_plan(1), generator=seeded())
    sizes = score.seen[1][0].flatten(1).std(1)  # of the second iteration, in which all are drawn
    wanted = 0.5 * 0.01 ** torch.linspace(0, 1, 9)
    sizes, _ = sizes.sort(descending=True)
    assert torch.allclose(sizes[1:], wanted[1:], rtol=0.06)
    assert 0.4 < sizes[0] <= 0.5 * 1.06  # the widest meets the bounds


def test_with_a_smallest_scale_of_one_all_draws_are_alike():
    planner = build("predictive_sampling", horizon=40, action_dim=50, num_candidates=9, num_elites=1,
                    smallest_scale=1.0, num_iterations=1)  # fmt: skip
    counting, _ = scored(planner, flat)
    assert torch.allclose(counting.seen[0][0, 1:].flatten(1).std(1), torch.full((8,), 0.3), rtol=0.06)


@pytest.mark.parametrize("smallest_scale", [0.0, 1.1, math.nan])
def test_predictive_sampling_refuses_a_smallest_scale_that_cannot_work_by_name(smallest_scale):
    with pytest.raises(PlannerError, match=f"smallest_scale is {smallest_scale}"):
        build("predictive_sampling", smallest_scale=smallest_scale)


def test_a_single_candidate_is_the_plan_at_hand(name):
    planner = build(name, num_candidates=1, num_elites=1, num_iterations=1)
    counting, actions = scored(planner, bowl(0.4))
    assert counting.seen[0].shape == (1, 1, 3, 2)
    assert not actions.any()
    assert is_valid(planner, solve(planner, bowl(0.4)))
