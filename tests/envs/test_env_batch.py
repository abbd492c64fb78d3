"""Environments stepped together in C++ are those of dm_control, to the bit, and mind Gymnasium's rules."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from live import needs_batch

import envs
from envs.rendering import egl_initialises, osmesa_loads
from envs.tasks import BATCH_TASKS
from envs.vector import SyncTaskVectorEnv

pytestmark = needs_batch
MODES = list(AutoresetMode)


def pair(task, **kwargs):
    """The same environments twice: stepped together, and one by one by dm_control."""
    return [envs.make_vec(task, seed=3, how=how, **kwargs) for how in ("batch", "sync")]


def random_actions(env, num_steps):
    shape = (num_steps, *env.action_space.shape)
    return np.random.default_rng(0).uniform(-1.2, 1.2, shape).astype(np.float32)


def require_equal(found, expected):
    """Two results of `step`: observations and flags to the bit, rewards to rounding."""
    assert found[0].keys() == expected[0].keys()
    for key in found[0]:
        np.testing.assert_array_equal(found[0][key], expected[0][key])
        assert found[0][key].dtype == expected[0][key].dtype
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-12)
    for index in (2, 3):
        np.testing.assert_array_equal(found[index], expected[index])


@pytest.mark.parametrize("task", BATCH_TASKS)
def test_whole_episodes_are_dm_controls(task):
    """An episode, its end, and the start of the next: of each task."""
    together, alone = pair(task, num_envs=2, action_repeat=2)
    first, expected = together.reset()[0], alone.reset()[0]
    np.testing.assert_array_equal(first["state"], expected["state"])
    for action in random_actions(together, together.episode_length + 2):
        require_equal(together.step(action), alone.step(action))
    np.testing.assert_array_equal(together.physics_states(), alone.physics_states())
    together.close()
    alone.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action_repeat", [1, 300])
def test_episodes_that_end_at_different_times(mode, action_repeat):
    """300 does not divide an episode: the last agent step of one is shorter."""
    num_envs = 3
    vectors = pair("reacher-easy", num_envs=num_envs, action_repeat=action_repeat, autoreset_mode=mode)
    for vector in vectors:
        vector.reset()
    num_steps = 1010 if action_repeat == 1 else 10
    num_ends = 0
    actions = random_actions(vectors[0], num_steps)
    for step, action in enumerate(actions):
        found, expected = (vector.step(action) for vector in vectors)
        require_equal(found, expected)
        assert found[4].keys() == expected[4].keys()
        for key in ("_final_obs", "_final_info"):
            if key in expected[4]:
                np.testing.assert_array_equal(found[4][key], expected[4][key])
        if "final_obs" in expected[4]:
            for index in np.flatnonzero(expected[4]["_final_obs"]):
                final = [result[4]["final_obs"][index]["state"] for result in (found, expected)]
                np.testing.assert_array_equal(*final)
        if step == 1:  # one starts early, so that from here on they end at different times
            mask = np.array([False, True, False])
            np.testing.assert_array_equal(*reset_where(vectors, mask))
        has_ended = found[2] | found[3]
        num_ends += has_ended.sum()
        if mode == AutoresetMode.DISABLED and has_ended.any():
            np.testing.assert_array_equal(*reset_where(vectors, has_ended))
    assert num_ends >= num_envs
    for vector in vectors:
        vector.close()


def reset_where(vectors, mask):
    return [vector.reset(options={"reset_mask": mask})[0]["state"] for vector in vectors]


def test_the_number_of_threads_changes_nothing():
    vectors = [
        envs.make_vec("walker-run", num_envs=5, seed=1, how="batch", num_threads=threads)
        for threads in (1, 3)
    ]
    for vector in vectors:
        vector.reset()
    for action in random_actions(vectors[0], 50):
        require_equal(*(vector.step(action) for vector in vectors))


def test_a_seed_starts_the_episode_that_dm_control_draws_for_it():
    together = envs.make_vec("finger-turn-hard", num_envs=2, how="batch")
    single = envs.make("finger-turn-hard")
    observations, _ = together.reset(seed=[7, None], options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(observations["state"][0], single.reset(seed=7)[0]["state"])
    assert not observations["state"][1].any()  # not started
    together.reset(seed=[7, 8])
    action = np.full((2, 2), 0.5, np.float32)
    observation, *_ = together.step(action)
    np.testing.assert_array_equal(observation["state"][0], single.step(action[0])[0]["state"])


@pytest.mark.parametrize("task", BATCH_TASKS)
def test_what_an_episode_draws_into_the_model_is_named(task):
    """All other fields of the model stay as the first reset left them."""
    env = envs.make(task)
    env.reset(seed=0)
    model = env.simulation.model
    names = [name for name in dir(model) if isinstance(getattr(model, name, None), np.ndarray)]
    before = {name: getattr(model, name).copy() for name in names}
    changed = set()
    for seed in range(1, 4):
        env.reset(seed=seed)
        changed |= {name for name in names if (getattr(model, name) != before[name]).any()}
    # Colours are for people, and mj_setConst's derivatives follow what they are derived from.
    assert changed - {"site_rgba", "geom_rgba", "mat_rgba"} <= set(BATCH_TASKS[task].drawn_fields)


@pytest.mark.skipif(not (egl_initialises() or osmesa_loads()), reason="no OpenGL library works here")
def test_pixels_are_those_of_each_environment():
    together, alone = pair("reacher-easy", num_envs=2, observe=("state", "pixels"))
    for result in zip(together.reset()[0].items(), alone.reset()[0].items(), strict=True):
        np.testing.assert_array_equal(result[0][1], result[1][1])
    for action in random_actions(together, 3):
        require_equal(together.step(action), alone.step(action))
    images = [vector.render() for vector in (together, alone)]
    assert len(images[0]) == 2
    np.testing.assert_array_equal(*images)
    assert (images[0][0] != images[0][1]).any()


def test_steps_without_a_running_episode_are_refused():
    vector = envs.make_vec("pendulum-swingup", num_envs=2, how="batch", autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[0, 1\] have no running episode"):
        vector.step(np.zeros((2, 1)))
    vector.reset(options={"reset_mask": np.array([False, True])})
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[0\]"):
        vector.step(np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (np.zeros((3, 1)), r"actions of 2 environments have shape \(2, 1\), got \(3, 1\)"),
        (np.array([[0.0], [np.nan]]), "actions must be finite"),
    ],
)
def test_wrong_actions_are_refused(actions, expected):
    vector = envs.make_vec("pendulum-swingup", num_envs=2, how="batch")
    vector.reset()
    with pytest.raises(envs.InvalidActionError, match=expected):
        vector.step(actions)


@pytest.mark.parametrize("mask", [[True, False], np.array([True]), np.array([1, 0]), np.zeros(2, bool)])
def test_wrong_masks_are_refused(mask):
    vector = envs.make_vec("pendulum-swingup", num_envs=2, how="batch")
    with pytest.raises(envs.EnvError, match="reset_mask is"):
        vector.reset(options={"reset_mask": mask})
    with pytest.raises(envs.EnvError, match="seed has 3 entries, and there are 2"):
        vector.reset(seed=[1, 2, 3])


def test_a_diverged_simulation_is_named_and_can_be_reset():
    vector = envs.make_vec("hopper-hop", num_envs=3, how="batch", autoreset_mode=AutoresetMode.DISABLED)
    vector.reset()
    for _ in range(3):  # MuJoCo counts anew after each
        make_diverge(vector, 1)
        with pytest.raises(envs.SimulationError, match=r"hopper-hop diverged in environments \[1\]"):
            vector.step(np.zeros((3, 4)))
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[1\]"):
            vector.step(np.zeros((3, 4)))
        vector.reset(options={"reset_mask": np.array([False, True, False])})
        observation, *_ = vector.step(np.zeros((3, 4)))
        assert np.isfinite(observation["state"]).all()


def make_diverge(vector, index):
    bad = vector.physics_states()[index]
    if isinstance(vector, SyncTaskVectorEnv):
        vector.simulations[index].data.qvel[2] = np.nan  # a state that cannot be set
    else:
        bad[3] = 1e30
        vector._physics.set_state(index, bad)


def test_what_diverged_is_not_started_again_by_itself_and_what_ended_is():
    vector = envs.make_vec("hopper-hop", num_envs=3, how="batch", action_repeat=999)
    vector.reset()
    vector.step(np.zeros((3, 4)))
    make_diverge(vector, 1)
    with pytest.raises(envs.SimulationError):
        vector.step(np.zeros((3, 4)))  # the others end here
    with pytest.raises(gymnasium.error.ResetNeeded):
        vector.step(np.zeros((3, 4)))
    vector.reset(options={"reset_mask": np.array([False, True, False])})
    _, rewards, _, truncated, _ = vector.step(np.zeros((3, 4)))
    assert not truncated.any()  # the others have started, the one reset has played
    assert rewards[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("how", ["batch", "sync"])
@pytest.mark.parametrize("mode", MODES)
def test_after_a_divergence_all_is_well_once_those_named_are_reset(mode, how):
    """Also where others end in the same step."""
    vector, undisturbed = (
        envs.make_vec("hopper-hop", num_envs=3, seed=1, how=way, action_repeat=600, autoreset_mode=mode)
        for way in (how, "sync")
    )
    for each in (vector, undisturbed):
        each.reset()
    for _ in range(2):  # 600 env steps, and the other 400
        expected = undisturbed.step(np.zeros((3, 4)))
        if expected[3].any():
            make_diverge(vector, 1)
            with pytest.raises(envs.SimulationError, match=r"environments \[1\]") as caught:
                vector.step(np.zeros((3, 4)))
        else:
            vector.step(np.zeros((3, 4)))
    assert caught.value.environments == (1,)
    for index in (0, 2):  # all that the others did
        for found, value in zip(caught.value.result[:4], expected[:4], strict=True):
            found, value = ((each["state"] if isinstance(each, dict) else each) for each in (found, value))
            np.testing.assert_allclose(found[index], value[index], rtol=1e-12)
        if mode == AutoresetMode.SAME_STEP:
            final = [result[4]["final_obs"][index]["state"] for result in (caught.value.result, expected)]
            np.testing.assert_array_equal(*final)
    mask = np.array([False, True, False])
    if mode == AutoresetMode.DISABLED:
        assert "[1]" in str(caught.value)
        assert ", and for [0, 2], whose episodes are over," in str(caught.value)
        mask[:] = True
    vector.reset(options={"reset_mask": mask})
    observation, *_ = vector.step(np.zeros((3, 4)))
    assert np.isfinite(observation["state"]).all()


def test_ways_are_chosen_and_refused_by_name():
    kinds = {
        (task, num_envs): type(envs.make_vec(task, num_envs=num_envs)).__name__
        for task, num_envs in (("cheetah-run", 2), ("cheetah-run", 1), ("fish-swim", 2), ("Pendulum-v1", 2))
    }
    assert list(kinds.values()) == ["BatchTaskVectorEnv", *["SyncTaskVectorEnv"] * 3]
    with pytest.raises(
        envs.EnvError, match="how='bach': environments are stepped in one of these ways: auto"
    ):
        envs.make_vec("cheetah-run", num_envs=2, how="bach")
    with pytest.raises(envs.UnsupportedEnvError, match="no batched observation and reward"):
        envs.make_vec("fish-swim", num_envs=2, how="batch")
    with pytest.raises(envs.EnvError, match="num_threads=0"):
        envs.make_vec("cheetah-run", num_envs=2, num_threads=0)


def test_an_older_mujoco_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr("envs.registry.has_live_physics", lambda: False)
    assert type(envs.make_vec("cheetah-run", num_envs=2)).__name__ == "SyncTaskVectorEnv"
    with pytest.raises(envs.UnsupportedEnvError, match=r"needs mujoco\.batch, which came with MuJoCo 3\.17"):
        envs.make_vec("cheetah-run", num_envs=2, how="batch")
