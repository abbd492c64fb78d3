"""Parameters of action sequences: what each basis can express, exactly."""

import pytest
import torch
from planner_problems import build, seeded
from torch import Tensor

from planners import BASES, NOISES, Basis, Cubic, Kernel, Linear, PlannerError, Steps, ZeroHold

HORIZONS = (5, 9, 10, 17, 30)
SMOOTH = ("linear", "cubic", "kernel")


def basis_for(kind: str, num_knots: int = 5) -> Basis:
    return Steps() if kind == "steps" else BASES[kind](num_knots)


def planner_with(basis: Basis, horizon: int, **settings):
    """A planner with bounds so wide that none of these tests meets them, unless told otherwise."""
    return build("cem", horizon=horizon, basis=basis, **({"low": -50.0, "high": 50.0} | settings))


def some_parameters(planner, *batch: int, scale: float = 1.0) -> Tensor:
    shape = (*batch, planner.num_parameters, planner.action_dim)
    return scale * (2 * torch.rand(shape, generator=seeded(), dtype=torch.float64) - 1)


def least_squares(matrix: Tensor, actions: Tensor) -> Tensor:
    return torch.linalg.lstsq(matrix.expand(*actions.shape[:-2], *matrix.shape), actions).solution


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("kind", sorted(BASES))
def test_a_basis_has_a_row_for_each_step_and_a_column_for_each_parameter(kind, horizon):
    matrix = basis_for(kind).matrix(horizon)
    assert matrix.shape == (horizon, horizon if kind == "steps" else 5)
    assert matrix.dtype == torch.float64
    assert torch.linalg.matrix_rank(matrix) == matrix.shape[1]  # no parameter is wasted
    assert planner_with(basis_for(kind), horizon).num_parameters == matrix.shape[1]


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("kind", ["steps", "zero", "linear", "cubic"])
def test_equal_parameters_make_a_constant_sequence(kind, horizon):
    rows = basis_for(kind).matrix(horizon).sum(1)
    assert torch.allclose(rows, torch.ones(horizon, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("kind", SMOOTH)
def test_a_step_on_a_knot_has_the_knots_value(kind, pieces):
    matrix = basis_for(kind).matrix(4 * pieces + 1)
    assert torch.allclose(matrix[::pieces], torch.eye(5, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("kind", SMOOTH)
def test_the_first_and_last_step_have_the_outer_knots_values(kind, horizon):
    matrix = basis_for(kind).matrix(horizon)
    assert matrix[0, 0].item() == pytest.approx(1, abs=1e-6)
    assert matrix[-1, -1].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("basis", [Linear(2), Linear(5), Cubic(2), Cubic(5)])
def test_straight_lines_are_exact(basis, horizon):
    knots = torch.linspace(-0.7, 0.9, basis.num_knots, dtype=torch.float64)
    line = torch.linspace(-0.7, 0.9, horizon, dtype=torch.float64)
    assert torch.allclose(basis.matrix(horizon) @ knots, line, atol=1e-12)


def test_cubic_pieces_away_from_the_ends_are_exact_for_parabolas():
    times = torch.linspace(0, 5, 41, dtype=torch.float64)
    knots = torch.arange(6, dtype=torch.float64)
    error = (Cubic(6).matrix(41) @ (knots - 2.2).square() - (times - 2.2).square()).abs()
    inside = (times >= 1) & (times <= 4)
    assert error[inside].max() < 1e-12
    assert error[~inside].max() > 1e-3  # there, slopes are one-sided


@pytest.mark.parametrize("num_knots", [2, 3, 5, 10])
def test_linear_steps_depend_on_two_knots_at_most_and_cubic_ones_on_four(num_knots):
    assert (Linear(num_knots).matrix(23) != 0).sum(1).max() <= 2
    assert (Cubic(num_knots).matrix(23) != 0).sum(1).max() <= 4


def test_a_knot_for_each_step_is_every_step_on_its_own():
    for kind in ("zero", "linear", "cubic", "kernel"):
        matrix = BASES[kind](7).matrix(7)
        assert torch.allclose(matrix, torch.eye(7, dtype=torch.float64), atol=1e-6), kind


@pytest.mark.parametrize(("horizon", "lengths"), [(10, [2] * 5), (12, [3, 2, 3, 2, 2]), (5, [1] * 5)])
def test_zero_hold_is_constant_in_pieces_of_nearly_equal_length(horizon, lengths):
    planner = planner_with(ZeroHold(5), horizon)
    values = some_parameters(planner)
    expected = values.repeat_interleave(torch.tensor(lengths), dim=0)
    assert torch.equal(planner.decode(values), expected)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("kind", sorted(BASES))
def test_encoding_what_was_decoded_gives_the_parameters_back(kind, horizon):
    planner = planner_with(basis_for(kind), horizon)
    parameters = some_parameters(planner, 2, 3)
    assert torch.allclose(planner.encode(planner.decode(parameters)), parameters, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(set(BASES) - {"steps"}))
def test_encoding_any_sequence_is_the_least_squares_fit(kind):
    planner = planner_with(basis_for(kind), 12)
    actions = torch.rand(3, 12, 2, generator=seeded(), dtype=torch.float64)
    best = least_squares(planner.basis.matrix(12), actions)
    assert torch.allclose(planner.encode(actions), best, atol=1e-6)


@pytest.mark.parametrize("kind", ["cubic", "kernel"])
def test_an_overshoot_between_knots_is_kept_inside_the_bounds(kind):
    planner = planner_with(basis_for(kind), 17, low=-0.4, high=0.3)
    parameters = torch.tensor([0.3, 0.3, -0.4, 0.3, 0.3])[:, None].expand(5, 2)
    low, high = (torch.tensor(bound).item() for bound in (-0.4, 0.3))
    unbounded = planner.basis.matrix(17).float() @ parameters
    assert unbounded.max() > high + 0.01
    actions = planner.decode(parameters)
    assert low <= actions.min()
    assert actions.max() <= high
    inside = (unbounded > low) & (unbounded < high)
    assert torch.allclose(actions[inside], unbounded[inside], atol=1e-6)


@pytest.mark.parametrize("last_action", ["zero", "repeat"])
@pytest.mark.parametrize("horizon", [9, 12])
@pytest.mark.parametrize("kind", sorted(BASES))
def test_a_shift_is_the_nearest_to_the_sequence_one_step_on(kind, horizon, last_action):
    planner = planner_with(basis_for(kind), horizon, last_action=last_action)
    parameters = some_parameters(planner, 2, 3)
    actions = planner.decode(parameters)
    last = actions[..., -1:, :] if last_action == "repeat" else torch.zeros_like(actions[..., -1:, :])
    moved = torch.cat([actions[..., 1:, :], last], dim=-2)
    shifted = planner.shift(parameters)
    if kind == "steps":
        assert torch.equal(shifted, moved)
    else:
        matrix = planner.basis.matrix(horizon)
        assert torch.allclose(shifted, least_squares(matrix, moved), atol=1e-6)


@pytest.mark.parametrize("kind", sorted(BASES))
def test_a_shift_stays_inside_the_bounds(kind):
    planner = planner_with(basis_for(kind), 17, low=0.1, high=0.3)
    low, high = (torch.tensor(bound, dtype=torch.float64).item() for bound in (0.1, 0.3))
    parameters = some_parameters(planner, 20).sign().clamp(low, high)
    for _ in range(5):
        parameters = planner.shift(parameters)
        assert low <= parameters.min()
        assert parameters.max() <= high


def test_a_steady_sequence_stays_when_its_last_action_is_repeated():
    for kind in ("steps", "zero", "linear", "cubic"):
        planner = planner_with(basis_for(kind), 14, last_action="repeat")
        steady = torch.full((planner.num_parameters, 2), 0.6, dtype=torch.float64)
        assert torch.allclose(planner.shift(steady), steady, atol=1e-9), kind


@pytest.mark.parametrize("num_knots", [0, 11])
@pytest.mark.parametrize("kind", ["zero", "linear", "cubic", "kernel"])
def test_too_few_or_too_many_knots_are_refused_by_name(kind, num_knots):
    with pytest.raises(PlannerError, match=rf"num_knots is {num_knots}; {BASES[kind].__name__}.* 10 steps"):
        build("mppi", horizon=10, basis=BASES[kind](num_knots))


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_lines_need_two_knots(kind):
    with pytest.raises(PlannerError, match=r"num_knots is 1.*at least 2"):
        build("mppi", horizon=10, basis=BASES[kind](1))


@pytest.mark.parametrize("width", [0.0, -1.0, 3.1, float("nan")])
def test_a_kernel_of_a_width_that_cannot_work_is_refused_by_name(width):
    with pytest.raises(PlannerError, match=f"width is {width}"):
        build("mppi", horizon=10, basis=Kernel(5, width))


def test_a_narrow_kernel_sags_between_knots_and_a_wide_one_does_not():
    sags = [1 - Kernel(5, width).matrix(41).sum(1)[10:31].min().item() for width in (0.2, 0.5, 1.0)]
    assert sags[0] > 0.5
    assert 0.02 < sags[1] < 0.5
    assert abs(sags[2]) < 0.01


@pytest.mark.parametrize("noise", sorted(NOISES))
@pytest.mark.parametrize("kind", sorted(BASES))
def test_the_std_of_actions_is_that_of_many_drawn_sequences(kind, noise):
    planner = planner_with(basis_for(kind), 12, noise=NOISES[noise]())
    count = planner.num_parameters * planner.action_dim
    std = torch.linspace(0.1, 1.0, count, dtype=torch.float64).view(1, -1, planner.action_dim)
    white = torch.randn(20000, *std.shape[1:], generator=seeded(), dtype=torch.float64)
    drawn = planner.decode(std * planner.shape_noise(white))
    assert torch.allclose(drawn.std(0), planner.action_std(std)[0], rtol=0.03)
