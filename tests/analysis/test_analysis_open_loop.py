import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from worldmodel.analysis import OpenLoop, compare_states, fit_readout, latents_of, open_loop
from worldmodel.data import Episode
from worldmodel.model import LatentModel, WorldModelSize


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
        monkeypatch.setattr(model, "embed", lambda observation: observation["state"])
        monkeypatch.setattr(model, "step", lambda latent, action: latent + push * action)
        monkeypatch.setattr(model, "reward", lambda latent, action: latent[..., 0] * action[..., 0])
        return model

    return build


def without_rewards(**sizes):
    """A fresh model without rewards, of the point."""
    torch.manual_seed(0)
    fixed = {"state_dim": 2, "action_dim": 2, "latent_dim": 4, "hidden_dim": 8, "encoder_dim": 8}
    return LatentModel(WorldModelSize(**(fixed | {"latent_norm": "none", "predicts_return": False} | sizes)))


def test_a_model_that_is_right_makes_no_error(exact):
    found = open_loop(exact(), [episode(12), episode(9, seed=1)], horizon=5, every=1)
    assert found.reward.shape == (8 + 5, 5)
    assert found.horizon == 5
    np.testing.assert_allclose(found.imagined_reward, found.reward, atol=1e-5)
    torch.testing.assert_close(found.imagined_latent, found.latent, atol=1e-5, rtol=0)
    for row in found.table([1, 5]):
        for name in ("reward_error", "return_error", "latent_error"):
            assert row[name] < 1e-5


def test_windows_start_every_so_many_steps(exact):
    recorded = episode(10)
    found = open_loop(exact(), [recorded], horizon=4, every=3)
    assert list(found.windows) == [(0, 0), (0, 3), (0, 6)]
    assert np.array_equal(found.latent[:, 0], recorded.observation["state"][[0, 3, 6]])
    assert np.array_equal(found.reward[1], recorded.reward[3:7])
    assert np.array_equal(found.latent[2, 1:], recorded.observation["state"][7:11])


def test_the_latent_error_is_relative_to_the_distance_of_random_latents(exact):
    """Without motion the error after k steps is the distance moved."""
    recorded = [episode(60, seed=seed) for seed in range(5)]
    found = open_loop(exact(push=0.0), recorded, horizon=3, every=1)
    moved = (found.latent - found.latent[:, :1]).norm(dim=-1).mean(0)[1:].numpy()
    states = np.concatenate([e.observation["state"] for e in recorded])
    chance = np.random.default_rng(0)
    pairs = chance.integers(len(states), size=(2, 100_000))
    spread = np.linalg.norm(states[pairs[0]] - states[pairs[1]], axis=-1).mean()
    np.testing.assert_allclose(found.latent_error, moved / spread, rtol=0.15)


def test_a_single_window_has_a_spread_too(exact):
    found = open_loop(exact(push=0.0), [episode(8)], horizon=8, every=1)
    assert len(found.windows) == 1
    assert 0.1 < found.latent_error.mean() < 10


def made(**changes):
    arrays = {
        "reward": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "imagined_reward": np.array([[2.0, 0.0], [3.0, 5.0]]),
        "latent_error": np.array([0.25, 0.5]),
    }
    arrays = {name: np.asarray(array, np.float32) for name, array in (arrays | changes).items()}
    return OpenLoop(
        windows=[(0, 0), (0, 1)], latent=torch.zeros(2, 3, 4), imagined_latent=torch.zeros(2, 3, 4), **arrays
    )


def test_the_table_by_hand():
    one, two = made().table([1, 2])
    assert one == pytest.approx(
        {"steps": 1, "reward_error": (1 + 0) / 2, "return_error": (1 + 0) / 2, "latent_error": 0.25}
    )
    # Sums: 3 against 2, 7 against 8.
    assert two == pytest.approx(
        {"steps": 2, "reward_error": (2 + 1) / 2, "return_error": (1 + 1) / 2, "latent_error": 0.5}
    )


def test_the_table_ends_at_the_horizon():
    assert [row["steps"] for row in made().table([0, 1, 2, 3, 100])] == [1, 2]


def test_a_model_without_rewards_has_no_errors_of_them():
    found = open_loop(without_rewards(), [episode(9)], horizon=3, every=3)
    assert found.reward is None
    assert found.imagined_reward is None
    assert list(found.table([1])[0]) == ["steps", "latent_error"]


def test_a_window_begins_with_all_that_was_seen_before_it():
    """In the middle of an episode, a model with a history knows more than one observation."""
    model, recorded = without_rewards(history=3), episode(9)
    found = open_loop(model, [recorded], horizon=4, every=5)
    assert list(found.windows) == [(0, 0), (0, 5)]
    state, action = (
        torch.from_numpy(array.copy()) for array in (recorded.observation["state"], recorded.action)
    )
    with torch.no_grad():
        seen = model.embed({"state": state})
        expected = torch.cat([*seen[3:6], *action[3:5]])
        torch.testing.assert_close(found.imagined_latent[1, 0], expected)
        torch.testing.assert_close(found.imagined_latent[0, 0], model.layout.start(seen[0]))
        torch.testing.assert_close(found.imagined_latent[1, 1], model.step(expected, action[5]))
    torch.testing.assert_close(model.layout.current(found.latent[1]), seen[5:10])
    torch.testing.assert_close(latents_of(model, recorded)[5:], found.latent[1])


@pytest.mark.parametrize("episodes", [[episode(3), episode(4)], []])
def test_a_horizon_beyond_every_episode_is_refused(exact, episodes):
    longest = max((e.num_steps for e in episodes), default=0)
    with pytest.raises(ValueError, match=f"no episode has 5 steps, the longest has {longest}"):
        open_loop(exact(), episodes, horizon=5, every=1)


def test_a_readout_of_a_real_models_latents_can_be_imagined(tiny_model):
    model, recorded = tiny_model(state_dim=2), episode(30)
    state = torch.from_numpy(recorded.observation["state"].copy())
    readout = fit_readout(latents_of(model, recorded), state)
    found = compare_states(open_loop(model, [recorded], horizon=5, every=2), readout, [state])
    assert found.imagined.shape == (13, 6, 2)
    assert found.imagined.dtype == np.float32


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(TypeCheckError):
        made(latent_error=np.zeros(3))
