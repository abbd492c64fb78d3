"""Gravity, mass and friction turned while a task runs."""

import numpy as np
import pytest

import envs


@pytest.fixture
def env():
    env = envs.make("walker-walk", seed=3)
    env.reset()
    yield env
    env.close()


def drive(env, num_steps=60):
    rng = np.random.default_rng(0)
    return np.array(
        [env.step(rng.uniform(-1, 1, env.action_space.shape))[0]["state"] for _ in range(num_steps)]
    )


def test_whoever_turns_nothing_has_the_model_that_was_compiled(env):
    untouched = envs.make("walker-walk", seed=3)
    untouched.reset()
    live = envs.LiveFactors(env.simulation)
    live.set("mass", 1.0)
    np.testing.assert_array_equal(drive(env), drive(untouched))


@pytest.mark.parametrize("name", ["gravity", "mass", "friction"])
def test_each_factor_changes_what_happens_and_can_be_turned_back(env, name):
    live, start = envs.LiveFactors(env.simulation), env.physics_state()
    usual = drive(env)
    env.set_physics_state(start)
    live.set(name, 2.0)
    assert not np.allclose(drive(env), usual)
    env.set_physics_state(start)
    live.set(name, 1.0)
    np.testing.assert_allclose(drive(env, 10), usual[:10], atol=1e-5)


def test_a_factor_is_a_multiple_of_what_was_compiled_however_often_it_is_turned(env):
    model, live = env.simulation.model, envs.LiveFactors(env.simulation)
    before = model.body_mass.copy(), model.opt.gravity.copy(), model.geom_friction.copy()
    for _ in range(2):
        live.set("mass", 3.0)
        live.set("gravity", 0.5)
        live.set("friction", 2.0)
    np.testing.assert_allclose(model.body_mass[1:], 3.0 * before[0][1:])
    np.testing.assert_allclose(model.opt.gravity, 0.5 * before[1])
    np.testing.assert_allclose(model.geom_friction, 2.0 * before[2])


def test_an_episode_starts_as_usual_and_goes_on_as_it_is_turned(env):
    live = envs.LiveFactors(env.simulation)
    live.set("gravity", 3.0)
    seen = []
    observation, _ = live.as_usual_during(
        lambda: (seen.append(env.simulation.model.opt.gravity[2]), env.reset(seed=5))[1]
    )
    assert seen == [pytest.approx(-9.81)]
    assert env.simulation.model.opt.gravity[2] == pytest.approx(-29.43)
    np.testing.assert_array_equal(observation["state"], envs.make("walker-walk").reset(seed=5)[0]["state"])


def test_what_an_episode_draws_is_what_is_changed():
    env = envs.make("push", seed=0, factors={"mass": [0.5, 2.0]})
    env.reset()
    live = envs.LiveFactors(env.simulation)
    live.set("mass", 2.0)
    live.as_usual_during(lambda: env.reset(seed=1))
    plain = envs.make("push", factors={"mass": [0.5, 2.0]})
    plain.reset(seed=1)
    moving = [
        body for body in range(1, plain.simulation.model.nbody) if plain.simulation.model.body_weldid[body]
    ]
    np.testing.assert_allclose(
        env.simulation.model.body_mass[moving], 2.0 * plain.simulation.model.body_mass[moving]
    )


@pytest.mark.parametrize(
    ("name", "value", "told"), [("gravity", 9.0, "from 0 to 3"), ("colour", 1.0, "mass, friction, gravity")]
)
def test_what_cannot_be_turned_is_told_and_changes_nothing(env, name, value, told):
    live = envs.LiveFactors(env.simulation)
    with pytest.raises(envs.EnvError, match=told):
        live.set(name, value)
    assert live.values == {"gravity": 1.0, "mass": 1.0, "friction": 1.0}
