"""Planners that climb along gradients, alone or after CEM."""

import math
from itertools import pairwise

import pytest
import torch
from planner_problems import CountingScorer, bowl, build, seeded, solve

from planners import CEM, PlannerError


def scored(planner, score, start=None, seed: int = 0) -> tuple[CountingScorer, torch.Tensor]:
    """What was scored, iteration by iteration, and the actions of the plan."""
    counting = CountingScorer(score)
    plan = planner.plan(counting, start or planner.initial_plan(1), generator=seeded(seed))
    return counting, plan.actions


def narrow_valley(candidates):
    """A quadratic that is a hundred times steeper along some directions than along others."""
    offsets = candidates - 0.3
    steep = (offsets[:, :, 1:] - offsets[:, :, :-1]).square().sum((2, 3))
    return -(10 * steep + 0.1 * offsets.square().sum((2, 3)))


# Gradient


@pytest.mark.parametrize("score", [bowl(0.37), narrow_valley], ids=["bowl", "valley"])
def test_by_gradient_a_quadratics_optimum_is_met_far_closer_than_by_sampling(score):
    settings = {"horizon": 8, "action_dim": 2}
    climbing = build("gradient", num_candidates=8, num_elites=4, num_iterations=60, **settings)
    sampling = build("cem", num_candidates=80, num_elites=10, num_iterations=6, **settings)
    by_gradient = climbing.plan(score, climbing.initial_plan(1), generator=seeded())
    by_sampling = sampling.plan(score, sampling.initial_plan(1), generator=seeded())
    assert by_gradient.num_evaluations == by_sampling.num_evaluations == 480
    assert by_gradient.best_return.item() > 0.02 * by_sampling.best_return.item()


@pytest.mark.parametrize("kind", ["gradient", "hybrid"])
def test_climbing_stops_at_the_bounds_exactly(kind):
    planner = build(kind, low=-0.5, high=0.25)
    counting, actions = scored(planner, bowl(torch.tensor([5.0, -5.0])))
    assert torch.equal(actions, torch.tensor([0.25, -0.5]).expand(1, 3, 2))
    assert max(seen.max().item() for seen in counting.seen) == 0.25
    assert min(seen.min().item() for seen in counting.seen) == -0.5


def test_a_gradient_step_moves_by_the_learning_rate_whatever_the_scale_of_returns():
    for scale in (1e-3, 1.0, 1e4):
        planner = build("gradient", learning_rate=0.03, num_iterations=2)
        counting, _ = scored(planner, lambda c, scale=scale: scale * c.sum((2, 3)))
        moved = counting.seen[1] - counting.seen[0]
        free = counting.seen[1] < 1
        assert torch.allclose(moved[free], torch.full_like(moved[free], 0.03), rtol=1e-3)


def test_gradient_steps_shrink_towards_the_end():
    planner = build("gradient", learning_rate=0.02, num_iterations=5, low=-50.0, high=50.0)
    counting, _ = scored(planner, lambda candidates: candidates.sum((2, 3)))
    moved = [(after - before).mean().item() for before, after in pairwise(counting.seen)]
    assert moved == pytest.approx([0.02, 0.016, 0.012, 0.008], rel=1e-3)


@pytest.mark.parametrize("kind", ["gradient", "hybrid"])
def test_a_scorer_without_a_gradient_is_told_with_the_way_out(kind):
    planner = build(kind)
    with pytest.raises(PlannerError, match=r"have none.*MPPI or CEM"):
        planner.plan(lambda c: bowl(0.4)(c.detach()), planner.initial_plan(1), generator=seeded())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["gradient", "hybrid"])
def test_gradients_are_taken_also_where_the_caller_turned_them_off(kind, mode):
    planner = build(kind)
    plain = planner.plan(bowl(0.4), planner.initial_plan(1), generator=seeded())
    with mode():
        off = planner.plan(bowl(0.4), planner.initial_plan(1), generator=seeded())
        off = planner.plan(bowl(0.4), planner.warm_start(off), generator=seeded())
        assert not torch.is_grad_enabled()
    assert (off.actions - 0.4).abs().max() < 0.05
    assert not plain.actions.requires_grad
    assert not off.actions.requires_grad


def test_a_scorer_that_learns_gets_no_gradient_and_the_plan_keeps_no_graph(name):
    target = torch.tensor(0.4, requires_grad=True)
    plan = solve(build(name), lambda candidates: bowl(target)(candidates), decisions=2)
    assert target.grad is None
    fields = ("actions", "mean", "std", "elites", "elite_returns", "elite_weights", "best_returns")
    assert [field for field in fields if getattr(plan, field).requires_grad] == []


@pytest.mark.parametrize("kind", ["gradient", "hybrid"])
def test_gradients_of_nan_stay_with_the_candidate_they_are_of(kind):
    def score(candidates):
        returns, is_left = bowl(0.4)(candidates), candidates[:, :, 0, 0] < 0
        if returns.requires_grad:
            returns.register_hook(lambda gradient: gradient.masked_fill(is_left, math.nan))
        return returns

    planner = build(kind)
    counting, actions = scored(planner, score)
    assert all(seen.isfinite().all() for seen in counting.seen)
    assert (actions - 0.4).abs().max() < 0.05


def test_gradient_ends_at_its_best_point_even_if_the_last_step_made_it_worse():
    planner = build("gradient", learning_rate=0.9, num_iterations=3)
    counting, actions = scored(planner, bowl(0.4))
    best = torch.stack([counting.score(seen).max() for seen in counting.seen]).max()
    assert bowl(0.4)(actions[:, None]).item() == best.item()


@pytest.mark.parametrize("learning_rate", [0.0, -0.1, math.inf, math.nan])
def test_a_learning_rate_that_cannot_work_is_refused_by_name(learning_rate):
    with pytest.raises(PlannerError, match=f"learning_rate is {learning_rate}"):
        build("gradient", learning_rate=learning_rate)


# Hybrid


@pytest.mark.parametrize(("total", "climbing", "expected"), [(6, 4, 2), (6, 9, 1), (1, 4, 1)])
def test_hybrid_samples_first_and_then_climbs_with_the_refined_few(total, climbing, expected):
    planner = build("hybrid", num_iterations=total, num_gradient_iterations=climbing, num_refined=5)
    counting, _ = scored(planner, bowl(0.4))
    assert [seen.shape[1] for seen in counting.seen] == [64] * expected + [5] * (total - expected)


def test_hybrid_begins_as_cem_does_and_climbs_from_its_elites():
    settings = {"num_candidates": 64, "num_elites": 16, "num_carried": 4}
    hybrid = build("hybrid", num_iterations=5, num_gradient_iterations=2, num_refined=6, **settings)
    # Of as many iterations: the noise of all is drawn at once.
    alone = CEM(action_dim=2, horizon=3, num_iterations=5, **settings)
    (both, _), (sampled, _) = scored(hybrid, bowl(0.4)), scored(alone, bowl(0.4))
    for iteration in range(3):
        assert torch.equal(both.seen[iteration], sampled.seen[iteration])
    every = torch.cat(both.seen[:3], dim=1)
    best = bowl(0.4)(every).topk(6, dim=1).indices[0]
    assert torch.equal(both.seen[3], every[:, best])


@pytest.mark.parametrize("score", [bowl(0.37), narrow_valley], ids=["bowl", "valley"])
def test_hybrid_beats_its_sampling_part_alone_at_equal_evaluations(score):
    hybrid = build("hybrid", horizon=8, num_refined=8)  # 3 * 64 + 9 * 8 = 264
    sampling = build("cem", horizon=8, num_candidates=66, num_elites=16, num_iterations=4, num_carried=4)
    plans = [p.plan(score, p.initial_plan(4), generator=seeded()) for p in (hybrid, sampling)]
    assert plans[0].num_evaluations == plans[1].num_evaluations == 264
    assert (plans[0].best_return > plans[1].best_return).all()


@pytest.mark.parametrize("setting", ["num_gradient_iterations", "num_refined"])
def test_hybrid_refuses_to_climb_not_at_all_by_name(setting):
    with pytest.raises(PlannerError, match=f"{setting} is 0"):
        build("hybrid", **{setting: 0})
