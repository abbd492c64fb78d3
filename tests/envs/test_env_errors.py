"""Errors name the value, the rule and the way out."""

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs.batch_task import model_constant


class ToyEnv(gymnasium.Env):
    """Ends never; what it returns is set by keyword."""

    def __init__(self, action_space=None, observation_space=None, observation=None, reward=0.0):
        self.action_space = action_space or spaces.Box(-2.0, 2.0, (2,))
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (3,))
        self.observation = np.zeros(3, np.float32) if observation is None else observation
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0 if isinstance(self.observation_space, spaces.Box) else {
            key: space.sample() for key, space in self.observation_space.items()
        }, {}

    def step(self, action):
        return self.observation, self.reward, False, False, {}


@pytest.fixture
def toy():
    """Registers a `ToyEnv` with the given arguments, gone after the test."""

    def register(**arguments):
        gymnasium.register("Toy-v0", entry_point=ToyEnv, kwargs=arguments)
        return "Toy-v0"

    yield register
    gymnasium.registry.pop("Toy-v0", None)


@pytest.mark.parametrize(
    ("task", "suggestion"),
    [
        ("cartpole-swingpu", "cartpole-swingup"),
        ("walker-wlak", "walker-walk"),
        ("halfcheetah-v5", "HalfCheetah-v5"),
        ("cheetah", "cheetah-run"),
    ],
)
def test_unknown_task_names_similar_ones(task, suggestion):
    with pytest.raises(envs.UnknownTaskError) as caught:
        envs.make(task)
    assert repr(task) in str(caught.value)
    assert suggestion in str(caught.value)
    assert "envs.task_names()" in str(caught.value)


def test_unknown_task_far_from_all_says_how_to_list():
    with pytest.raises(envs.UnknownTaskError, match=r"no task 'zzzz': envs.task_names\(\) lists"):
        envs.make("zzzz")


def test_missing_package_gives_the_real_reason():
    gymnasium.register("Missing-v0", entry_point="no_such_package:Env")
    try:
        with pytest.raises(
            envs.EnvError, match=r"Missing-v0 is registered, but cannot be made.*no_such_package"
        ):
            envs.make("Missing-v0")
    finally:
        gymnasium.registry.pop("Missing-v0")
    with pytest.raises(envs.EnvError, match="the module 'no_such_module' cannot be imported"):
        envs.make("no_such_module:Env-v0")


def test_discrete_actions_are_refused():
    with pytest.raises(
        envs.UnsupportedEnvError, match=r"CartPole-v1 has the action space Discrete\(2\).*vector of"
    ):
        envs.make("CartPole-v1")


def test_unbounded_actions_are_refused(toy):
    with pytest.raises(envs.UnsupportedEnvError, match=r"Toy-v0 has the action space Box.*must have bounds"):
        envs.make(toy(action_space=spaces.Box(-np.inf, np.inf, (2,))))


def test_image_observations_are_no_state(toy):
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    with pytest.raises(
        envs.UnsupportedEnvError, match=r"Toy-v0 has the observation space Box.*other than images"
    ):
        envs.make(toy(observation_space=image))
    gymnasium.registry.pop("Toy-v0")
    with pytest.raises(envs.UnsupportedEnvError, match="other than images"):
        envs.make(toy(observation_space=spaces.Dict(camera=image)))


def test_dict_observations_are_flattened_without_images(toy):
    space = spaces.Dict(
        arm=spaces.Box(-1, 1, (2,)),
        camera=spaces.Box(0, 255, (8, 8, 3), np.uint8),
        goal=spaces.Box(-1, 1, (3,)),
    )
    env = envs.make(toy(observation_space=space))
    observation, _ = env.reset()
    assert observation in env.observation_space
    assert observation["state"].shape == (5,)
    assert env.control_period_s is None
    assert env.episode_length is None
    assert env.can_terminate is True


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"an action has shape \(1,\), got \(3,\)"),
        (np.zeros((1, 1)), "a batch of actions needs envs.make_vec"),
        (0.5, r"got \(\)"),
        ([np.nan], r"must be finite numbers in \[-1, 1\], got \[nan\]"),
        ([np.inf], r"got \[inf\]"),
        ("left", r"an array of shape \(1,\) on the CPU, got 'left'"),
        (None, "got"),
    ],
)
def test_invalid_actions_are_refused_and_change_nothing(action, message):
    env = envs.make("pendulum-swingup")
    env.reset()
    before = env.physics_state()
    with pytest.raises(envs.InvalidActionError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.physics_state(), before)
    env.step(np.zeros(1))


def test_a_reward_that_is_no_number_is_reported(toy):
    env = envs.make(toy(reward=float("nan")))
    env.reset()
    with pytest.raises(envs.SimulationError, match="Toy-v0 diverged at agent step 1: the reward is nan"):
        env.step(np.zeros(2))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_an_observation_that_is_no_float32_number_is_reported(toy, bad):
    wide = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    env = envs.make(toy(observation_space=wide, observation=np.array([0.0, bad, 0.0])))
    env.reset()
    with pytest.raises(
        envs.SimulationError, match=r"agent step 1: entries \[1\] of the state are \[(nan|inf)\]"
    ):
        env.step(np.zeros(2))


@pytest.mark.parametrize("task", ["walker-walk", "HalfCheetah-v5"])
def test_diverged_physics_is_reported_and_reset_helps(task):
    env = envs.make(task)
    env.reset(seed=0)
    env.step(env.action_space.high)
    env.simulation.data.qvel[:] = 1e30  # MuJoCo calls this a bad state, and would silently start afresh
    with pytest.raises(envs.SimulationError, match=rf"{task} diverged at agent step 2: .*reset\(\) to go on"):
        env.step(env.action_space.high)
    env.reset()
    env.step(env.action_space.high)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action_repeat": 0}, "action_repeat=0, and an action is applied at least once"),
        ({"observe": ()}, r"observe=\(\), and it is a non-empty sequence"),
        ({"observe": ("images",)}, "observe=.*'images'.*'state', 'pixels'"),
        ({"observe": "state"}, "observe='state'"),
        ({"image_size": 0}, "image_size=0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(envs.EnvError, match=message):
        envs.make("pendulum-swingup", **arguments)


def test_physics_state_of_a_task_without_mujoco():
    env = envs.make("Pendulum-v1")
    env.reset()
    with pytest.raises(
        envs.EnvError, match="Pendulum-v1 has no MuJoCo physics state: take a dm_control task"
    ):
        env.physics_state()


def test_physics_states_of_another_size_or_with_nan_are_refused():
    env = envs.make("pendulum-swingup")
    env.reset()
    state = env.physics_state()
    with pytest.raises(envs.EnvError, match=rf"finite vector of {state.size} numbers, got shape \(3,\)"):
        env.set_physics_state(np.zeros(3))
    with pytest.raises(envs.EnvError, match="with NaN or inf"):
        env.set_physics_state(np.full_like(state, np.nan))


def test_drawing_without_its_package_names_the_package():
    try:
        import pygame  # noqa: F401
    except ImportError:
        env = envs.make("Pendulum-v1")
        env.reset()
        with pytest.raises(envs.RenderingError, match=r"Pendulum-v1 cannot be rendered: .*pygame"):
            env.render()
    else:
        env = envs.make("Pendulum-v1", observe=("pixels",))
        assert env.reset()[0]["pixels"].shape == (3, 64, 64)


def test_a_task_that_cannot_be_drawn_says_so(toy):
    env = envs.make(toy())
    env.reset()
    with pytest.raises(envs.RenderingError, match="Toy-v0 has no rgb_array render mode"):
        env.render()


def test_a_thing_that_a_task_needs_and_its_file_has_not_is_named():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom name='a' size='1'/></worldbody></mujoco>"
    )
    assert model_constant(model, "geom", "a", "size")[0] == 1.0
    with pytest.raises(envs.EnvError, match="the task's MJCF has no geom 'door', which the task needs"):
        model_constant(model, "geom", "door", "size")
