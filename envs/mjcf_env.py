"""`MjcfEnv`: one of our own tasks behind Gymnasium."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction

from envs.angles import find_angles
from envs.batch_task import Readings, constants_of
from envs.episode_goal import checked_goal
from envs.errors import EnvError, one_line
from envs.factors import Variation
from envs.loaded_task import LoadedTask
from envs.mjcf_file import compiled
from envs.mjcf_task import GOAL_GROUP, MjcfTask
from envs.model_copy import sensor_places
from envs.rendering import find_camera
from envs.simulation import Simulation

if TYPE_CHECKING:
    import mujoco

_MAX_DRAWS = 1000  # of a goal that the start has not reached
_MAX_SUBSTEPS = 10_000  # physics steps of one control step


class MjcfEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One of our own tasks: observations float32 (O,), actions in the motors' bounds, float32 (A,).

    Args:
        task: what is to be done.
        factors: what varies, and how: see `envs.factors`. Errors: `EnvError`.
    """

    is_rewarded = True  # by reaching the goal

    def __init__(self, task: MjcfTask, factors: Mapping[str, Any] | None = None) -> None:
        import mujoco

        self.task = task
        self._variation = Variation.parse(task.name, task.factors, factors or {})
        self._compiled = compiled(task.load_spec(), task.path)
        model = copy.copy(self._compiled)
        self.simulation = Simulation(model, mujoco.MjData(model))
        self._places = sensor_places(model)
        self.factors: dict[str, float] = {}
        self.goal = np.zeros(0)
        self._num_steps = 0
        self._num_bad = 0
        try:
            self.num_substeps = _num_substeps(task.control_period_s, model.opt.timestep)
            low, high = model.actuator_ctrlrange.T.astype(np.float32)
            self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
            observation, _ = self.reset(seed=0)
        except (KeyError, IndexError, ValueError, AssertionError) as error:  # what is asked for is not in it
            raise EnvError(f"{task.path} is no model of the task {task.name}: {one_line(error)}") from error
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, observation.shape, np.float32)

    @property
    def num_goal_steps(self) -> int:
        """Env steps in which the goal must be reached: a whole episode."""
        return self.task.num_env_steps

    @property
    def varies_model(self) -> bool:
        """Whether episodes have models of their own, by more than the goal."""
        return bool(self._variation.ranges)

    @property
    def chance(self) -> dict[str, Any]:
        """What the coming episodes are drawn from."""
        return dict(self.np_random.bit_generator.state)

    @chance.setter
    def chance(self, chance: dict[str, Any]) -> None:
        self.np_random.bit_generator.state = chance

    def undo_factors(self, model: mujoco.MjModel) -> None:
        """Make a copy of the model what it is without factors."""
        self._variation.undo(model, self._compiled)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw factors, a start, and a goal that it has not reached."""
        import mujoco

        super().reset(seed=seed)
        model, data, rng = self.simulation.model, self.simulation.data, self.np_random
        self.factors = self._variation.draw(rng)
        if self.factors:
            self._variation.apply(model, self._compiled, self.factors)
        mujoco.mj_resetData(model, data)
        self.task.draw_start(model, data, rng)
        mujoco.mj_forward(model, data)
        for _ in range(_MAX_DRAWS):
            self.set_goal(self.task.draw_goal(model, data, rng))
            if not self.is_solved():
                break
        else:
            raise EnvError(f"{self.task.name}: each of {_MAX_DRAWS} goals was reached at the start already")
        self._num_steps, self._num_bad = 0, self.simulation.num_divergences()
        return self.observe(), {"factors": dict(self.factors)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step. Errors: `FloatingPointError` if the simulation diverges."""
        import mujoco

        model, data = self.simulation.model, self.simulation.data
        data.ctrl[:] = action
        mujoco.mj_step(model, data, self.num_substeps)
        mujoco.mj_step1(model, data)  # what is read belongs to the state after the step
        self._num_steps += 1
        if self.simulation.num_divergences() > self._num_bad:
            raise FloatingPointError("MuJoCo found NaN, inf or huge values in the physics state")
        readings = self._readings()
        reward = float(self.task.reward(readings)[0])
        is_over = self._num_steps >= self.task.num_env_steps
        return self._observation(readings), reward, False, is_over, {}

    def observe(self) -> np.ndarray:
        """What is observed now, float32 (O,)."""
        return self._observation(self._readings())

    def is_solved(self) -> bool:
        """Whether the goal is reached now."""
        return bool(self.task.is_solved(self._readings())[0])

    def set_goal(self, goal: np.ndarray) -> None:
        """Let another goal (G,) stand, from now until the next episode. Errors: `EnvError`."""
        import mujoco

        self.goal = checked_goal(goal, self.goal.size or np.size(goal), self.task.name)
        self.task.write_goal(self.simulation.model, self.goal)
        mujoco.mj_kinematics(self.simulation.model, self.simulation.data)  # for who draws the goal

    def achieved_goal(self) -> np.ndarray:
        """The goal (G,) that the present state has reached."""
        return np.array(self.task.achieved(self._readings())[0])

    def goal_state(self) -> np.ndarray:
        """A physics state in which the goal is reached, at rest."""

        def reach(data: mujoco.MjData) -> None:
            self.task.reach_goal(self.simulation.model, data, self.goal)

        return self.simulation.state_at_rest(reach)

    def _observation(self, readings: Readings) -> np.ndarray:
        with np.errstate(all="ignore"):  # a number beyond float32 becomes inf, which the caller reports
            return self.task.observe(readings)[0].astype(np.float32)

    def _readings(self) -> Readings:
        data = self.simulation.data
        return Readings(
            qpos=data.qpos[None],
            qvel=data.qvel[None],
            control=data.ctrl[None],
            diverged=np.zeros(1, np.bool_),
            sensordata=data.sensordata[None],
            acceleration_sensordata=data.sensordata[None],
            places=self._places,
            constants=constants_of([self.simulation.model]),
        )


def load_mjcf_task(task: MjcfTask, factors: Mapping[str, Any] | None = None) -> LoadedTask:
    """Load one of our own tasks. Errors: `EnvError` for factors that it does not have."""
    import mujoco

    env = MjcfEnv(task, factors)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    needs_rescaling = bool((low != -1.0).any() or (high != 1.0).any())
    return LoadedTask(
        name=task.name,
        env=RescaleAction(env, np.float32(-1.0), np.float32(1.0)) if needs_rescaling else env,
        env_step_s=task.control_period_s,
        num_env_steps=task.num_env_steps,
        can_terminate=False,
        angles=find_angles(env, env.simulation),
        simulation=env.simulation,
        default_camera=find_camera(env.simulation, 0, mujoco.MjvCamera()),
        observe=env.observe,
        goal=env,
        goal_group=GOAL_GROUP,
        divergence_errors=(FloatingPointError,),
    )


def _num_substeps(control_period_s: float, timestep_s: float) -> int:
    """Physics steps of one control step. Errors: `EnvError` for none, and for more than anybody waits for."""
    steps = control_period_s / timestep_s if timestep_s > 0 else np.inf
    if not 0.5 <= steps <= _MAX_SUBSTEPS:
        raise EnvError(
            f"a timestep of {timestep_s:g} s makes {steps:g} physics steps of a control step of "
            f"{control_period_s:g} s: from 1 to {_MAX_SUBSTEPS}"
        )
    return round(steps)
