"""Many environments at once behave as the same ones alone."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import envs


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_environment_behaves_as_if_alone(how):
    vector = envs.make_vec("HalfCheetah-v5", num_envs=2, seed=4, action_repeat=2, how=how)
    singles = [envs.make("HalfCheetah-v5", seed=seed, action_repeat=2) for seed in vector.env_seeds]
    batch, _ = vector.reset()
    alone = [env.reset()[0]["state"] for env in singles]
    np.testing.assert_array_equal(batch["state"], alone)
    assert (alone[0] != alone[1]).any()
    vector.action_space.seed(0)
    for _ in range(5):
        actions = vector.action_space.sample()
        batch, rewards, *_ = vector.step(actions)
        steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(batch["state"], [step[0]["state"] for step in steps])
        np.testing.assert_array_equal(rewards, [step[1] for step in steps])
    vector.close()


def test_describes_its_task():
    vector = envs.make_vec("cup-catch", num_envs=2, action_repeat=4)
    assert vector.task == "ball-in-cup-catch"
    assert vector.action_repeat == 4
    assert vector.control_period_s == pytest.approx(0.08)
    assert vector.episode_length == 250
    assert vector.can_terminate is False


def test_neighbouring_seeds_share_no_episode():
    seeds = [envs.make_vec("pendulum-swingup", num_envs=8, seed=seed).env_seeds for seed in (0, 1, 0)]
    assert len({*seeds[0], *seeds[1]}) == 16
    assert seeds[0] == seeds[2]


def test_kept_batches_do_not_change():
    vector = envs.make_vec("pendulum-swingup", num_envs=2)
    first, _ = vector.reset()
    kept = first["state"].copy()
    _, rewards, *_ = vector.step(np.ones((2, 1)))
    kept_rewards = rewards.copy()
    vector.step(-np.ones((2, 1)))
    np.testing.assert_array_equal(first["state"], kept)
    np.testing.assert_array_equal(rewards, kept_rewards)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_without_autoreset_only_the_masked_ones_start_again(how):
    vector = envs.make_vec("Hopper-v5", num_envs=2, autoreset_mode=AutoresetMode.DISABLED, how=how)
    vector.reset()
    actions = np.zeros((2, 3), np.float32)
    actions[0] = 1.0  # falls early
    terminated = np.zeros(2, bool)
    while not terminated.any():
        observation, _, terminated, _, _ = vector.step(actions)
    np.testing.assert_array_equal(terminated, [True, False])
    options = {"reset_mask": terminated}
    restarted, _ = vector.reset(options=options)
    assert "reset_mask" in options  # the caller's dict stays as it was
    np.testing.assert_array_equal(restarted["state"][1], observation["state"][1])
    assert (restarted["state"][0] != observation["state"][0]).any()
    np.testing.assert_allclose(restarted["state"][0][0], 1.25, atol=0.01)  # it stands again
    *_, terminated, _, _ = vector.step(actions)
    assert not terminated[0]
    vector.close()


def test_next_step_autoreset_continues_each_environments_own_episodes():
    vector = envs.make_vec("pendulum-swingup", num_envs=2, action_repeat=1000)
    singles = [envs.make("pendulum-swingup", seed=seed, action_repeat=1000) for seed in vector.env_seeds]
    vector.reset()
    for env in singles:
        env.reset()
    *_, truncated, _ = vector.step(np.zeros((2, 1)))
    assert truncated.all()
    observation, rewards, *_ = vector.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(observation["state"], [env.reset()[0]["state"] for env in singles])
    np.testing.assert_array_equal(rewards, 0.0)


def test_at_least_one_environment():
    with pytest.raises(envs.EnvError, match="num_envs=0, and a vector environment holds at least 1"):
        envs.make_vec("pendulum-swingup", num_envs=0)
