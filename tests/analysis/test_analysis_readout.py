import pytest
import torch

from worldmodel.analysis import fit_quadratic_readout, fit_readout


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_exact_linear_map_is_recovered():
    latent, weight, bias = noise(500, 6), noise(6, 3, seed=1), torch.tensor([1.0, -20.0, 0.5])
    readout = fit_readout(latent, latent @ weight + bias, ridge=1e-10)
    torch.testing.assert_close(readout.weight, weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(readout.bias, bias, rtol=1e-4, atol=1e-4)
    assert readout.r2 == pytest.approx(1, abs=1e-6)
    new = noise(2, 5, 6, seed=2)
    torch.testing.assert_close(readout(new), new @ weight + bias, rtol=1e-3, atol=1e-3)


def test_r2_is_the_share_of_the_variance_that_is_explained():
    latent = noise(20_000, 2)
    observation = latent[:, :1] + noise(20_000, 1, seed=1)  # half signal, half noise
    assert fit_readout(latent, observation).r2 == pytest.approx(0.5, abs=0.02)
    assert fit_readout(latent, noise(20_000, 1, seed=2)).r2 == pytest.approx(0, abs=0.01)


def test_more_ridge_gives_smaller_weights():
    latent = noise(100, 2)
    observation = 3 * latent[:, :1] + 7
    small, large = (fit_readout(latent, observation, ridge=ridge) for ridge in (1e-6, 10.0))
    assert large.weight.norm() < 0.2 * small.weight.norm()
    torch.testing.assert_close(large(latent.mean(0)), observation.mean(0))  # the mean is not shrunk


def test_latents_in_groups_that_sum_to_one_can_be_read():
    latent = noise(300, 2, 4).softmax(-1).flatten(1)  # x.T @ x is singular
    readout = fit_readout(latent, latent[:, :2] * 3 + 1, ridge=1e-8)
    assert readout.r2 > 0.999


def test_nothing_is_read_from_latents_that_do_not_vary():
    observation = noise(50, 3)
    readout = fit_readout(torch.full((50, 4), 0.25), observation)
    assert readout.r2 == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(readout(torch.full((4,), 0.25)), observation.mean(0), atol=1e-5, rtol=1e-5)


def test_a_quadratic_map_is_recovered_where_a_linear_one_is_not():
    latent = noise(800, 5)
    observation = torch.stack([latent[:, 0] * latent[:, 1], latent[:, 2].square() - latent[:, 3]], dim=1)
    quadratic = fit_quadratic_readout(latent[:400], observation[:400], ridge=1e-8)
    assert quadratic.linear.r2 > 0.999
    torch.testing.assert_close(quadratic(latent[400:]), observation[400:], rtol=1e-2, atol=1e-2)
    assert fit_readout(latent, observation).r2 < 0.4


def test_few_directions_are_products_of_what_varies_most():
    latent = noise(600, 4) * torch.tensor([5.0, 3.0, 0.1, 0.1])
    large, small = (latent[:, 0] * latent[:, 1])[:, None], (latent[:, 2] * latent[:, 3])[:, None]
    assert fit_quadratic_readout(latent, large, num_directions=2, ridge=1e-6).linear.r2 > 0.99
    assert fit_quadratic_readout(latent, small, num_directions=2, ridge=1e-6).linear.r2 < 0.2


def test_latents_that_do_not_vary_are_no_reason_to_fail():
    readout = fit_quadratic_readout(torch.ones(50, 3), noise(50, 2))
    assert readout(torch.ones(2, 3)).isfinite().all()
