"""What is out of the ordinary: the known error, and thresholds that keep their promise."""

import numpy as np
import pytest

from worldmodel.analysis import level, num_episodes_for, surprise, thresholds, whitening, whitenings_of_others


def episode(*values, name="surprise"):
    return [{name: float(value)} for value in values]


def test_surprise_is_the_squared_distance():
    assert surprise(np.array([[0.0, 2.0], [3.0, 4.0]])).tolist() == [4.0, 25.0]


def test_ordinary_errors_have_the_same_spread_in_every_direction_once_whitened():
    chance = np.random.default_rng(0)
    mixing = np.array([[2.0, 0.5, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.5]])
    episodes = [chance.normal(size=(50, 3)) @ mixing for _ in range(200)]
    units = whitening(episodes)
    spread = np.cov(np.concatenate(episodes) @ units, rowvar=False)
    np.testing.assert_allclose(np.diag(spread), 1.0, atol=0.25)
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 0.1
    rare, common = np.linalg.svd(mixing)[2][[2, 0]]  # directions, all as long
    assert surprise(rare, units) > 5 * surprise(common, units)


def test_an_episode_is_judged_in_units_of_the_others():
    episodes = [np.full((4, 2), scale) for scale in (1.0, 2.0, 3.0)]
    first, second, third = whitenings_of_others(episodes)
    np.testing.assert_allclose(first, whitening(episodes[1:]))
    np.testing.assert_allclose(third, whitening(episodes[:2]))
    assert not np.allclose(second, whitening(episodes))
    (own,) = whitenings_of_others(episodes[:1])
    np.testing.assert_array_equal(own, whitening(episodes[:1]))


def test_errors_of_nothing_are_no_trouble():
    """A model that foresees all to the bit, or a dimension that is always the same."""
    units = whitening([np.zeros((5, 3)), np.zeros((5, 3))])
    assert np.isfinite(units).all()
    assert surprise(np.ones(3), units) > 1e6


def test_a_threshold_is_a_quantile_of_the_highest_of_each_episode():
    episodes = [episode(0.1, top, 0.2) for top in (3, 1, 9, 2, 5, 4, 6, 8, 7)]
    assert thresholds(episodes, 0.1) == {"surprise": 9.0}
    assert thresholds(episodes, 0.2) == {"surprise": 8.0}
    assert thresholds(episodes, 0.5) == {"surprise": 5.0}


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1, 0.05])
def test_as_many_episodes_as_a_rate_needs_and_no_fewer(rate):
    enough = [episode(1.0)] * num_episodes_for(rate)
    assert thresholds(enough, rate) == {"surprise": 1.0}
    with pytest.raises(ValueError, match=f"needs {len(enough)} episodes, there are {len(enough) - 1}"):
        thresholds(enough[1:], rate)


def test_no_more_ordinary_episodes_alarm_than_were_asked_for():
    """Heavy tails, as prediction errors have: the promise holds for any distribution."""
    chance, rate = np.random.default_rng(0), 0.1
    num_alarms = 0
    for _ in range(2000):
        *known, new = (episode(*chance.pareto(1.5, size=5)) for _ in range(num_episodes_for(rate) + 1))
        num_alarms += max(level(signals, thresholds(known, rate)) for signals in new) > 1
    assert num_alarms / 2000 == pytest.approx(rate, abs=0.02)


def test_the_level_is_that_of_the_signal_nearest_to_its_alarm():
    limits = {"surprise": 2.0, "disagreement": 0.5}
    assert level({"surprise": 1.0, "disagreement": 0.4}, limits) == pytest.approx(0.8)
    assert level({"surprise": 3.0}, limits) == 1.5
    assert level({"unknown": 3.0}, limits) == level({}, limits) == 0.0
    assert level({"surprise": float("nan"), "disagreement": 0.1}, limits) == float("inf")


def test_a_signal_that_is_there_in_some_episodes_counts_in_these():
    episodes = [episode(1.0), [{"surprise": 2.0, "lasting_surprise": 0.5}]]
    assert thresholds(episodes, 0.4) == {"surprise": 2.0, "lasting_surprise": 0.5}
