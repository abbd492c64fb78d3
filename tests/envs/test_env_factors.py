"""Other masses, frictions and gravities in tasks of dm_control: what they change, and what they leave."""

import copy

import numpy as np
import pytest
from live import needs_batch

import envs
from envs.suite import suite_tasks

USUAL = {"mass": 1.0, "friction": 1, "gravity": 1.0}


def play(env, num_steps=20, seed=3):
    """States and rewards under actions that depend on the seed only."""
    states, rewards = [env.reset(seed=seed)[0]["state"]], []
    chance = np.random.default_rng(seed)
    for _ in range(num_steps):
        observation, reward, *_ = env.step(chance.uniform(-1, 1, env.action_space.shape))
        states.append(observation["state"])
        rewards.append(reward)
    return np.array(states), np.array(rewards)


@pytest.mark.parametrize("task", sorted(suite_tasks()))
def test_factors_of_one_leave_all_as_it_is_to_the_bit(task):
    for found, usual in zip(play(envs.make(task, factors=USUAL), 10), play(envs.make(task), 10), strict=True):
        np.testing.assert_array_equal(found, usual)


def test_each_factor_changes_what_it_says_and_nothing_else():
    usual = envs.make("walker-walk").simulation.model
    heavy = envs.make("walker-walk", factors={"mass": 2.0}).simulation.model
    np.testing.assert_array_equal(heavy.body_mass, 2 * usual.body_mass)
    np.testing.assert_array_equal(heavy.body_inertia, 2 * usual.body_inertia)
    assert heavy.body_subtreemass[0] == pytest.approx(2 * usual.body_subtreemass[0])
    np.testing.assert_allclose(heavy.dof_invweight0[3:], usual.dof_invweight0[3:] / 2, rtol=0.3)  # and rotors
    slippery = envs.make("walker-walk", factors={"friction": 0.5}).simulation.model
    np.testing.assert_array_equal(slippery.geom_friction, usual.geom_friction / 2)
    np.testing.assert_array_equal(slippery.body_mass, usual.body_mass)
    moon = envs.make("walker-walk", factors={"gravity": 1 / 6}).simulation.model
    np.testing.assert_allclose(moon.opt.gravity, [0, 0, -9.81 / 6], rtol=1e-6)
    np.testing.assert_array_equal(moon.geom_friction, usual.geom_friction)


@pytest.mark.parametrize("gravity", [0.0, 0.5, 1.0])
def test_a_robot_in_the_air_falls_as_gravity_says(gravity):
    env = envs.make("humanoid-stand", factors={"gravity": gravity})
    env.reset(seed=1)
    physics = env.unwrapped.dm_env.physics

    def height():
        return physics.named.data.subtree_com["world", "z"]

    with physics.reset_context():
        physics.named.data.qpos["root"][2] = 10
    start_m, began_s = height(), physics.time()
    for _ in range(8):
        env.step(np.zeros(21))
    fallen_s = physics.time() - began_s
    assert start_m - height() == pytest.approx(gravity * 9.81 * fallen_s**2 / 2, abs=0.03)


def test_a_range_is_drawn_with_each_episode_and_leaves_the_starts_alone():
    env = envs.make("cartpole-swingup", factors={"mass": [0.5, 2.0], "gravity": 1.2})
    usual = envs.make("cartpole-swingup")
    drawn = []
    for seed in (0, 1, 0, None):
        start = env.reset(seed=seed)[0]["state"]
        np.testing.assert_array_equal(start, usual.reset(seed=seed)[0]["state"])
        assert env.factors["gravity"] == 1.2
        assert env.simulation.model.body("cart").mass[0] == pytest.approx(env.factors["mass"])
        drawn.append(env.factors["mass"])
    assert drawn[0] == drawn[2]
    assert len(set(drawn)) == 3
    assert all(0.5 <= mass <= 2 for mass in drawn)


@needs_batch
@pytest.mark.parametrize("mass", [2.0, [0.5, 2.0]])
@pytest.mark.parametrize("task", ["cheetah-run", "reacher-easy", "finger-spin"])
def test_many_together_are_as_each_alone(task, mass):
    """Two episodes of each: the second draws other factors."""
    factors = {"mass": mass, "friction": 0.7, "gravity": [0.8, 1.2]}
    vectors = [
        envs.make_vec(task, num_envs=3, seed=1, how=how, factors=factors, action_repeat=100)
        for how in ("batch", "sync")
    ]
    for vector in vectors:
        vector.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (14, *vectors[0].action_space.shape)):
        found, expected = (vector.step(action) for vector in vectors)
        np.testing.assert_array_equal(found[0]["state"], expected[0]["state"])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-12)
        assert vectors[0].factors() == vectors[1].factors()
    for vector in vectors:
        vector.close()


@pytest.mark.parametrize("task", ["cheetah-run", "cartpole-swingup", "push"])
def test_what_is_undone_is_the_usual_model(task):
    env, usual = envs.make(task, factors={"mass": 3.0, "gravity": [1.5, 2.0]}), envs.make(task)
    env.reset(seed=0)
    usual.reset(seed=0)
    before = env.simulation.model.body_mass.copy()
    copied = copy.copy(env.simulation.model)
    env.undo_factors(copied)
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_invweight0", "body_subtreemass"):
        np.testing.assert_array_equal(getattr(copied, field), getattr(usual.simulation.model, field))
    np.testing.assert_array_equal(copied.opt.gravity, usual.simulation.model.opt.gravity)
    np.testing.assert_array_equal(env.simulation.model.body_mass, before)


def test_an_oracle_knows_the_factors_unless_they_are_undone():
    """Its predictions are what happens, or what would happen in the usual model."""
    env = envs.make("cheetah-run", factors={"mass": 1.5, "friction": 0.3})
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (1, 1, 30, 6)).astype(np.float32)
    knows = envs.Oracle("cheetah-run").play([env.simulation], actions)[0]
    nominal = envs.Oracle("cheetah-run", change_model=env.undo_factors).play([env.simulation], actions)[0]
    usual = envs.make("cheetah-run")
    usual.reset(seed=0)
    usual.set_physics_state(env.physics_state())
    np.testing.assert_allclose(nominal[0, 0], [usual.step(action)[1] for action in actions[0, 0]], atol=1e-9)
    np.testing.assert_allclose(knows[0, 0], [env.step(action)[1] for action in actions[0, 0]], atol=1e-9)
    assert np.abs(knows - nominal).max() > 0.01


def test_wrong_factors_are_refused_and_the_right_ones_named():
    with pytest.raises(
        envs.EnvError, match=r"no factor 'weather'; what may vary is mass .*friction.*gravity"
    ):
        envs.make("cheetah-run", factors={"weather": 1.0})
    with pytest.raises(envs.EnvError, match=r"mass=20 must be a number from 0.1 to 10"):
        envs.make("cheetah-run", factors={"mass": 20})
    with pytest.raises(envs.EnvError, match=r"Pendulum-v1 has no factors .*tworoom"):
        envs.make("Pendulum-v1", factors={"mass": 2.0})
    with pytest.raises(envs.UnknownTaskError, match="cheetah-run"):
        envs.factors_of("cheeta-run")
    assert set(envs.factors_of("cheetah_run")) == {"mass", "friction", "gravity"}
    assert "hue" in envs.factors_of("push")
