"""Pushes, noise and delays: how strong they are, when they come, and that they come again with their seed."""

from functools import partial

import mujoco
import numpy as np
import pytest
from live import needs_batch

import envs
from envs.disturbances import pushed_body, robot_mass_kg
from envs.vector import task_env_of

FREE = {"gravity": 0.0}


def momentum(env) -> np.ndarray:
    """Of all that moves, kg m/s."""
    simulation = env.unwrapped.dm_env.physics
    model, data = simulation.model.ptr, simulation.data.ptr
    mujoco.mj_subtreeVel(model, data)
    return model.body_subtreemass[0] * data.subtree_linvel[0]


def play(env, num_steps, seed=0):
    """Observed states under actions that depend on the seed only."""
    states = [env.reset(seed=seed)[0]["state"]]
    chance = np.random.default_rng(seed)
    for _ in range(num_steps):
        states.append(env.step(chance.uniform(-1, 1, env.action_space.shape))[0]["state"])
    return np.array(states)


@pytest.mark.parametrize(("task", "axes"), [("cartpole-balance", 1), ("humanoid-stand", 2)])
def test_a_push_gives_a_free_robot_the_speed_that_was_asked_for(task, axes):
    """A cart glides along x alone, a humanoid that floats is pushed wherever in the plane."""
    env = envs.Push(envs.make(task, factors=FREE, action_repeat=2), speed_m_s=0.5, interval_s=0.3)
    env.reset(seed=1)
    near = 0.02 * env.impulse_n_s  # a step of MuJoCo's keeps the momentum of limbs that turn but so well
    rest, directions = np.zeros(env.action_space.shape, np.float32), []
    for _ in range(100):
        before = momentum(env)
        *_, info = env.step(rest)
        gained = momentum(env) - before
        if "push_n_s" not in info:
            np.testing.assert_allclose(gained[:axes], 0, atol=near)
            continue
        np.testing.assert_allclose(gained[:axes], info["push_n_s"][:axes], atol=near)
        directions.append(info["push_n_s"] / env.impulse_n_s)
    assert len(directions) >= 3
    assert np.linalg.norm(directions, axis=1) == pytest.approx(1)
    assert env.impulse_n_s == pytest.approx(0.5 * env.unwrapped.dm_env.physics.model.body_subtreemass[1])
    assert len(np.unique(np.sign(directions)[:, 0])) == 2  # to and fro
    assert np.abs(np.array(directions)[:, axes:]).max() == 0


def test_pushes_come_at_random_and_again_with_the_seed_whatever_is_done():
    env = envs.Push(envs.make("cheetah-run"), speed_m_s=1.0, interval_s=0.5)

    def pushes(seed, action):
        env.reset(seed=seed)
        infos = [env.step(np.full(6, action))[-1] for _ in range(300)]
        return {step: info["push_n_s"][0] for step, info in enumerate(infos) if "push_n_s" in info}

    found = pushes(0, 0.0)
    gaps = np.diff([-1, *found]) * env.unwrapped.dm_env.control_timestep()
    assert len(found) >= 4
    assert gaps.min() >= 0.24
    assert gaps.max() <= 0.76
    assert len(set(gaps)) > 1
    assert pushes(0, 1.0) == found
    assert pushes(1, 0.0) != found


def test_a_robot_whose_mass_is_drawn_is_pushed_as_it_is_in_the_episode():
    env = envs.Push(envs.make("cheetah-run", factors={"mass": [0.5, 2.0]}), speed_m_s=0.5)
    usual = envs.Push(envs.make("cheetah-run"), speed_m_s=0.5).impulse_n_s
    drawn = []
    for seed in range(3):
        env.reset(seed=seed)
        drawn.append(task_env_of(env).factors["mass"])
        assert env.impulse_n_s == pytest.approx(drawn[-1] * usual)
    assert len(set(drawn)) == 3


def test_nothing_is_left_of_a_push_after_its_step():
    env = envs.Push(envs.make("walker-walk"), speed_m_s=1.0, interval_s=0.03)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(6))
        assert not env.unwrapped.dm_env.physics.data.xfrc_applied.any()


def test_what_is_pushed_is_the_heaviest_body_that_moves():
    model = envs.make("cheetah-run").simulation.model
    assert model.body(pushed_body(model)).name == "torso"
    assert robot_mass_kg(model, pushed_body(model)) == pytest.approx(model.body_subtreemass[0])


@pytest.mark.parametrize("given", [0.3, [0.1, 0.0, 0.5, 0.2, 0.0]])
def test_noise_has_the_std_that_was_asked_for_and_leaves_the_physics_alone(given):
    env = envs.make("cartpole-swingup")
    noisy = envs.ObservationNoise(envs.make("cartpole-swingup"), std={"state": np.array(given)})
    difference = play(noisy, 999) - play(env, 999)
    assert difference.std(0) == pytest.approx(np.broadcast_to(given, 5), rel=0.1)
    assert difference.mean(0) == pytest.approx(0, abs=0.06)
    assert play(noisy, 5).dtype == np.float32
    np.testing.assert_array_equal(play(noisy, 20), play(noisy, 20))
    assert (
        play(noisy, 0, seed=0) - play(env, 0, seed=0) != play(noisy, 0, seed=1) - play(env, 0, seed=1)
    ).any()


def test_noise_on_images_stays_an_image():
    space = {"observe": ["state", "pixels"], "image_size": 16}
    noisy = envs.ObservationNoise(envs.make("cartpole-swingup", **space), std={"pixels": 20.0})
    observation, _ = noisy.reset(seed=0)
    plain, _ = envs.make("cartpole-swingup", **space).reset(seed=0)
    assert observation["pixels"].dtype == np.uint8
    change = observation["pixels"].astype(float) - plain["pixels"]
    assert 10 < change.std() < 21  # black and white are the end of it
    np.testing.assert_array_equal(observation["state"], plain["state"])


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_an_observation_that_is_delayed_is_the_one_of_so_many_steps_before(num_steps):
    seen = play(envs.ObservationDelay(envs.make("walker-walk"), num_steps=num_steps), 12)
    usual = play(envs.make("walker-walk"), 12)
    for step in range(13):
        np.testing.assert_array_equal(seen[step], usual[max(0, step - num_steps)])


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_an_action_that_is_delayed_acts_so_many_steps_later(num_steps):
    env = envs.make("walker-walk")
    delayed = envs.ActionDelay(envs.make("walker-walk"), num_steps=num_steps)
    for _ in range(2):  # nothing of the first episode is left in the second
        actions = np.random.default_rng(0).uniform(-1, 1, (12, 6)).astype(np.float32)
        env.reset(seed=4)
        delayed.reset(seed=4)
        for played, given in zip([*np.zeros((num_steps, 6), np.float32), *actions], actions, strict=False):
            np.testing.assert_array_equal(env.step(played)[0]["state"], delayed.step(given)[0]["state"])


def test_an_action_on_its_way_is_not_what_the_caller_writes_into_theirs_meanwhile():
    delayed = envs.ActionDelay(envs.make("walker-walk"), num_steps=1)
    states = []
    for writes in (False, True):
        delayed.reset(seed=4)
        action = np.full(6, 0.5, np.float32)
        delayed.step(action)
        if writes:
            action[:] = -0.5
        states.append(delayed.step(np.zeros(6))[0]["state"])
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_environment_of_a_vector_is_disturbed_by_a_chance_of_its_own(how):
    def starts(**kwargs):
        vector = envs.make_vec("cartpole-swingup", num_envs=3, seed=1, how=how, **kwargs)
        states = vector.reset()[0]["state"]
        seeds = vector.env_seeds
        vector.close()
        return states, seeds

    wrap = partial(envs.ObservationNoise, std={"state": 0.1})
    (noisy, seeds), (plain, _) = starts(wrappers=[wrap]), starts()
    noise = np.round(noisy - plain, 5)
    assert len({tuple(each) for each in noise}) == 3
    for seed, state in zip(seeds, noisy, strict=True):  # which is that of its first seed
        np.testing.assert_array_equal(
            wrap(envs.make("cartpole-swingup", seed=seed)).reset()[0]["state"], state
        )


def test_disturbances_go_on_top_of_each_other_and_into_vectors():
    wrappers = [
        partial(envs.Push, speed_m_s=1.0),
        partial(envs.ActionDelay, num_steps=2),
        partial(envs.ObservationNoise, std={"state": 0.1}),
        partial(envs.ObservationDelay, num_steps=1),
    ]
    one = envs.make("cheetah-run")
    for wrapper in wrappers:
        one = wrapper(one)
    alone = play(one, 50, seed=7)
    assert task_env_of(one).task == "cheetah-run"
    for how in ("sync", "async"):
        vector = envs.make_vec("cheetah-run", num_envs=2, how=how, wrappers=wrappers)
        states = [vector.reset(seed=[6, 7])[0]["state"][1]]
        chance = np.random.default_rng(7)
        for _ in range(50):
            action = chance.uniform(-1, 1, 6)
            states.append(vector.step(np.stack([np.zeros(6), action]))[0]["state"][1])
        np.testing.assert_array_equal(states, alone)
        assert vector.task == "cheetah-run"
        assert vector.physics_states().shape[0] == 2
        vector.close()


@needs_batch
def test_a_vector_of_disturbed_tasks_is_not_stepped_as_bare_ones():
    wrappers = [partial(envs.ActionDelay, num_steps=1)]
    vector = envs.make_vec("cheetah-run", num_envs=4, wrappers=wrappers)
    assert isinstance(vector, envs.SyncTaskVectorEnv)
    vector.close()
    with pytest.raises(envs.UnsupportedEnvError, match="leave out wrappers"):
        envs.make_vec("cheetah-run", num_envs=4, how="batch", wrappers=wrappers)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (partial(envs.Push, speed_m_s=-1.0), "speed_m_s=-1.0: must be at least 0"),
        (partial(envs.Push, speed_m_s=float("nan")), "speed_m_s=nan"),
        (partial(envs.Push, speed_m_s=1.0, interval_s=0.0), "interval_s=0.0: must be above 0"),
        (partial(envs.ObservationDelay, num_steps=-1), "num_steps=-1: must be at least 0"),
        (partial(envs.ActionDelay, num_steps=-2), "num_steps=-2: must be at least 0"),
        (
            partial(envs.ObservationNoise, std={"pixels": 1.0}),
            "noise on 'pixels', and what is observed is state",
        ),
        (partial(envs.ObservationNoise, std={"state": -1.0}), "at least 0"),
        (partial(envs.ObservationNoise, std={"state": np.ones(3)}), r"each entry \(5,\)"),
    ],
)
def test_wrong_disturbances_are_refused(wrap, said):
    with pytest.raises(envs.EnvError, match=said):
        wrap(envs.make("cartpole-swingup"))


def test_a_task_without_mujoco_cannot_be_pushed():
    with pytest.raises(envs.EnvError, match="no MuJoCo physics state"):
        envs.Push(envs.make("Pendulum-v1"), speed_m_s=1.0)
