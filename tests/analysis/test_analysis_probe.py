"""Probes: a network adds to what is linear, and never at its expense."""

import numpy as np
import pytest
import torch

from worldmodel.analysis import probe as module
from worldmodel.analysis.probe import probe


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "_NUM_UPDATES", 300)


def r2(kind, read, *, num_episodes=20, noise=0.0):
    """Of what `read` makes of four features, on episodes that were not seen; noise is asked for, too."""
    chance = np.random.default_rng(0)

    def side():
        features = torch.from_numpy(chance.standard_normal((num_episodes * 50, 4))).float()
        target = np.stack([read(features.numpy()), chance.standard_normal(len(features))], axis=1)
        return features, target + noise * chance.standard_normal(target.shape)

    (train, wanted), (test, true) = side(), side()
    episode = np.repeat(np.arange(num_episodes), 50)
    fit, nothing = probe(kind, (train, test), (wanted, true), (episode, episode), seed=0)
    assert nothing.r2 < 0.05
    assert fit.low <= fit.r2 <= fit.high
    return fit.r2


def test_what_is_linear_is_read_by_both():
    assert r2("linear", lambda x: 2 * x[:, 0] - x[:, 1]) > 0.9999
    assert r2("mlp", lambda x: 2 * x[:, 0] - x[:, 1]) > 0.9999


def test_what_bends_is_read_by_a_network_alone():
    assert r2("linear", lambda x: np.abs(x[:, 0])) < 0.05
    assert r2("mlp", lambda x: np.abs(x[:, 0])) > 0.8


def test_where_there_is_nothing_to_read_none_is_learned_by_heart():
    assert -0.05 < r2("mlp", lambda x: 0 * x[:, 0], noise=1.0) < 0.05


def test_one_episode_leaves_none_to_judge_a_network_by():
    assert r2("mlp", lambda x: np.abs(x[:, 0]), num_episodes=1) == r2(
        "linear", lambda x: np.abs(x[:, 0]), num_episodes=1
    )
