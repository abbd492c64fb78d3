import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.model.heads import DiscreteRegression, symexp, symlog

finite = st.floats(-20_000, 20_000, width=32)


@given(st.lists(finite, min_size=1, max_size=20))
def test_symexp_undoes_symlog(values):
    x = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-9, atol=1e-12)


def test_symlog_of_known_numbers():
    e = torch.tensor(torch.e)
    torch.testing.assert_close(symlog(torch.stack([e - 1, 1 - e])), torch.tensor([1.0, -1.0]))
    assert symlog(torch.zeros(1)).item() == 0


@given(st.lists(finite, min_size=1, max_size=20), st.integers(3, 201))
def test_two_hot_stands_for_its_scalar(values, num_bins):
    scalar = DiscreteRegression(num_bins).double()
    x = torch.tensor(values, dtype=torch.float64)
    encoded = scalar.two_hot(x)
    assert ((encoded > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(encoded.sum(-1), torch.ones_like(x))
    torch.testing.assert_close(scalar.mean(encoded.log()), x, rtol=1e-5, atol=1e-5)


def test_two_hot_shares_a_scalar_among_its_neighbours():
    scalar = DiscreteRegression(num_bins=5, low=-2.0, high=2.0)
    quarter = 0.25 * (torch.e - 1)  # of the way from bin 0 to bin e - 1
    encoded = scalar.two_hot(torch.tensor([quarter, *symexp(torch.tensor([-2.0, 2.0]))]))
    expected = [[0, 0, 0.75, 0.25, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    torch.testing.assert_close(encoded, torch.tensor(expected))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_scalar_beyond_the_bins_is_clipped_to_the_last(sign):
    scalar = DiscreteRegression()
    encoded = scalar.two_hot(sign * torch.tensor([1e6, 1e30, float("inf")]))
    last = 100 if sign > 0 else 0
    assert (encoded[:, last] == 1).all()
    assert (encoded.sum(-1) == 1).all()


def test_the_mean_lies_between_numbers_not_between_their_logarithms():
    scalar = DiscreteRegression()
    mixed = scalar.two_hot(torch.tensor([0.0, 100.0])).mean(0)
    torch.testing.assert_close(scalar.mean(mixed.log()), torch.tensor(50.0))


def test_the_mean_of_even_logits_is_zero():
    mean = DiscreteRegression().mean(torch.zeros(4, 101))
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-4, rtol=0)


def test_cross_entropy_is_lowest_at_its_target():
    scalar = DiscreteRegression(num_bins=11)
    target = scalar.two_hot(torch.tensor([3.7]))
    at_target = target.clamp(min=1e-12).log().requires_grad_()
    error = scalar.cross_entropy(at_target, target)
    (gradient,) = torch.autograd.grad(error.sum(), at_target)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        elsewhere = at_target.detach() + torch.randn(1, 11, generator=generator)
        assert scalar.cross_entropy(elsewhere, target).item() > error.item()


def test_a_target_serves_every_head():
    scalar = DiscreteRegression(num_bins=7)
    logits = torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    target = scalar.two_hot(torch.linspace(-50, 50, 20).reshape(4, 5))
    errors = scalar.cross_entropy(logits, target)
    assert errors.shape == (3, 4, 5)
    for head in range(3):
        torch.testing.assert_close(errors[head], scalar.cross_entropy(logits[head], target))
