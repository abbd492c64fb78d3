"""Settings, plans and errors."""

import math
import subprocess
import sys

import pytest
import torch
from planner_problems import bowl, build, seeded, solve

from planners import PLANNERS, Colored, PlannerError
from planners.elites import softmax_weights


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action_dim": 0}, "action_dim is 0"),
        ({"horizon": -1}, "horizon is -1"),
        ({"num_candidates": 0}, "num_candidates is 0"),
        ({"num_iterations": 0}, "num_iterations is 0"),
        ({"num_elites": 0}, "num_elites is 0"),
        ({"num_candidates": 99, "num_elites": 100}, "num_elites is 100, more than the 99"),
        ({"num_kept": 0}, "num_kept is 0"),
        ({"num_kept": 65}, "num_kept is 65"),
        ({"min_std": 0.0}, "min_std 0.0"),
        ({"initial_std": 0.01}, "initial_std 0.01"),
        ({"initial_std": 3.0}, "initial_std 3.0"),
        ({"max_std": math.inf}, "max_std inf"),
        ({"initial_std": math.nan}, "initial_std nan"),
        ({"low": 1.0, "high": 1.0}, "low is 1.0 and high is 1.0"),
        ({"high": math.inf}, "high is inf"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(name, settings, message):
    with pytest.raises(PlannerError, match=message):
        build(name, **settings)


def test_an_unknown_if_all_nan_is_refused(name):
    planner = build(name)
    object.__setattr__(planner, "if_all_nan", "ignore")  # past beartype, which only tests run with
    with pytest.raises(PlannerError, match="if_all_nan is 'ignore'"):
        planner.__post_init__()


def test_an_unknown_execute_is_refused(name):
    planner = build(name)
    object.__setattr__(planner, "execute", "ignore")  # past beartype, which only tests run with
    with pytest.raises(PlannerError, match="execute is 'ignore'"):
        planner.__post_init__()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_mppi_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(PlannerError, match="temperature is"):
        build("mppi", temperature=temperature)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_cem_refuses_a_momentum_outside_0_to_1(momentum):
    with pytest.raises(PlannerError, match="momentum is"):
        build("cem", momentum=momentum)


def test_a_batch_of_nothing_is_refused(name):
    with pytest.raises(PlannerError, match="batch_size is 0"):
        build(name).initial_plan(0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 3, 2), "proposals have shape"),
        ((2, 4, 5, 2), "proposals have shape"),
        ((2, 4, 3, 1), "proposals have shape"),
        ((2, 512, 3, 2), "512 proposals"),
    ],
)
def test_proposals_that_do_not_fit_are_refused(name, shape, message):
    planner = build(name)
    with pytest.raises(PlannerError, match=message):
        planner.plan(bowl(0.0), planner.initial_plan(2), torch.zeros(shape))


def test_proposals_may_take_every_place_but_the_nominal_plans(name):
    planner = build(name, num_candidates=8, num_elites=4)
    plan = planner.plan(bowl(0.0), planner.initial_plan(2), torch.zeros(2, 7, 3, 2), seeded())
    assert (plan.best_return == 0).all()


def test_a_start_from_another_planner_is_refused(name):
    with pytest.raises(PlannerError, match="begin with its own initial_plan"):
        build(name).plan(bowl(0.0), build(name, horizon=4).initial_plan(1))


def test_a_scorer_that_returns_the_wrong_shape_is_named(name):
    planner = build(name)
    with pytest.raises(
        PlannerError, match=rf"score returned shape \(2, 1\).*\(2, {planner.num_candidates}\)"
    ):
        planner.plan(lambda candidates: candidates[:, :1, 0, 0], planner.initial_plan(2))


def test_an_initial_plan_knows_nothing(name):
    planner = build(name)
    plan = planner.initial_plan(2)
    assert not plan.actions.any()
    assert torch.equal(plan.std, torch.full((2, 3, 2), planner.initial_std))
    assert (plan.best_return == -math.inf).all()
    assert (plan.num_iterations, plan.seconds) == (0, 0.0)


def test_a_warm_start_is_one_step_on_with_the_std_wide_again(name):
    planner = build(name)
    previous = solve(planner, bowl(0.5), batch_size=2)
    warm = planner.warm_start(previous)
    assert torch.equal(warm.mean[:, :-1], previous.mean[:, 1:])
    assert torch.equal(warm.actions[:, :-1], previous.actions[:, 1:])
    assert torch.equal(warm.elites[:, :, :-1], previous.elites[:, :, 1:])
    assert not warm.mean[:, -1].any()
    assert (warm.std == planner.initial_std).all()
    assert (warm.best_return == -math.inf).all()


def test_replaced_rows_come_from_the_other_plan_and_the_rest_stay(name):
    planner = build(name)
    plan, fresh = solve(planner, bowl(0.5), batch_size=3), planner.initial_plan(3)
    mixed = plan.replace_rows(torch.tensor([False, True, False]), fresh)
    for field in ("actions", "mean", "std", "elites", "elite_returns", "best_return"):
        assert torch.equal(getattr(mixed, field)[1], getattr(fresh, field)[1])
        assert torch.equal(getattr(mixed, field)[[0, 2]], getattr(plan, field)[[0, 2]])
    planner.plan(bowl(0.1), mixed, generator=seeded())


def test_rows_of_a_plan_of_another_shape_are_refused(name):
    plan, other = build(name).initial_plan(2), build(name, num_elites=3).initial_plan(2)
    with pytest.raises(PlannerError, match="cannot share rows"):
        plan.replace_rows(torch.tensor([True, False]), other)


def test_mppi_with_a_relative_temperature_does_not_depend_on_the_scale_of_returns():
    planner = build("mppi", num_iterations=3)
    target = bowl(torch.tensor(0.4, dtype=torch.float64))
    start = planner.initial_plan(2, dtype=torch.float64)
    plain = planner.plan(target, start, generator=seeded())
    for scale in (1e-30, 1e-3, 1e3, 1e30):
        scaled = planner.plan(lambda c, scale=scale: scale * target(c), start, generator=seeded())
        assert torch.allclose(plain.actions, scaled.actions, atol=1e-9)


def test_mppi_with_an_absolute_temperature_does_depend_on_it():
    planner = build("mppi", relative_temperature=False)
    start = planner.initial_plan(1)
    small, large = (
        planner.plan(lambda c, k=k: k * bowl(0.4)(c), start, generator=seeded()) for k in (1, 100)
    )
    assert not torch.allclose(small.actions, large.actions, atol=1e-3)


@pytest.mark.parametrize("relative", [True, False])
def test_mppi_weighs_elites_more_evenly_at_a_higher_temperature(relative):
    returns = torch.tensor([[5.0, 4.0, 1.0, -math.inf]])
    low, high = (softmax_weights(returns, temperature, relative=relative)[0] for temperature in (0.5, 5.0))
    assert low[0] > high[0] > high[1] > high[2] > low[2]
    assert low[3] == high[3] == 0
    assert low.sum().item() == pytest.approx(1)


def test_mppi_weights_are_the_softmax_of_returns_over_temperature():
    returns = torch.tensor([[3.0, 2.0, 0.0]])
    weights = softmax_weights(returns, 2.0, relative=False)
    assert torch.allclose(weights, torch.softmax(returns / 2.0, dim=1))
    weights = softmax_weights(returns, 2.0, relative=True)
    assert torch.allclose(weights, torch.softmax(returns / (2.0 * returns.std(correction=0)), dim=1))


def test_mppi_weighs_equal_elites_the_same():
    weights = softmax_weights(torch.full((1, 4), 7.0), 0.5, relative=True)
    assert torch.equal(weights, torch.full((1, 4), 0.25))


def test_the_initial_std_is_used(name):
    narrow, wide = (
        build(name, initial_std=std, min_std=1e-3, max_std=10.0, num_iterations=1) for std in (0.01, 10.0)
    )
    plans = [
        planner.plan(bowl(0.9), planner.initial_plan(1), generator=seeded()) for planner in (narrow, wide)
    ]
    assert plans[0].actions.abs().max() < 0.1
    assert plans[1].actions.abs().max() > 0.2


@pytest.mark.parametrize("adaptive", ["mppi", "cem"])
def test_the_std_narrows_where_elites_agree_and_stays_where_they_do_not(adaptive):
    planner = build(adaptive, num_iterations=3)

    def score(candidates):  # only the first of two actions matters
        return -(candidates[..., 0] - 0.2).square().sum(2)

    plan = planner.plan(score, planner.initial_plan(1), generator=seeded())
    assert 2 * plan.std[..., 0].max() < plan.std[..., 1].min()
    assert plan.std.min() >= planner.min_std


def test_importing_planners_imports_no_simulator_no_configuration_and_no_other_package():
    code = (
        "import sys, planners; print(*{'mujoco', 'gymnasium', 'dm_control', 'hydra', 'scipy', "
        "'worldmodel', 'envs'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_planners_are_listed_by_name():
    assert {"mppi", "cem", "predictive_sampling"} <= set(PLANNERS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 5.0}, "horizon is 5.0; it must be a whole number"),
        ({"num_candidates": 64.0}, "num_candidates is 64.0; it must be a whole number"),
        ({"basis": "cubic"}, "basis is 'cubic'; it must be a Basis, such as Cubic"),
        ({"noise": Colored}, "it must be a Noise, such as Colored"),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused_by_name(name, settings, message):
    planner = build(name)
    for key, value in settings.items():
        object.__setattr__(planner, key, value)  # past beartype, which only tests run with
    with pytest.raises(PlannerError, match=message):
        planner.__post_init__()


def test_a_scorer_that_returns_no_tensor_is_named(name):
    planner = build(name)
    with pytest.raises(PlannerError, match="score returned a float; it must return a tensor"):
        planner.plan(lambda candidates: 1.0, planner.initial_plan(1))
