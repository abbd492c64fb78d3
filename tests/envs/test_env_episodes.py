"""How episodes go: seeds, ends, action repeat, scaling."""

import gymnasium
import numpy as np
import pytest

import envs


def run_to_the_end(env, action, limit=2000):
    """Number of agent steps, and the last (terminated, truncated)."""
    env.reset()
    for num_steps in range(1, limit + 1):
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return num_steps, terminated, truncated
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(("action_repeat", "length"), [(1, 1000), (2, 500), (3, 334)])
def test_suite_tasks_are_truncated_when_time_is_up(action_repeat, length):
    env = envs.make("pendulum-swingup", action_repeat=action_repeat)
    assert env.episode_length == length
    assert run_to_the_end(env, np.zeros(1)) == (length, False, True)


@pytest.mark.parametrize(("action_repeat", "length"), [(1, 200), (3, 67)])
def test_gymnasium_tasks_are_truncated_when_time_is_up(action_repeat, length):
    env = envs.make("Pendulum-v1", action_repeat=action_repeat)
    assert env.episode_length == length
    assert run_to_the_end(env, np.zeros(1)) == (length, False, True)


def test_hopper_terminates_when_it_falls():
    env = envs.make("Hopper-v5")
    num_steps, terminated, truncated = run_to_the_end(env, np.ones(3))
    assert terminated
    assert not truncated
    assert num_steps < 200


def test_lqr_terminates_when_it_rests():
    env = envs.make("lqr-lqr-2-1")
    env.reset()
    env.set_physics_state(np.zeros_like(env.physics_state()))
    *_, terminated, truncated, _ = env.step(np.zeros(1))
    assert terminated
    assert not truncated


@pytest.mark.parametrize("task", ["cheetah-run", "HalfCheetah-v5"])
def test_action_repeat_equals_repeating_by_hand(task):
    once, thrice = envs.make(task, seed=5), envs.make(task, seed=5, action_repeat=3)
    once.reset()
    thrice.reset()
    rng = np.random.default_rng(0)
    for _ in range(10):
        action = rng.uniform(-1, 1, once.action_space.shape).astype(np.float32)
        rewards = []
        for _ in range(3):
            expected, reward, *_ = once.step(action)
            rewards.append(reward)
        observation, total, *_ = thrice.step(action)
        np.testing.assert_array_equal(observation["state"], expected["state"])
        assert total == sum(rewards)
    assert thrice.control_period_s == pytest.approx(3 * once.control_period_s)
    assert thrice.action_repeat == 3


def test_action_repeat_stops_at_the_end():
    env = envs.make("Hopper-v5", action_repeat=1000)
    env.reset()
    _, total, terminated, _, _ = env.step(np.ones(3))
    assert terminated
    single = envs.make("Hopper-v5")
    single.reset()
    rewards, terminated = [], False
    while not terminated:
        _, reward, terminated, _, _ = single.step(np.ones(3))
        rewards.append(reward)
    assert total == sum(rewards)


def test_first_reset_uses_the_seed_of_make_and_later_ones_go_on():
    one, other = envs.make("walker-walk", seed=3), envs.make("walker-walk", seed=3)
    episodes = [env.reset()[0]["state"] for env in (one, one, other, other)]
    np.testing.assert_array_equal(episodes[0], episodes[2])
    np.testing.assert_array_equal(episodes[1], episodes[3])
    np.testing.assert_array_equal(other.reset(seed=3)[0]["state"], episodes[0])
    np.testing.assert_array_equal(other.reset()[0]["state"], episodes[1])


def test_seeds_longer_than_32_bits_differ():
    env = envs.make("walker-walk")
    assert (env.reset(seed=2**40)[0]["state"] != env.reset(seed=2**41)[0]["state"]).any()


def test_actions_are_scaled_to_the_tasks_bounds():
    quadruped = envs.make("quadruped-walk")
    quadruped.reset()
    spec = quadruped.unwrapped.dm_env.action_spec()
    for action, bound in (
        (-1.0, spec.minimum),
        (1.0, spec.maximum),
        (0.0, (spec.minimum + spec.maximum) / 2),
    ):
        quadruped.step(np.full(12, action))
        np.testing.assert_allclose(quadruped.simulation.data.ctrl, bound, atol=1e-6)
    assert spec.maximum.max() > 1.0  # otherwise nothing was scaled

    pendulum = envs.make("Pendulum-v1")
    pendulum.reset()
    pendulum.step(np.array([0.5]))
    assert pendulum.unwrapped.last_u == pytest.approx(1.0)  # half of its 2 N m


def test_actions_a_little_outside_are_clipped():
    env = envs.make("cartpole-balance")
    env.reset()
    env.step(np.array([1.0001]))
    assert env.simulation.data.ctrl[0] == 1.0


def test_lqr_has_one_model_and_bounded_forces():
    models = [envs.make("lqr-lqr-2-1", seed=seed).simulation.model for seed in (0, 1)]
    np.testing.assert_array_equal(models[0].jnt_stiffness, models[1].jnt_stiffness)
    env = envs.make("lqr-lqr-2-1")
    env.reset()
    env.step(np.ones(1))
    assert env.simulation.data.ctrl[0] == 6.0


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("cup-catch", "ball-in-cup-catch"),
        ("ball_in_cup-catch", "ball-in-cup-catch"),
        ("finger-turn_hard", "finger-turn-hard"),
        ("humanoid_CMU-run", "humanoid-cmu-run"),
        ("point_mass-easy", "point-mass-easy"),
        ("HalfCheetah-v5", "HalfCheetah-v5"),
    ],
)
def test_spellings_lead_to_one_name(spelling, canonical):
    assert envs.make(spelling).task == canonical


def test_stepping_needs_a_running_episode():
    env = envs.make("pendulum-swingup", action_repeat=1000)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(np.zeros(1))
    env.reset()
    env.step(np.zeros(1))
    with pytest.raises(gymnasium.error.ResetNeeded, match="the last one is over"):
        env.step(np.zeros(1))
    env.reset()
    env.step(np.zeros(1))


def test_sampled_actions_follow_the_seed():
    samples = [envs.make("walker-walk", seed=seed).action_space.sample() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()
