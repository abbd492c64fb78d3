import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from worldmodel.model.policy import Policy


@pytest.fixture
def policy(trained_looking):
    return trained_looking(Policy(6, (16,), 3))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_log_prob_is_that_of_the_squashed_gaussian(policy):
    policy, latent = policy.double(), noise(50, 6).double()
    mean, log_std = policy(latent)
    action, log_prob = policy.sample(latent, 0.3 * noise(50, 3, seed=1).double())
    squashed = TransformedDistribution(
        Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)]
    )
    moderate = (action.abs() < 0.999).all(-1)
    assert moderate.sum() > 10
    torch.testing.assert_close(log_prob[moderate], squashed.log_prob(action)[moderate], rtol=1e-6, atol=1e-6)


def test_densities_integrate_to_one():
    """By the change of variables: the mass of (-1, 1) on a grid of noise."""
    policy = Policy(4, (8,), 1).double()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    action, log_prob = policy.sample(noise(1, 4).double().expand(4001, -1), grid)
    mass = torch.trapezoid(log_prob.exp(), action[:, 0])
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_noise_enters_as_mean_plus_noise_times_std(policy):
    latent, some = noise(5, 6), noise(5, 3, seed=1)
    mean, log_std = policy(latent)
    action, _ = policy.sample(latent, some)
    torch.testing.assert_close(action, torch.tanh(mean + some * log_std.exp()))
    assert torch.equal(policy.sample(latent, torch.zeros(5, 3))[0], policy.best_action(latent))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_extreme_inputs_stay_finite_and_in_bounds(policy, scale):
    latent = (scale * noise(20, 6)).requires_grad_()
    action, log_prob = policy.sample(latent, 6 * noise(20, 3, seed=1))
    assert (action.abs() <= 1).all()
    assert log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad(log_prob.sum() + action.sum(), latent)
    assert gradient.isfinite().all()


def test_the_std_is_bounded(policy):
    _, log_std = policy(1e6 * noise(100, 6))
    assert log_std.min() >= -10
    assert log_std.max() <= 2
    assert log_std.max() - log_std.min() > 6  # The bounds are reached, not only kept.


def test_an_untrained_policy_is_centred_and_wide():
    mean, log_std = Policy(6, (16,), 3)(noise(100, 6))
    assert mean.abs().max() < 0.5
    torch.testing.assert_close(log_std.mean(), torch.tensor(-4.0), atol=0.5, rtol=0)
