import numpy as np
import pytest
import torch

from worldmodel.model.encoder import ObservationNormalizer, latent_normalization


def rows(num_rows, seed=0):
    """Dimensions of very different scale and offset; the last never moves."""
    chance = np.random.default_rng(seed)
    scale, offset = np.array([1.0, 1e-3, 500.0, 0.0]), np.array([0.0, 2.0, 1e4, 3.7])
    return torch.from_numpy((chance.normal(size=(num_rows, 4)) * scale + offset).astype(np.float32))


@pytest.fixture
def fitted():
    normalizer = ObservationNormalizer(4)
    normalizer.update(rows(1000))
    return normalizer


def test_chunks_of_any_size_give_the_statistics_of_all():
    data = rows(2000)
    normalizer = ObservationNormalizer(4)
    for chunk in data.split([1, 2, 700, 1, 96, 1000, 200]):
        normalizer.update(chunk)
    exact = data.double().numpy()
    assert normalizer.count.item() == 2000
    np.testing.assert_allclose(normalizer.mean.numpy(), exact.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(normalizer.std[:3].numpy(), exact.std(0)[:3], rtol=1e-5)


def test_normalized_data_have_mean_zero_and_std_one(fitted):
    normalized = fitted(rows(1000))[:, :3]
    torch.testing.assert_close(normalized.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(normalized.std(0), torch.ones(3), atol=2e-3, rtol=0)


def test_a_dimension_that_never_moved_is_shifted_but_not_scaled(fitted):
    assert fitted.std[3].item() == 1
    shifted = fitted(torch.tensor([[0.0, 2.0, 1e4, 4.2]]))
    torch.testing.assert_close(shifted[0, 3], torch.tensor(0.5), atol=1e-5, rtol=0)


def test_far_observations_are_clipped(fitted):
    far = torch.tensor([[1e9, -1e9, 1e9, 50.0], [-1e9, 1e9, -1e9, -50.0]])
    assert fitted(far).tolist() == [[10, -10, 10, 10], [-10, 10, -10, -10]]


def test_before_any_data_it_changes_nothing():
    x = torch.tensor([[1.0, -2.0, 3.0, 0.0]])
    assert torch.equal(ObservationNormalizer(4)(x), x)


def test_statistics_travel_with_the_weights(fitted):
    other = ObservationNormalizer(4)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(rows(10, seed=1)), fitted(rows(10, seed=1)))
    for normalizer in (fitted, other):  # and go on from there
        normalizer.update(rows(50, seed=2))
    assert torch.equal(other.std, fitted.std)
    assert other.count.item() == 1050


def test_a_layernorm_latent_has_mean_zero_and_std_one():
    latent = latent_normalization("layernorm", 32, 8)(3 * torch.randn(5, 32) + 1)
    torch.testing.assert_close(latent.mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(latent.std(-1, unbiased=False), torch.ones(5), atol=1e-3, rtol=0)


def test_an_angle_one_turn_further_is_the_same(tiny_model):
    model = tiny_model(angles=(1,))
    state = torch.randn(20, 3)
    model.encoder.update_statistics({"state": state})
    turned = state + torch.tensor([0.0, 2 * torch.pi, 0.0])
    torch.testing.assert_close(model.encode({"state": turned}), model.encode({"state": state}))
    other = state + torch.tensor([0.0, 1.0, 0.0])
    assert not torch.allclose(model.encode({"state": other}), model.encode({"state": state}), atol=1e-3)


def test_features_are_the_other_entries_then_sines_then_cosines(tiny_model):
    state = torch.tensor([[1.0, 2.0, 3.0]])
    expected = torch.tensor([2.0, 1.0, 3.0, 1.0, 3.0])
    features = tiny_model(angles=(0, 2)).encoder.features(state)
    expected[1:3], expected[3:] = expected[1:3].sin(), expected[3:].cos()
    torch.testing.assert_close(features, expected[None])
    assert tiny_model().encoder.features(state) is state
