"""Correlated noise: its matrix against autocovariances that are computed in another way."""

import math

import pytest
import torch
from planner_problems import build, seeded
from torch import Tensor

from planners import NOISES, Colored, LowPass, Noise, PlannerError, RateLimited, White, white_noise

EVERY_NOISE = [
    White(), Colored(0.0), Colored(0.25), Colored(1.0), Colored(2.0), Colored(3.5), LowPass(0.05),
    LowPass(0.1), LowPass(0.5), RateLimited(0.05), RateLimited(0.3), RateLimited(math.sqrt(2)),
]  # fmt: skip


def covariance(noise: Noise, size: int) -> Tensor:
    factor = noise.matrix(size)
    return factor @ factor.T


def by_cosines(size: int, power) -> Tensor:
    """Autocovariance of a sum of cosines at random phases, two periods of `size` steps long."""
    lags = torch.arange(size, dtype=torch.float64)
    total = torch.zeros(size, dtype=torch.float64)
    for cycle in range(-size + 1, size + 1):
        frequency = max(abs(cycle), 1) / (2 * size)  # the mean has the power of the slowest wave
        total += power(frequency) * torch.cos(2 * math.pi * cycle / (2 * size) * lags)
    return total / total[0]


def average_power(noise: Noise, size: int, frequencies: Tensor) -> Tensor:
    """Expected periodogram: v* C v for a wave of each frequency, with a window against leakage."""
    steps = torch.arange(size, dtype=torch.float64)
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    waves = window * torch.exp(-2j * math.pi * frequencies[:, None] * steps)
    return (waves.conj() @ covariance(noise, size).to(waves.dtype) * waves).sum(1).real


@pytest.mark.parametrize("size", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("noise", EVERY_NOISE, ids=str)
def test_the_factor_is_lower_triangular_with_variance_one_for_each_parameter(noise, size):
    factor = noise.matrix(size)
    assert factor.shape == (size, size)
    assert factor.dtype == torch.float64
    assert torch.equal(factor, factor.tril())
    assert torch.allclose(factor.norm(dim=1), torch.ones(size, dtype=torch.float64), atol=1e-12)
    assert (factor.diagonal() > 0).all()


@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("noise", EVERY_NOISE, ids=str)
def test_the_covariance_depends_on_the_distance_in_time_alone(noise, size):
    wanted = covariance(noise, size)
    for lag in range(size):
        diagonal = wanted.diagonal(lag)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-10)


@pytest.mark.parametrize("size", [4, 17])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_coloured_noise_is_a_sum_of_waves_with_power_falling_by_the_exponent(size, exponent):
    wanted = by_cosines(size, lambda frequency: frequency**-exponent)
    assert torch.allclose(covariance(Colored(exponent), size)[0], wanted, atol=1e-10)


@pytest.mark.parametrize("cutoff", [0.01, 0.1, 0.5])
def test_low_pass_noise_is_a_sum_of_waves_with_the_power_of_a_butterworth_filter(cutoff):
    wanted = by_cosines(17, lambda frequency: 1 / (1 + (frequency / cutoff) ** 4))
    assert torch.allclose(covariance(LowPass(cutoff), 17)[0], wanted, atol=1e-10)


def test_an_exponent_of_zero_is_white():
    assert torch.allclose(Colored(0.0).matrix(20), torch.eye(20, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_spectrum_of_coloured_noise_falls_with_the_exponent_as_slope(exponent):
    frequencies = torch.logspace(math.log10(0.03), math.log10(0.3), 12, dtype=torch.float64)
    power = average_power(Colored(exponent), 400, frequencies)
    x, y = frequencies.log(), power.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-exponent, abs=0.03)


@pytest.mark.parametrize("cutoff", [0.05, 0.1, 0.2])
def test_low_pass_noise_has_half_the_power_at_its_cutoff(cutoff):
    slowest = cutoff / 10
    low, half, high = average_power(
        LowPass(cutoff), 600, torch.tensor([slowest, cutoff, 2 * cutoff], dtype=torch.float64)
    )
    assert (half / low).item() == pytest.approx(0.5, abs=0.02)
    assert (high / low).item() == pytest.approx(1 / 17, abs=0.01)


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0, math.sqrt(2)])
def test_rate_limited_noise_changes_by_its_rate_from_step_to_step(rate):
    wanted = covariance(RateLimited(rate), 12)
    steps = torch.arange(11)
    change = wanted[steps, steps] + wanted[steps + 1, steps + 1] - 2 * wanted[steps, steps + 1]
    assert torch.allclose(change.sqrt(), torch.full((11,), rate, dtype=torch.float64), atol=1e-9)


def test_rate_limited_noise_forgets_by_the_same_factor_with_each_step():
    wanted = covariance(RateLimited(0.5), 6)
    correlation = 1 - 0.5**2 / 2
    for i in range(6):
        for j in range(6):
            assert wanted[i, j].item() == pytest.approx(correlation ** abs(i - j), abs=1e-12)


@pytest.mark.parametrize("noise", [Colored(1.0), Colored(2.0), LowPass(0.1), RateLimited(0.3)], ids=str)
def test_the_last_parameter_is_not_tied_to_the_first(noise):
    """Noise with the horizon as its period would end where it began."""
    wanted = covariance(noise, 20)[0]
    assert wanted[-1] < 0.5 * wanted[1] < 0.5


@pytest.mark.parametrize("noise", [Colored(1.0), Colored(2.5), LowPass(0.1), RateLimited(0.3)], ids=str)
def test_shaped_noise_has_the_covariance_of_its_factor(noise):
    planner = build("mppi", horizon=6, noise=noise)
    shaped = planner.shape_noise(white_noise((2, 20000, 6, 2), seeded(), dtype=torch.float64))
    for row in range(2):
        for action in range(2):
            measured = shaped[row, :, :, action].T.cov(correction=0)
            assert torch.allclose(measured, covariance(noise, 6), atol=0.035)
    across = (shaped[..., 0] * shaped[..., 1]).mean((0, 1))
    assert across.abs().max() < 0.035  # actions stay independent of each other


def test_white_noise_is_left_untouched_to_the_bit():
    white = white_noise((3, 4, 3, 2), seeded())
    assert build("mppi").shape_noise(white) is white
    assert torch.equal(build("mppi", noise=White()).shape_noise(white), white)


def test_noise_follows_its_generator_and_dtype():
    first, same = (white_noise((2, 3), seeded(1), dtype=torch.float64) for _ in range(2))
    assert torch.equal(first, same)
    assert first.dtype == torch.float64
    assert not torch.equal(first, white_noise((2, 3), seeded(2), dtype=torch.float64))
    torch.manual_seed(9)
    default = white_noise((2, 3))
    torch.manual_seed(9)
    assert torch.equal(default, torch.randn(2, 3))


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (Colored(-0.1), "exponent is -0.1"),
        (Colored(6.5), "exponent is 6.5"),
        (Colored(math.nan), "exponent is nan"),
        (LowPass(0.0), "cutoff is 0.0"),
        (LowPass(0.6), "cutoff is 0.6"),
        (LowPass(math.nan), "cutoff is nan"),
        (RateLimited(0.0), "rate is 0.0"),
        (RateLimited(1.5), "rate is 1.5"),
        (RateLimited(math.nan), "rate is nan"),
        (RateLimited(1e-9), "rate is 1e-09"),
    ],
)
def test_a_noise_that_cannot_work_is_refused_when_the_planner_is_built(noise, message):
    with pytest.raises(PlannerError, match=message):
        build("cem", noise=noise)


@pytest.mark.parametrize("size", [30, 100, 400])
@pytest.mark.parametrize("noise", [Colored(6.0), LowPass(0.005), RateLimited(0.001)], ids=str)
def test_the_extreme_settings_that_are_allowed_work_for_long_horizons(noise, size):
    factor = noise.matrix(size)
    assert factor.isfinite().all()
    assert torch.allclose(factor.norm(dim=1), torch.ones(size, dtype=torch.float64), atol=1e-9)


def test_every_noise_is_listed_by_name():
    assert {type(noise) for noise in EVERY_NOISE} == set(NOISES.values())
