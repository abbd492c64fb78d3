"""Poses as goals of dm_control's tasks: drawn apart from starts, observed, reached, and rewarded if asked."""

import math

import numpy as np
import pytest
from live import needs_batch

import envs
from envs.pose_goals import POSES
from envs.suite import SuiteEnv


@pytest.mark.parametrize("task", POSES)
def test_no_start_has_reached_its_goal_and_goals_can_be_reached(task):
    env, goals = envs.make(task), []
    for seed in range(30):
        env.reset(seed=seed)
        assert not envs.is_solved(env)
        goals.append(env.goal.goal)
        env.set_physics_state(env.goal.goal_state())
        assert envs.is_solved(env)
        np.testing.assert_allclose(env.goal.achieved_goal(), env.goal.goal)
        for _ in range(3):
            env.step(np.zeros(env.action_space.shape))
        assert envs.is_solved(env)
    assert len(np.unique(np.round(goals, 6), axis=0)) == 30


@pytest.mark.parametrize("task", POSES)
def test_a_goal_is_observed_as_the_environment_observes_it_there_and_nothing_moves(task):
    env = envs.make(task)
    before = env.reset(seed=0)[0]["state"]
    state = env.physics_state()
    goal = envs.goal_observation(env)["state"]
    np.testing.assert_array_equal(env.physics_state(), state)
    joints = len(env.goal.goal)
    np.testing.assert_allclose(goal[:joints], env.goal.goal, rtol=1e-6)
    np.testing.assert_array_equal(goal[-joints:], 0)  # at rest
    assert np.abs(goal - before).max() > 0.01


def test_a_goal_follows_from_its_start_and_changes_no_episode_of_dm_control():
    env, again = envs.make("reacher-easy"), envs.make("reacher-easy")
    for seed in (3, 4):
        first = env.reset(seed=seed)[0]["state"]
        np.testing.assert_array_equal(again.reset(seed=seed)[0]["state"], first)
        np.testing.assert_array_equal(again.goal.goal, env.goal.goal)
    own = env.unwrapped
    assert isinstance(own, SuiteEnv)
    bare = own.reset(seed=3)[0]
    np.testing.assert_array_equal(env.reset(seed=3)[0]["state"], bare)


def test_a_turn_of_the_shoulder_changes_nothing_and_every_joint_counts():
    env = envs.make("reacher-easy")
    env.reset(seed=0)
    near = POSES["reacher-easy"].tolerances["shoulder"]
    shoulder, wrist = env.simulation.data.qpos
    for goal, expected in [
        ([shoulder + 2 * math.pi, wrist], True),
        ([shoulder - 4 * math.pi + 0.9 * near, wrist - 0.9 * near], True),
        ([shoulder + 1.1 * near, wrist], False),
        ([shoulder, wrist - 1.1 * near], False),
    ]:
        envs.set_goal(env, np.array(goal))
        assert envs.is_solved(env) is expected
    with pytest.raises(envs.EnvError, match="a goal has 2 finite numbers"):
        envs.set_goal(env, np.array([0.0, np.nan]))


def test_the_target_in_the_picture_is_that_of_the_episode():
    env = envs.make("reacher-easy", observe=["pixels"])
    env.reset(seed=0)
    state = env.goal.goal_state()
    expected = envs.goal_observation(env)["pixels"]
    env.set_physics_state(state)
    np.testing.assert_array_equal(env.pixels(), expected)
    env.reset(seed=1)
    assert np.abs(env.observation_at(state)["pixels"].astype(int) - expected).max() > 50, "another target"


def test_the_reward_for_a_planner_is_highest_at_each_environments_own_goal():
    made = [envs.make("reacher-easy"), envs.make("reacher-easy")]
    for seed, env in enumerate(made):
        env.reset(seed=seed)
    oracle = envs.Oracle("reacher-easy")
    still = np.zeros((2, 1, 1, 2), np.float32)
    reward = envs.goal_reward(made)
    away = oracle.returns([env.simulation for env in made], still, reward=reward)
    made[1].set_physics_state(made[1].goal.goal_state())
    there = oracle.returns([env.simulation for env in made], still, reward=reward)
    assert there[0, 0] == away[0, 0] < 0.9
    assert there[1, 0] == 1.0
    oracle.close()
    own = envs.make("tworoom")
    own.reset(seed=0)
    assert envs.goal_reward([own]) is None, "its reward is for the goal"


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "cheetah-run", "reacher-hard", "tworoom"])
def test_any_physics_state_is_observed_as_in_an_episode(task):
    env = envs.make(task)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(4):
        observation = env.step(rng.uniform(-1, 1, env.action_space.shape))[0]["state"]
    state = env.physics_state()
    env.reset(seed=0)
    np.testing.assert_allclose(env.observation_at(state)["state"], observation, atol=1e-6)
    with pytest.raises(envs.EnvError, match="A physics state of this task is a finite vector"):
        env.observation_at(state[:-1])


def test_a_task_without_mujoco_has_no_such_states():
    env = envs.make("Pendulum-v1")
    env.reset(seed=0)
    with pytest.raises(envs.EnvError, match="does not tell what it observes"):
        env.observation_at(np.zeros(3))


@pytest.mark.parametrize("how", ["sync", pytest.param("batch", marks=needs_batch)])
def test_what_is_hidden_is_in_no_image_and_physics_stays(how):
    plain, hiding = (
        envs.make_vec("reacher-easy", num_envs=2, how=how, observe=["state", "pixels"], hide=hide)
        for hide in ((), ("target",))
    )
    first, second = plain.reset()[0], hiding.reset()[0]
    np.testing.assert_array_equal(first["state"], second["state"])

    def redness(observation):
        red, _, blue = observation["pixels"].astype(int).transpose(1, 0, 2, 3)
        return ((red > 150) & (red > blue + 60)).sum((1, 2))

    assert (redness(first) > redness(second) + 15).all(), "the target is a red disc"
    actions = np.full((2, 2), 0.5, np.float32)
    np.testing.assert_array_equal(plain.step(actions)[1], hiding.step(actions)[1])
    plain.close()
    hiding.close()


def test_only_what_is_there_can_be_hidden():
    with pytest.raises(envs.EnvError, match=r"reacher-easy has no geom 'targt'; those .* target, arm"):
        envs.make("reacher-easy", hide=["targt"])
    with pytest.raises(envs.EnvError, match=r"Pendulum-v1 has no geoms"):
        envs.make("Pendulum-v1", hide=["pole"])
