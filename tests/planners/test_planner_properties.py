"""Promises of every planner, for any settings, scorers and starts that a search can think of."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planners import BASES, NOISES, PLANNERS, Cubic, PlannerError, SamplingPlanner, Steps, ZeroHold

QUICK = settings(max_examples=25, deadline=None)
BOUNDS = st.tuples(st.floats(-3, 2), st.floats(0.125, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def planners(draw) -> SamplingPlanner:
    """Any planner with any basis and noise, of a size that takes no time."""
    name = draw(st.sampled_from(sorted(PLANNERS)))
    horizon = draw(st.integers(4, 9))
    low, high = draw(BOUNDS)
    num_candidates = draw(st.integers(6, 20))
    knots = draw(st.integers(4, horizon))
    basis = draw(st.sampled_from([Steps(), ZeroHold(num_knots=knots), Cubic(num_knots=knots)]))
    noise = NOISES[draw(st.sampled_from(sorted(NOISES)))]()
    return PLANNERS[name](
        action_dim=draw(st.integers(1, 3)),
        horizon=horizon,
        low=low,
        high=high,
        basis=basis,
        noise=noise,
        num_candidates=num_candidates,
        num_elites=draw(st.integers(1, num_candidates)),
        num_iterations=draw(st.integers(1, 3)),
        execute=draw(st.sampled_from(["mean", "best"])),
        last_action=draw(st.sampled_from(["zero", "repeat"])),
        if_all_nan="nominal",
    )


class Scorer:
    """A hill somewhere, of which some candidates give no number; notes all that it is asked."""

    def __init__(self, seed: int, share_nan: float) -> None:
        self.seed, self.share_nan = seed, share_nan
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, candidates: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        top = torch.randn(candidates.shape[-1], generator=generator)
        returns = -(candidates - top).square().sum((2, 3))
        # By what a candidate is, and not by its place: the same one is worth the same in every call.
        spread = (candidates.sum((2, 3)) * 12.9898).sin().abs()
        odd = torch.tensor([math.nan, math.inf, -math.inf])[(spread * 1000).long() % 3]
        returns = torch.where(spread < self.share_nan, odd, returns)
        self.seen.append((candidates.detach().clone(), returns.detach().clone()))
        return returns


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SEEDS = st.integers(0, 2**31)


@QUICK
@given(planner=planners(), seed=SEEDS, batch=st.integers(1, 3), share_nan=st.sampled_from([0.0, 0.3, 1.0]))
def test_all_that_is_asked_and_all_that_is_told_is_finite_and_inside_the_bounds(
    planner, seed, batch, share_nan
):
    score = Scorer(seed, share_nan)
    plan = planner.initial_plan(batch)
    for step in range(2):
        plan = planner.plan(score, plan, generator=chance(seed + step))
        for name in ("actions", "mean", "elites"):
            value = getattr(plan, name)
            assert value.isfinite().all(), name
            assert (value >= planner.low).all(), name
            assert (value <= planner.high).all(), name
        assert plan.actions.shape == (batch, planner.horizon, planner.action_dim)
        assert (plan.std > 0).all()
        assert not plan.elite_returns.isnan().any()
        plan = planner.warm_start(plan)
        assert plan.actions.isfinite().all()
    for candidates, _ in score.seen:
        assert candidates.isfinite().all()
        assert (candidates >= planner.low - 1e-6).all()
        assert (candidates <= planner.high + 1e-6).all()


@QUICK
@given(planner=planners(), seed=SEEDS, share_nan=st.sampled_from([0.0, 0.5]))
def test_the_best_that_was_seen_is_never_lost(planner, seed, share_nan):
    score = Scorer(seed, share_nan)
    plan = planner.plan(score, planner.initial_plan(1), generator=chance(seed))
    returns = torch.cat([returns[0] for _, returns in score.seen])
    finite = returns[returns.isfinite()]
    if len(finite):
        assert plan.best_return[0] == pytest.approx(float(finite.max()), abs=1e-5)
        rises = plan.best_returns[0].nan_to_num(neginf=-1e30).diff()
        assert (rises >= -1e-6).all()
    assert (plan.elite_returns[0].diff() <= 0)[plan.elite_returns[0][1:].isfinite()].all()


@QUICK
@given(planner=planners(), seed=SEEDS)
def test_the_same_chance_gives_the_same_plan_to_the_bit_and_changes_nothing_given(planner, seed):
    start = planner.initial_plan(2)
    kept = {name: getattr(start, name).clone() for name in ("mean", "std", "actions", "elites")}
    plans = [planner.plan(Scorer(seed, 0.1), start, generator=chance(seed)) for _ in range(2)]
    for name in ("actions", "mean", "std", "elites", "elite_returns", "best_returns"):
        assert torch.equal(getattr(plans[0], name), getattr(plans[1], name)), name
    assert all(torch.equal(getattr(start, name), value) for name, value in kept.items())


@QUICK
@given(planner=planners(), seed=SEEDS, at=st.integers(0, 2))
def test_rows_of_a_batch_know_nothing_of_each_other(planner, seed, at):
    """The same noise and returns give a row the same plan, whatever stands beside it."""
    noise = planner.draw_noise(3, chance(seed))

    def plan(rows: slice) -> Tensor:
        start = planner.initial_plan(len(range(3)[rows]))
        return planner.plan(Scorer(seed, 0.2), start, noise=noise[:, rows].clone()).actions

    assert torch.allclose(plan(slice(0, 3))[at], plan(slice(at, at + 1))[0], atol=1e-4)


@QUICK
@given(planner=planners(), seed=SEEDS)
def test_any_deadline_leaves_a_valid_plan(planner, seed):
    """One that has passed asks nothing and gives the start's actions, inside the bounds."""
    score, start = Scorer(seed, 0.0), planner.initial_plan(2)
    start = replace(start, actions=start.actions + 100)
    plan = planner.plan(score, start, generator=chance(seed), deadline=0.0)
    assert score.seen == []
    assert plan.num_iterations == 0
    assert (plan.actions == planner.high).all()


@QUICK
@given(planner=planners(), seed=SEEDS, scale=st.floats(-100, 100))
def test_proposals_of_any_numbers_are_tried_inside_the_bounds_or_not_at_all(planner, seed, scale):
    proposals = scale * torch.randn(1, 3, planner.horizon, planner.action_dim, generator=chance(seed))
    proposals[0, 0, 0, 0] = math.nan
    score = Scorer(seed, 0.0)
    plan = planner.plan(score, planner.initial_plan(1), proposals=proposals, generator=chance(seed))
    assert plan.actions.isfinite().all()
    candidates = torch.cat([candidates for candidates, _ in score.seen], 1)
    assert candidates.isfinite().all()
    if isinstance(planner.basis, Steps):
        inside = proposals[0, 1].clamp(planner.low, planner.high)
        assert ((candidates[0] - inside).abs().amax((1, 2)) < 1e-6).any()


@QUICK
@given(
    kind=st.sampled_from(sorted(BASES)),
    horizon=st.integers(4, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_basis_expresses_what_it_decodes_and_constants(kind, horizon, share, seed):
    knots = {} if kind == "steps" else {"num_knots": max(4, round(share * horizon))}
    planner = PLANNERS["cem"](action_dim=2, horizon=horizon, basis=BASES[kind](**knots))
    parameters = torch.rand(3, planner.num_parameters, 2, generator=chance(seed)) - 0.5
    once = planner.decode(parameters)
    assert torch.allclose(planner.decode(planner.encode(once)), once, atol=1e-4)
    constant = torch.full((1, horizon, 2), 0.25)
    atol = 0.02 if kind == "kernel" else 1e-3  # between its knots a kernel falls back towards 0
    assert torch.allclose(planner.decode(planner.encode(constant)), constant, atol=atol)


NO_COUNT = st.integers(max_value=0) | st.integers(min_value=1_000_001)


@QUICK
@given(st.sampled_from(["num_candidates", "num_iterations", "horizon", "num_elites"]), NO_COUNT)
def test_counts_that_are_none_are_refused_in_words(name, value):
    given_settings = {"action_dim": 1, "horizon": 3, name: value}
    with pytest.raises(PlannerError, match=name):
        PLANNERS["mppi"](**given_settings)
