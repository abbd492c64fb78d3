"""Batched tasks compute what dm_control computes, one state at a time."""

from functools import cache

import numpy as np
import pytest

import envs
from envs.suite import SuiteTask
from envs.tasks import BATCH_TASKS

TASKS = envs.batch_task_names()
SUITE_TASKS = [name for name, task in BATCH_TASKS.items() if isinstance(task, SuiteTask)]
# The arithmetic is the same up to its order; observations are compared in the float32 that agents see.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@cache
def made(task):
    return envs.make(task)


@cache
def physics(task):
    """Physics that can read the task's simulations; its substeps play no part in reading."""
    batch_task = BATCH_TASKS[task]
    return envs.BatchPhysics(batch_task.load_spec(), num_substeps=1, sensors=batch_task.added_sensors)


def randomise(env, rng):
    """Put the simulation in a random state, with a random control in force."""
    simulation = env.simulation
    simulation.data.qpos[:] += rng.uniform(-1.0, 1.0, simulation.model.nq)
    simulation.data.qvel[:] = rng.normal(size=simulation.model.nv)
    simulation.data.ctrl[:] = rng.uniform(-1.0, 1.0, simulation.model.nu)
    env.set_physics_state(env.physics_state())


@pytest.mark.parametrize("task", SUITE_TASKS)
def test_random_states_have_dm_controls_observation_and_reward(task):
    env, rng = made(task), np.random.default_rng(0)
    dm_env = env.unwrapped.dm_env
    for seed in range(10):
        env.reset(seed=seed)
        randomise(env, rng)
        expected = np.concatenate(
            [np.ravel(part) for part in dm_env.task.get_observation(dm_env.physics).values()]
        )
        readings = physics(task).read([env.simulation])
        np.testing.assert_allclose(BATCH_TASKS[task].observe(readings)[0], expected, **CLOSE)
        reward = dm_env.task.get_reward(dm_env.physics)
        np.testing.assert_allclose(BATCH_TASKS[task].reward(readings)[0], reward, **CLOSE)


@pytest.mark.parametrize("action_repeat", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_what_the_oracle_foresees_happens(task, action_repeat):
    env = envs.make(task, action_repeat=action_repeat)
    oracle = envs.Oracle(task, action_repeat=action_repeat)
    rng = np.random.default_rng(1)
    num_steps = min(63, env.num_env_steps // action_repeat)
    actions = rng.uniform(-1.2, 1.2, (num_steps, *env.action_space.shape)).astype(np.float32)
    env.reset(seed=5)
    for action in actions[:3]:
        env.step(action)
    # Two candidates, so that one is not taken for the other.
    foreseen, observations = oracle.play([env.simulation], np.stack([actions[3:], -actions[3:]])[None])
    for step, action in enumerate(actions[3:]):
        observation, reward, *_ = env.step(action)
        np.testing.assert_allclose(foreseen[0, 0, step], reward, **CLOSE)
        np.testing.assert_allclose(observations["state"][0, 0, step], observation["state"], rtol=1e-6)
    env.close()
    oracle.close()


def test_a_whole_episode_of_cartpole_is_foreseen():
    env, oracle = made("cartpole-swingup"), envs.Oracle("cartpole-swingup")
    actions = np.random.default_rng(2).uniform(-1, 1, (1000, 1)).astype(np.float32)
    env.reset(seed=8)
    rewards, observations = oracle.play([env.simulation], actions[None, None])
    played = [env.step(action) for action in actions]
    assert played[-1][3], "the episode is over"
    np.testing.assert_allclose(rewards[0, 0], [step[1] for step in played], **CLOSE)
    states = [step[0]["state"] for step in played]
    np.testing.assert_allclose(observations["state"][0, 0], states, rtol=1e-6)


def test_touch_is_that_of_the_last_physics_step():
    """Hopper's feet touch the ground within 60 steps: their forces are foreseen, not only their zeros."""
    env, oracle = envs.make("hopper-stand"), envs.Oracle("hopper-stand")
    env.reset(seed=5)
    actions = np.zeros((1, 1, 100, 4), np.float32)
    _, observations = oracle.play([env.simulation], actions)
    touch = np.array([env.step(action)[0]["state"][-2:] for action in actions[0, 0]])
    assert (touch > 0.1).sum() > 10
    np.testing.assert_array_equal(observations["state"][0, 0, :, -2:], touch)


@pytest.mark.filterwarnings("ignore:compiler attribute")
@pytest.mark.parametrize("domain", sorted({BATCH_TASKS[name].domain for name in SUITE_TASKS}))
def test_added_sensors_leave_the_rest_of_the_model_alone(domain):
    name, task = next((name, BATCH_TASKS[name]) for name in SUITE_TASKS if BATCH_TASKS[name].domain == domain)
    own = physics(name)._template
    live = made(name).simulation.model
    fresh = task.load_spec().compile()
    for field in dir(fresh):
        value = getattr(fresh, field)
        if not isinstance(value, np.ndarray) or field.startswith(("_", "tex_", "mat_", "name", "sensor_")):
            continue
        np.testing.assert_array_equal(getattr(own, field), value, err_msg=field)
        assert getattr(live, field).shape == value.shape
    assert own.nsensor == live.nsensor + len(task.added_sensors)
    assert [own.sensor(i).name for i in range(live.nsensor)] == [
        live.sensor(i).name for i in range(live.nsensor)
    ]


def test_tasks_are_found_by_other_spellings_and_refused_by_name():
    assert envs.batch_task("cup_catch") is BATCH_TASKS["ball-in-cup-catch"]
    assert set(TASKS) <= set(envs.task_names())
    with pytest.raises(envs.UnknownTaskError, match="no task 'walker-jump': did you mean walker-run"):
        envs.batch_task("walker-jump")
    with pytest.raises(envs.UnsupportedEnvError, match=r"There are .*acrobot-swingup"):
        envs.batch_task("quadruped-walk")
    with pytest.raises(envs.UnsupportedEnvError, match="'HalfCheetah-v5' has no batched"):
        envs.Oracle("HalfCheetah-v5")
