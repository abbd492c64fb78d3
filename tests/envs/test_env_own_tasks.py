"""What each of our own tasks promises: goals apart from starts, factors that change what they say."""

import numpy as np
import pytest
from live import needs_batch

import envs
from envs.tasks import OWN_TASKS

FACTORS = [(task, name) for task in OWN_TASKS for name in OWN_TASKS[task].factors]
LOOKS = ("hue", "camera_height")


def make(task, **kwargs):
    env = envs.make(task, **kwargs)
    return env, env.unwrapped


def drive(env, seed, num_steps=20):
    """States and rewards under actions that depend on the seed only."""
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    states, rewards = [observation["state"]], []
    for _ in range(num_steps):
        observation, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        states.append(observation["state"])
        rewards.append(reward)
    return np.array(states), np.array(rewards)


@pytest.mark.parametrize("task", OWN_TASKS)
def test_no_start_has_reached_its_goal_and_goals_can_be_reached(task):
    env, own = make(task)
    goals = []
    for seed in range(50):
        env.reset(seed=seed)
        assert not own.is_solved()
        goals.append(own.goal)
        env.set_physics_state(own.goal_state())
        assert own.is_solved()
        np.testing.assert_allclose(own.achieved_goal(), own.goal, atol=1e-6)
    assert len(np.unique(np.round(goals, 6), axis=0)) == 50


@pytest.mark.parametrize("task", OWN_TASKS)
def test_a_goal_stays_reached_for_a_moment(task):
    """Its state is one that physics allows: nothing overlaps and is thrown apart, nothing falls."""
    env, own = make(task)
    for seed in range(10):
        env.reset(seed=seed)
        env.set_physics_state(own.goal_state())
        for _ in range(3):
            env.step(np.zeros(env.action_space.shape))
        assert own.is_solved()


@pytest.mark.parametrize("task", OWN_TASKS)
def test_the_reward_is_highest_where_the_goal_is_reached(task):
    env, own = make(task)
    for seed in range(5):
        _, rewards = drive(env, seed)
        assert (rewards >= 0).all()
        assert (rewards <= 1).all()
        env.reset(seed=seed)
        env.set_physics_state(own.goal_state())
        reward = env.step(np.zeros(env.action_space.shape))[1]
        assert reward >= rewards.max()
        assert reward > 0.9


@pytest.mark.parametrize("task", OWN_TASKS)
def test_a_goal_is_observed_without_moving_anything(task):
    env, own = make(task)
    before = env.reset(seed=0)[0]["state"]
    state = env.physics_state()
    goal = envs.goal_observation(env)["state"]
    assert goal.shape == before.shape
    assert np.abs(goal - before).max() > 0.05
    np.testing.assert_array_equal(env.physics_state(), state)
    np.testing.assert_array_equal(own.observe(), before)


@pytest.mark.parametrize("task", OWN_TASKS)
def test_another_goal_can_be_set_and_is_observed(task):
    env, own = make(task)
    env.reset(seed=0)
    first = own.goal
    env.reset(seed=1)
    own.set_goal(first)
    np.testing.assert_array_equal(own.goal, first)
    env.set_physics_state(own.goal_state())
    assert own.is_solved()
    with pytest.raises(envs.EnvError, match=r"a goal has \d finite numbers"):
        own.set_goal(np.zeros(99))


@pytest.mark.parametrize(("task", "name"), FACTORS)
def test_a_factor_changes_physics_or_looks_and_its_default_nothing(task, name):
    factor = OWN_TASKS[task].factors[name]
    usual = drive(envs.make(task), seed=1)[0]
    same = drive(envs.make(task, factors={name: factor.default}), seed=1)[0]
    np.testing.assert_allclose(same, usual, atol=1e-6)
    # Halfway, for a whole turn of the hue is none.
    env, own = make(task, factors={name: (factor.default + factor.high) / 2})
    env.reset(seed=0)
    model, plain = env.simulation.model, own._compiled
    arrays = [field for field in dir(model) if isinstance(getattr(model, field), np.ndarray)]
    changed = {
        field
        for field in arrays
        if not field.startswith("_") and not np.array_equal(getattr(model, field), getattr(plain, field))
    }
    if not np.array_equal(model.opt.gravity, plain.opt.gravity):
        changed.add("opt.gravity")
    assert changed - {"body_pos", "body_quat"}
    for value in (factor.low, factor.high):
        assert np.isfinite(drive(envs.make(task, factors={name: value}), seed=1)[0]).all()


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("task", OWN_TASKS)
def test_other_looks_change_the_image_and_no_physics(task, name):
    factor = OWN_TASKS[task].factors[name]
    for value in (0.5,) if name == "hue" else (factor.low, factor.high):
        usual, other = (envs.make(task, factors=given, observe=["pixels"]) for given in ({}, {name: value}))
        seen = [env.reset(seed=0)[0]["pixels"].astype(int) for env in (usual, other)]
        assert np.abs(seen[0] - seen[1]).max() > 50
        action = np.full(usual.action_space.shape, 0.5)
        for _ in range(10):
            for env in (usual, other):
                env.step(action)
            np.testing.assert_array_equal(other.physics_state(), usual.physics_state())


def test_all_of_drop_stays_in_sight_wherever_its_camera_is():
    """The table's top below, and above it whatever is put there."""
    factor = OWN_TASKS["drop"].factors["camera_height"]
    for value in (factor.low, 1.0, factor.high):
        model = envs.make("drop", factors={"camera_height": value}).simulation.model
        middle, away = model.camera("side").pos[2], -model.camera("side").pos[1]
        half = away * np.tan(np.radians(model.camera("side").fovy[0] / 2))
        assert middle - half < -0.02
        assert middle + half > 1.1


def test_a_disc_that_is_damped_more_is_slower():
    speeds = []
    for damping in (0.5, 1.0, 2.0):
        env = envs.make("tworoom", factors={"damping": damping}, marks_goal=False)
        env.reset(seed=0)
        for _ in range(10):  # from wall to wall takes longer
            state = env.step(np.array([0.0, 1.0]))[0]["state"]
        speeds.append(state[3])
    assert speeds[0] > speeds[1] > speeds[2] > 0.2


@pytest.mark.parametrize("task", OWN_TASKS)
@pytest.mark.parametrize("how", ["sync", pytest.param("batch", marks=needs_batch), "async"])
def test_ranges_are_drawn_with_each_episode_by_its_seed(task, how):
    name, factor = next(iter(OWN_TASKS[task].factors.items()))
    given = {name: [factor.low, factor.high]}
    env, _ = make(task, factors=given)
    drawn = []
    for seed in (0, 1, 0):
        _, info = env.reset(seed=seed)
        assert factor.low <= info["factors"][name] <= factor.high
        drawn.append(info["factors"][name])
    assert drawn[0] == drawn[2] != drawn[1]
    vector = envs.make_vec(task, num_envs=2, how=how, factors=given)
    vector.reset(seed=[0, 1])
    assert [factors[name] for factors in vector.factors()] == drawn[:2]
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2, *env.action_space.shape))
    played = [vector.step(action)[0]["state"] for action in actions]
    for index in range(2):
        env.reset(seed=index)
        alone = [env.step(action[index])[0]["state"] for action in actions]
        np.testing.assert_array_equal([step[index] for step in played], alone)
    vector.close()


@pytest.mark.parametrize("task", OWN_TASKS)
def test_wrong_factors_are_refused_by_name(task):
    name, factor = next(iter(OWN_TASKS[task].factors.items()))
    with pytest.raises(envs.EnvError, match=f"{task} has no factor 'weather'; what may vary is .*{name}"):
        envs.make(task, factors={"weather": 1.0})
    for wrong in (factor.high + 1, [factor.high, factor.low], "much", [], [factor.low] * 3, True, [None, 1]):
        with pytest.raises(envs.EnvError, match=rf"factor {name}=.* must be a number from"):
            envs.make(task, factors={name: wrong})


def test_most_tasks_of_others_have_no_goals():
    env = envs.make("cartpole-swingup")
    env.reset()
    with pytest.raises(envs.EnvError, match="has no goals"):
        envs.goal_observation(env)


def test_the_mark_of_a_goal_can_be_left_out():
    images = []
    for marks_goal in (True, False):
        env = envs.make("tworoom", marks_goal=marks_goal)
        env.reset(seed=0)
        images.append(env.render().astype(int))
    assert np.abs(images[0] - images[1]).max() > 50
