import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from worldmodel.analysis import OpenLoop, Readout, fit_readout, open_loop
from worldmodel.data import Episode

IDENTITY = Readout(weight=torch.eye(2), bias=torch.zeros(2), r2=1.0)


def episode(num_steps, seed=0):
    """A point that actions push about; the reward is its first coordinate times the first action."""
    chance = np.random.default_rng(seed)
    action = chance.uniform(-1, 1, size=(num_steps, 2)).astype(np.float32)
    start = chance.normal(size=(1, 2)).astype(np.float32)
    state = np.concatenate([start, start + np.cumsum(action, axis=0, dtype=np.float32)])
    return Episode(
        observation={"state": state},
        action=action,
        reward=state[:-1, 0] * action[:, 0],
        terminated=False,
        truncated=True,
    )


@pytest.fixture
def exact(tiny_model, monkeypatch):
    """A model that knows the point's world: the latent is its state, `push` times the action is added."""

    def build(push=1.0):
        model = tiny_model(state_dim=2, latent_dim=2, group_dim=2)
        monkeypatch.setattr(model, "encode", lambda observation: observation["state"])
        monkeypatch.setattr(model, "step", lambda latent, action: latent + push * action)
        monkeypatch.setattr(model, "reward", lambda latent, action: latent[..., 0] * action[..., 0])
        return model

    return build


def test_a_model_that_is_right_makes_no_error(exact):
    found = open_loop(exact(), IDENTITY, [episode(12), episode(9, seed=1)], horizon=5, every=1)
    assert found.reward.shape == (8 + 5, 5)
    np.testing.assert_allclose(found.imagined_reward, found.reward, atol=1e-5)
    np.testing.assert_allclose(found.imagined_observation, found.observation, atol=1e-5)
    np.testing.assert_allclose(found.latent_error, 0, atol=1e-5)
    for row in found.table([1, 5]):
        assert row["no_motion_error"] > 0.1
        for name in ("reward_error", "return_error", "observation_error", "latent_error"):
            assert row[name] < 1e-5


def test_windows_start_where_they_are_asked_to(exact):
    recorded = episode(10)
    found = open_loop(exact(), IDENTITY, [recorded], horizon=4, every=3)
    assert np.array_equal(found.first_observation, recorded.observation["state"][[0, 3, 6]])
    assert np.array_equal(found.reward[1], recorded.reward[3:7])
    assert np.array_equal(found.observation[2], recorded.observation["state"][7:11])


def test_the_latent_error_is_relative_to_the_distance_of_random_latents(exact):
    """Without motion the error after k steps is the distance moved."""
    recorded = [episode(60, seed=seed) for seed in range(5)]
    found = open_loop(exact(push=0.0), IDENTITY, recorded, horizon=3, every=1)
    moved = np.linalg.norm(found.observation - found.first_observation[:, None], axis=-1).mean(0)
    states = np.concatenate([e.observation["state"] for e in recorded])
    chance = np.random.default_rng(0)
    pairs = chance.integers(len(states), size=(2, 100_000))
    spread = np.linalg.norm(states[pairs[0]] - states[pairs[1]], axis=-1).mean()
    np.testing.assert_allclose(found.latent_error, moved / spread, rtol=0.15)


def test_a_single_window_has_a_spread_too(exact):
    found = open_loop(exact(push=0.0), IDENTITY, [episode(8)], horizon=8, every=1)
    assert len(found.reward) == 1
    assert 0.1 < found.latent_error.mean() < 10


def made(**changes):
    arrays = {
        "reward": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "imagined_reward": np.array([[2.0, 0.0], [3.0, 5.0]]),
        "observation": np.array([[[1.0], [3.0]], [[-1.0], [-3.0]]]),
        "imagined_observation": np.array([[[2.0], [3.0]], [[-1.0], [-6.0]]]),
        "first_observation": np.array([[0.0], [0.0]]),
        "latent_error": np.array([0.25, 0.5]),
    }
    return OpenLoop(**{name: np.asarray(array, np.float32) for name, array in (arrays | changes).items()})


def test_the_table_by_hand():
    one, two = made().table([1, 2])
    std = np.sqrt((1 + 9 + 1 + 9) / 4)
    assert one == pytest.approx(
        {
            "steps": 1,
            "reward_error": (1 + 0) / 2,
            "return_error": (1 + 0) / 2,
            "observation_error": np.sqrt((1 + 0) / 2) / std,
            "no_motion_error": 1 / std,
            "latent_error": 0.25,
        }
    )
    assert two == pytest.approx(
        {
            "steps": 2,
            "reward_error": (2 + 1) / 2,
            "return_error": (1 + 1) / 2,  # 3 against 2, 7 against 8
            "observation_error": np.sqrt(9 / 2) / std,
            "no_motion_error": 3 / std,
            "latent_error": 0.5,
        }
    )


def test_the_table_ends_at_the_horizon():
    assert [row["steps"] for row in made().table([0, 1, 2, 3, 100])] == [1, 2]


def test_a_dimension_that_never_moves_does_not_drown_the_others():
    still = np.array([[[1.0, 5.0], [3.0, 5.0]], [[-1.0, 5.0], [-3.0, 5.0]]])
    changes = {"observation": still, "imagined_observation": still + 1e-5, "first_observation": still[:, 0]}
    assert made(**changes).table([2])[0]["observation_error"] < 1e-4


@pytest.mark.parametrize("episodes", [[episode(3), episode(4)], []])
def test_a_horizon_beyond_every_episode_is_refused(exact, episodes):
    longest = max((e.num_steps for e in episodes), default=0)
    with pytest.raises(ValueError, match=f"no episode has 5 steps, the longest has {longest}"):
        open_loop(exact(), IDENTITY, episodes, horizon=5, every=1)


def test_a_readout_of_a_real_models_latents_can_be_imagined(tiny_model):
    model, recorded = tiny_model(state_dim=2), episode(30)
    with torch.no_grad():
        state = torch.from_numpy(recorded.observation["state"].copy())
        readout = fit_readout(model.encode({"state": state}), state)
    found = open_loop(model, readout, [recorded], horizon=5, every=2)
    assert found.imagined_observation.shape == (13, 5, 2)
    assert found.imagined_observation.dtype == np.float32


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(TypeCheckError):
        made(latent_error=np.zeros(3))
