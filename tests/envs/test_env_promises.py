"""What every task promises, held over all tasks of dm_control's suite and a few of Gymnasium's."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.tasks import OWN_TASKS

TASKS = (*envs.task_names(), "HalfCheetah-v5", "Hopper-v5", "Pendulum-v1")
NUM_STEPS = 5


def start_and_drive(env, seed):
    """Observations and rewards of a few agent steps, with actions that depend on the seed only."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (NUM_STEPS, *env.action_space.shape))
    observation, _ = env.reset(seed=seed)
    observations, rewards = [observation], []
    for action in actions.astype(np.float32):
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return observations, rewards


@pytest.fixture(params=TASKS, scope="module")
def pair(request):
    """The same task, made twice."""
    both = [envs.make(request.param, seed=seed) for seed in (0, 1)]
    yield both
    for env in both:
        env.close()


def test_spaces_are_a_float32_vector_and_the_unit_box(pair):
    env = pair[0]
    state = env.observation_space["state"]
    assert list(env.observation_space) == ["state"]
    assert state.dtype == np.float32
    assert len(state.shape) == 1
    assert env.action_space.dtype == np.float32
    np.testing.assert_array_equal(env.action_space.low, -1.0)
    np.testing.assert_array_equal(env.action_space.high, 1.0)


def test_observations_and_rewards_are_finite_and_in_their_spaces(pair):
    observations, rewards = start_and_drive(pair[0], seed=3)
    for observation in observations:
        assert observation in pair[0].observation_space
        assert observation["state"].dtype == np.float32
        assert np.isfinite(observation["state"]).all()
    assert all(type(reward) is float and np.isfinite(reward) for reward in rewards)


def test_same_seed_same_bits_in_another_environment(pair):
    observations, rewards = start_and_drive(pair[0], seed=3)
    others, other_rewards = start_and_drive(pair[1], seed=3)
    np.testing.assert_array_equal([o["state"] for o in observations], [o["state"] for o in others])
    assert rewards == other_rewards


def test_kept_observations_do_not_change(pair):
    env = pair[0]
    first, _ = env.reset(seed=3)
    kept = first["state"].copy()
    for _ in range(NUM_STEPS):
        env.step(env.action_space.high)
    np.testing.assert_array_equal(first["state"], kept)


def test_other_seeds_and_later_episodes_start_elsewhere(pair):
    env = pair[0]
    starts = [env.reset(seed=3)[0]["state"], env.reset(seed=4)[0]["state"], env.reset()[0]["state"]]
    assert (starts[0] != starts[1]).any()
    assert (starts[1] != starts[2]).any()


def test_actions_move_the_robot(pair):
    env = pair[0]
    ends = []
    for action in (env.action_space.low, env.action_space.high):
        env.reset(seed=3)
        for _ in range(NUM_STEPS):
            observation, *_ = env.step(action)
        ends.append(observation["state"])
    assert (ends[0] != ends[1]).any()


def test_set_physics_state_replays_to_the_bit(pair):
    env, other = pair
    if env.task == "Pendulum-v1":  # the one here that MuJoCo does not simulate
        with pytest.raises(envs.EnvError):
            env.physics_state()
        return
    env.reset(seed=3)
    other.reset(seed=3)  # a different place in the same episode, with its own solver history
    for _ in range(3):
        env.step(env.action_space.high)
    start = env.physics_state()
    ends = []
    other.set_physics_state(start)
    np.testing.assert_array_equal(other.physics_state(), start)
    for each in (env, other):
        for action in (each.action_space.low, each.action_space.high, each.action_space.low):
            each.step(action)
        ends.append(each.physics_state())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert start.dtype == np.float64


def test_knows_its_time(pair):
    env = pair[0]
    assert env.control_period_s is not None
    assert 0.001 < env.control_period_s < 0.2
    shorter = {"Pendulum-v1": 200} | {name: task.num_env_steps for name, task in OWN_TASKS.items()}
    assert env.episode_length == shorter.get(env.task, 1000)


def test_knows_whether_it_may_end_by_itself(pair):
    assert pair[0].can_terminate == (pair[0].task in ("Hopper-v5", "lqr-lqr-2-1", "lqr-lqr-6-2"))


@pytest.mark.parametrize("task", ["cartpole-swingup", "quadruped-walk", "HalfCheetah-v5", "Pendulum-v1"])
def test_passes_gymnasiums_own_checker(task):
    with warnings.catch_warnings():
        # It warns of wrappers and of infinite observation bounds, both meant.
        warnings.simplefilter("ignore")
        check_env(envs.make(task), skip_render_check=True)


@pytest.mark.parametrize(
    ("domain", "task"), [("cartpole", "swingup"), ("reacher", "hard"), ("walker", "run")]
)
def test_first_episode_is_dm_controls_own(domain, task):
    from dm_control import suite

    raw = suite.load(domain, task, task_kwargs={"random": 7})
    ours = envs.make(f"{domain}-{task}", seed=7)
    step, (observation, _) = raw.reset(), ours.reset()
    action = np.full(ours.action_space.shape, 0.5, np.float32)
    for _ in range(NUM_STEPS):
        expected = np.concatenate([np.ravel(entry) for entry in step.observation.values()]).astype(np.float32)
        np.testing.assert_array_equal(observation["state"], expected)
        step = raw.step(action)
        observation, reward, *_ = ours.step(action)
        assert reward == step.reward


def test_make_returns_a_gymnasium_environment():
    env = envs.make("cartpole-balance")
    assert isinstance(env, gymnasium.Env)
    assert isinstance(env, envs.TaskEnv)
    assert "cartpole" in str(env.task)
