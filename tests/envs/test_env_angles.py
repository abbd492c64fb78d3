"""Which entries of an observation are angles that wind up."""

import gymnasium
import mujoco
import numpy as np
import pytest

import envs
from envs.angles import find_angles
from envs.simulation import Simulation


@pytest.mark.parametrize(
    ("task", "angles"),
    [
        ("reacher-easy", (0,)),  # the shoulder; the wrist has limits
        ("cheetah-run", (1,)),  # the torso's pitch
        ("cartpole-swingup", ()),  # observes sine and cosine itself
        ("finger-spin", ()),  # of the spinner it observes no angle
        ("ball-in-cup-catch", ()),  # has no hinge
        ("HalfCheetah-v5", (1,)),
        ("Hopper-v5", ()),  # ends when it leans too far: a full turn is not the same there
        ("Pendulum-v1", ()),  # no MuJoCo
    ],
)
def test_angles_of_known_tasks(task, angles):
    with envs.make(task) as env:
        assert env.angles == angles


def test_a_vector_environment_says_what_its_environments_say():
    env = envs.make_vec("reacher-easy", num_envs=2)
    assert env.angles == (0,)
    env.close()


def test_to_look_for_angles_changes_no_episode():
    with envs.make("reacher-easy", seed=3) as first, envs.make("reacher-easy", seed=3) as second:
        simulation = second.simulation
        find_angles(second.unwrapped, simulation)
        np.testing.assert_array_equal(first.reset()[0]["state"], second.reset()[0]["state"])


class Arm(gymnasium.Env):
    """One hinge that observes its angle and speed; `attributes` are the joint's, in MJCF."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(
        self,
        attributes: str = "",
        actuator: str = "motor",
        pays_for_turns: bool = False,
        max_angle: float = np.inf,
    ) -> None:
        self.model = mujoco.MjModel.from_xml_string(f"""
            <mujoco><worldbody><body><joint name="arm" axis="0 1 0" {attributes}/>
            <geom type="capsule" size=".1" fromto="0 0 0 1 0 0"/></body></worldbody>
            <actuator><{actuator} joint="arm"/></actuator></mujoco>""")
        self.data, self.pays_for_turns = mujoco.MjData(self.model), pays_for_turns
        self.max_angle = max_angle

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return self._state(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        reward = self.data.qpos[0] if self.pays_for_turns else np.cos(self.data.qpos[0])
        return self._state(), reward, bool(abs(self.data.qpos[0]) > self.max_angle), False, {}

    def _state(self):
        return np.concatenate([self.data.qpos, self.data.qvel])


@pytest.mark.parametrize(
    ("arguments", "angles"),
    [
        ({}, (0,)),
        ({"attributes": 'limited="true" range="-720 720"'}, ()),
        ({"attributes": 'stiffness="5"'}, ()),
        ({"actuator": "position"}, ()),
        ({"pays_for_turns": True}, ()),
        ({"max_angle": 3.0}, ()),
    ],
)
def test_a_hinge_counts_only_where_a_turn_changes_nothing_else(arguments, angles):
    arm = Arm(**arguments)
    assert find_angles(arm, Simulation(arm.model, arm.data)) == angles
