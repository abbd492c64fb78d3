import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.training import losses


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_later_steps_count_less_and_padding_not_at_all():
    valid = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    expected = [[1, 0.5, 0.25], [1, 0.5, 0], [1, 0, 0]]
    assert losses.step_weights(valid, 0.5).tolist() == expected


def test_the_weighted_mean_by_hand():
    errors = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    assert losses.weighted_mean(errors, weights).item() == pytest.approx((1 + 1 + 3) / 2.5)


def test_heads_are_averaged():
    errors, weights = noise(3, 4, 5).abs(), torch.rand(4, 5)
    each = torch.stack([losses.weighted_mean(head, weights) for head in errors])
    torch.testing.assert_close(losses.weighted_mean(errors, weights), each.mean())


def test_errors_of_padding_change_nothing():
    valid = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    errors = noise(2, 6, 4)
    other = torch.where(valid, errors, 1e6)
    assert not torch.equal(errors, other)
    weights = losses.step_weights(valid, 0.7)
    assert torch.equal(losses.weighted_mean(errors, weights), losses.weighted_mean(other, weights))


def test_a_batch_of_padding_alone_has_no_loss():
    assert losses.weighted_mean(noise(2, 3), torch.zeros(2, 3)).item() == 0


@st.composite
def windows(draw, num_steps):
    """Rewards, ends and bootstrap values of random windows: whole, cut short, or terminated inside."""
    horizon, batch_size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    window = horizon + num_steps - 1
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reward = chance.normal(size=(batch_size, window)).astype(np.float32)
    terminated = np.zeros((batch_size, window), dtype=bool)
    valid = np.ones((batch_size, window), dtype=bool)
    for row in range(batch_size):
        length = draw(st.integers(1, window))
        valid[row, length:] = False
        reward[row, length:] = 0
        terminated[row, length - 1] = draw(st.booleans())
    next_q = chance.normal(size=(draw(st.integers(1, 3)), batch_size, horizon)).astype(np.float32)
    return reward, terminated, valid, next_q


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@given(data=st.data(), discount=st.floats(0.1, 1.0))
def test_td_targets_are_those_of_a_plain_loop(num_steps, data, discount):
    reward, terminated, valid, next_q = data.draw(windows(num_steps))
    found = losses.td_targets(*(torch.from_numpy(x) for x in (reward, terminated, valid, next_q)), discount)
    batch_size, horizon = next_q.shape[1:]
    for row in range(batch_size):
        for start in range(horizon):
            total, factor, ended = 0.0, 1.0, False
            for step in range(start, start + num_steps):
                if not valid[row, step]:
                    break
                total += factor * reward[row, step]
                factor *= discount
                if terminated[row, step]:
                    ended = True
                    break
            if not ended:
                total += factor * next_q[:, row, start].min()
            if valid[row, start]:  # a target of padding is never used
                assert found[row, start].item() == pytest.approx(total, rel=1e-4, abs=1e-4)


def test_td_targets_of_known_numbers():
    reward = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    terminated = torch.tensor([[False] * 3, [False, True, False], [False] * 3])
    valid = torch.tensor([[True] * 3, [True, True, False], [True, True, False]])
    next_q = torch.tensor([[[16.0, 32.0]] * 3, [[99.0, 99.0]] * 3])
    found = losses.td_targets(reward, terminated, valid, next_q, 0.5)
    # Whole; terminated at the second step; cut short after it, where one reward precedes the value.
    assert found.tolist() == [[1 + 1 + 4, 2 + 2 + 8], [1 + 1, 2], [1 + 1 + 4, 2 + 16]]


def test_consistency_is_a_squared_distance_whose_target_learns_nothing():
    predicted, target = noise(2, 3, 4).requires_grad_(), noise(2, 3, 4, seed=1).requires_grad_()
    errors = losses.consistency_errors(predicted, target)
    torch.testing.assert_close(errors, (predicted - target).square().mean(-1))
    errors.sum().backward()
    assert target.grad is None
    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, (2 * (predicted - target) / 4).detach())


def test_continuation_errors_are_a_cross_entropy():
    logits = torch.tensor([[2.0, 2.0]])
    errors = losses.continuation_errors(logits, torch.tensor([[False, True]]))
    probability = torch.sigmoid(logits[0, 0])
    torch.testing.assert_close(errors[0], -torch.stack([probability, 1 - probability]).log())


def test_a_policy_is_better_for_a_higher_value_and_a_lower_log_prob():
    q, log_prob = noise(2, 3, 4), noise(3, 4, seed=1)
    errors = losses.policy_errors(q, log_prob, 1.0, 0.1)
    assert (losses.policy_errors(q + 1, log_prob, 1.0, 0.1) < errors).all()
    assert (losses.policy_errors(q, log_prob - 1, 1.0, 0.1) < errors).all()
    scaled = losses.policy_errors(q, log_prob, 4.0, 0.1)
    torch.testing.assert_close(scaled, 0.1 * log_prob - (q[0] + q[1]) / 8)
