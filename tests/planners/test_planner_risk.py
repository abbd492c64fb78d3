"""One return from an ensemble's many."""

import math

import pytest
import torch
from planner_problems import bowl, build, flat, seeded, solve

from planners import PlannerError, Scorer, risk


def members(*returns: float) -> list[Scorer]:
    """Scorers that give every candidate the same return."""
    return [lambda candidates, value=value: flat(candidates) + value for value in returns]


def reduced(reduce, *returns: float) -> float:
    scores = risk.over_members(members(*returns), reduce)(torch.zeros(2, 3, 4, 1))
    assert scores.shape == (2, 3)
    assert (scores == scores[0, 0]).all()
    return scores[0, 0].item()


def test_the_mean_counts_all_members_the_same():
    assert reduced(risk.mean(), 1.0, -2.0, 7.0) == pytest.approx(2.0)


def test_the_worst_case_is_the_lowest_return():
    assert reduced(risk.worst_case(), 1.0, -2.0, 7.0) == -2.0


@pytest.mark.parametrize("num_stds", [0.0, 1.0, 2.5, -1.0])
def test_disagreement_is_taken_off_in_population_standard_deviations(num_stds):
    # Mean 3, deviations -2, 0, 0, 2.
    expected = 3 - num_stds * math.sqrt(2)
    assert reduced(risk.mean_minus_std(num_stds), 1.0, 3.0, 3.0, 5.0) == pytest.approx(expected)


def test_an_ensemble_of_one_is_its_member():
    for reduce in (risk.mean(), risk.worst_case(), risk.cvar(0.1), risk.cvar(1.0), risk.mean_minus_std(2.0)):
        assert reduced(reduce, -3.5) == -3.5


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (1.0, 2.5),  # all of 1, 2, 3, 4
        (0.75, 2.0),
        (0.5, 1.5),
        (0.625, (1 + 2 + 0.5 * 3) / 2.5),  # half of the third counts
        (0.3, (1 + 0.2 * 2) / 1.2),
        (0.25, 1.0),
        (0.01, 1.0),
    ],
)
def test_cvar_is_the_mean_of_the_worst_part_the_last_member_counting_in_part(fraction, expected):
    assert reduced(risk.cvar(fraction), 3.0, 1.0, 4.0, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize("fraction", [0.2, 0.37, 0.5, 0.81, 1.0])
def test_cvar_is_the_highest_of_the_bounds_that_define_it(fraction):
    # Rockafellar and Uryasev 2000: max over t of t - E[max(t - return, 0)] / fraction, reached at a return.
    returns = torch.randn(7, 2, 5, generator=seeded(), dtype=torch.float64)
    thresholds = returns[:, None]
    bounds = thresholds[:, 0] - (thresholds - returns[None]).clamp(min=0).mean(1) / fraction
    assert torch.allclose(risk.cvar(fraction)(returns), bounds.amax(0), atol=1e-12)


def test_cvar_looks_at_every_candidate_on_its_own():
    returns = torch.tensor([[[0.0, 9.0]], [[5.0, 1.0]], [[7.0, 4.0]]])
    assert torch.allclose(risk.cvar(2 / 3)(returns), torch.tensor([[2.5, 2.5]]))
    assert torch.allclose(risk.cvar(1 / 3)(returns), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1, math.nan])
def test_a_fraction_of_members_that_cannot_be_is_refused_by_name(fraction):
    with pytest.raises(PlannerError, match=f"fraction is {fraction}"):
        risk.cvar(fraction)


@pytest.mark.parametrize("num_stds", [math.inf, math.nan])
def test_a_number_of_stds_that_is_not_finite_is_refused_by_name(num_stds):
    with pytest.raises(PlannerError, match=f"num_stds is {num_stds}"):
        risk.mean_minus_std(num_stds)


def test_an_ensemble_of_none_is_refused():
    with pytest.raises(PlannerError, match="no scorers"):
        risk.over_members([], risk.mean())


REDUCTIONS = {
    "mean": risk.mean(),
    "worst": risk.worst_case(),
    "cvar": risk.cvar(0.5),
    "mean_minus_std": risk.mean_minus_std(1.0),
    "mean_plus_std": risk.mean_minus_std(-3.0),
}


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("reduction", sorted(REDUCTIONS))
def test_what_one_member_cannot_score_never_wins(reduction, poison):
    def broken(candidates):  # it would be the best by far, were it not for this member
        return flat(candidates).masked_fill(candidates[:, :, 0, 0] > 0, poison)

    def high(candidates):
        return 1000 * candidates[:, :, 0, 0]

    score = risk.over_members([high, broken, high], REDUCTIONS[reduction])
    returns = score(torch.tensor([0.9, -0.1, -0.5]).view(1, 3, 1, 1))
    assert returns[0, 0] == -math.inf
    assert returns[0, 1:].isfinite().all()
    plan = solve(build("cem", action_dim=1, horizon=1, execute="best"), score)
    assert plan.actions.item() <= 0


def test_a_gradient_reaches_candidates_through_every_reduction_beside_a_broken_member():
    for name, reduce in REDUCTIONS.items():
        candidates = torch.full((1, 2, 1, 1), 0.3).requires_grad_()

        def broken(candidates):
            return bowl(0.1)(candidates) + torch.tensor([0.0, math.nan])

        score = risk.over_members([bowl(0.5), broken, bowl(0.9)], reduce)
        score(candidates)[:, 0].sum().backward()
        assert candidates.grad is not None
        gradient = candidates.grad.flatten()
        assert gradient[0] != 0, name
        assert gradient.isfinite().all(), name


def safe_or_risky(friction: float) -> Scorer:
    """At -0.5 waits a sure 1; at 0.5 waits 2.5, but in one of four members a fall of -3."""

    def score(candidates):
        distance_safe = (candidates + 0.5).square().sum((2, 3))
        distance_risky = (candidates - 0.5).square().sum((2, 3))
        return torch.exp(-distance_safe / 0.1) + friction * torch.exp(-distance_risky / 0.1)

    return score


@pytest.mark.parametrize(
    ("reduction", "target"), [("mean", 0.5), ("worst", -0.5), ("cvar", -0.5), ("mean_minus_std", -0.5)]
)
def test_averse_to_risk_a_planner_takes_the_safe_way_where_the_mean_takes_the_risky_one(
    name, reduction, target
):
    ensemble = [safe_or_risky(friction) for friction in (2.5, 2.5, -3.0, 2.5)]
    score = risk.over_members(ensemble, REDUCTIONS[reduction])
    planner = build(name, action_dim=1, horizon=1, initial_std=1.0)
    plan = solve(planner, score)
    assert plan.actions.item() == pytest.approx(target, abs=0.15)


def test_every_row_of_a_batch_is_reduced_on_its_own():
    targets = torch.tensor([-0.5, 0.0, 0.5])[:, None, None, None]
    score = risk.over_members([bowl(targets - 0.2), bowl(targets + 0.2)], risk.mean())
    plan = solve(build("cem"), score, batch_size=3)
    assert (plan.actions - targets[:, 0]).abs().max() < 0.1
