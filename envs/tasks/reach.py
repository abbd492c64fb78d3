"""reach: an arm of seven joints brings its fingertip to a place in space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.errors import EnvError
from envs.factors import camera_height, damping, hue, mass
from envs.mjcf_task import MjcfTask

if TYPE_CHECKING:
    import mujoco

REACHED_M = 0.05
_MARGIN_M = 0.5  # beyond REACHED_M, where the reward has fallen to 0.1
_MIN_WAY_M = 0.2  # from the start's fingertip to the goal

# The fingertip is within here at start and goal: above the table, and in all cameras' sight.
_LOW_M, _HIGH_M = np.array([0.2, -0.5, 0.06]), np.array([0.7, 0.5, 0.75])

_HOME_RAD = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.785])
_START_RAD = 0.4  # how far from home each joint may start
_LIMIT_SHARE = 0.05  # of a joint's range, at both ends, which goals leave alone: no arm at full stretch
_MAX_DRAWS = 10_000

# Inverse kinematics: Levenberg-Marquardt, with damping that vanishes with the error (Sugihara 2011,
# "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method", IEEE T-RO 27(5)).
_PRECISION_M = 1e-8
_MAX_ITERATIONS = 60
_MAX_RESTARTS = 30
_MAX_STEP_RAD = 0.5
_LIMIT_MARGIN_RAD = 1e-3

_LINKS = [f"link{index}" for index in range(1, 8)]
_JOINTS = [f"joint{index}" for index in range(1, 8)]
_COLOURED = ("column", "upper_arm", "bend", "below_elbow", "forearm", "beside_wrist")


class Reach(MjcfTask):
    """Bring the fingertip of a seven-joint arm to a place above the table.

    An action is the joints' speeds, in shares of 1.5 rad/s; the arm's weight is compensated, so without an
    action it stands still. Many joint configurations reach a place, and the last joint only turns the hand.
    The arm goes neither through the table nor through itself.
    """

    name = "reach"
    control_period_s = 0.05
    num_env_steps = 100

    def observe(self, readings: Readings) -> np.ndarray:
        """Joint angles (7), their velocities (7), fingertip (3), goal (3): O = 20."""
        return np.concatenate(
            [readings.qpos, readings.qvel, self.achieved(readings), self.goal(readings)], axis=-1
        )

    def reward(self, readings: Readings) -> np.ndarray:
        """1 at the goal, falling with the distance."""
        return tolerance(self._distance_m(readings), (0.0, REACHED_M), margin=_MARGIN_M, sigmoid="long_tail")

    def draw_start(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """About home, the arm over the table."""
        for _ in range(_MAX_DRAWS):
            data.qpos[:] = _HOME_RAD + rng.uniform(-_START_RAD, _START_RAD, model.nq)
            if _is_in_sight(model, data) and not _touches(model, data):
                return
        raise EnvError(f"reach: none of {_MAX_DRAWS} starts is free of contacts and in sight")

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Where random joint angles bring the fingertip, in sight and some way off: x, y, z."""
        import mujoco

        start = data.site("fingertip").xpos
        low, high = _joint_limits(model, share=_LIMIT_SHARE)
        drawn = mujoco.MjData(model)
        for _ in range(_MAX_DRAWS):
            drawn.qpos[:] = rng.uniform(low, high)
            if not _is_in_sight(model, drawn) or _touches(model, drawn):
                continue
            goal = drawn.site("fingertip").xpos
            if np.linalg.norm(goal - start) >= _MIN_WAY_M:
                return np.array(goal)
        raise EnvError(f"reach: none of {_MAX_DRAWS} goals is in sight and {_MIN_WAY_M} m from the start")

    def reach_goal(self, model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> None:
        """Bring the fingertip there, from the present joint angles if possible. Errors: `EnvError`."""
        import mujoco

        for qpos in _first_guesses(model, data):
            data.qpos[:] = qpos
            if _bring_fingertip(model, data, goal):
                mujoco.mj_kinematics(model, data)
                if not _touches(model, data):
                    return
        shoulder = data.body("link1").xpos
        raise EnvError(
            f"reach: found no joint angles that bring the fingertip to {np.round(goal, 3).tolist()}, "
            f"{np.linalg.norm(goal - shoulder):.2f} m from the shoulder at "
            f"{np.round(shoulder, 3).tolist()}: a goal is x, y, z in m, above the table (z > 0), less than "
            "1 m from the shoulder and clear of the arm's own foot"
        )

    def achieved(self, readings: Readings) -> np.ndarray:
        """Where the fingertip is."""
        return readings.sensor("fingertip")

    def is_solved(self, readings: Readings) -> np.ndarray:
        """Whether the fingertip is within 5 cm."""
        return self._distance_m(readings) <= REACHED_M

    def _distance_m(self, readings: Readings) -> np.ndarray:
        distance: np.ndarray = np.linalg.norm(self.achieved(readings) - self.goal(readings), axis=-1)
        return distance

    # No gravity, no friction: the arm's weight is compensated, and its contacts have none.
    factors: ClassVar = {
        "mass": mass(*_LINKS),
        "damping": damping(*_JOINTS),
        "hue": hue(*_COLOURED),
        "camera_height": camera_height("front"),
    }


def _joint_limits(model: mujoco.MjModel, *, share: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest joint angles, less a share of the range and a little at both ends."""
    low, high = model.jnt_range.T
    margin = share * (high - low) + _LIMIT_MARGIN_RAD
    return low + margin, high - margin


def _is_in_sight(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Whether the fingertip is in the workspace; brings the places of `data` up to date."""
    import mujoco

    mujoco.mj_kinematics(model, data)
    place = data.site("fingertip").xpos
    return bool((place >= _LOW_M).all() and (place <= _HIGH_M).all())


def _touches(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Whether the arm touches anything, given the places of `data`."""
    import mujoco

    mujoco.mj_collision(model, data)
    return bool(data.ncon)


def _first_guesses(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[np.ndarray]:
    """Joint angles to start from: the present ones, home, then random ones that are always the same."""
    low, high = _joint_limits(model)
    yield np.clip(data.qpos, low, high)
    yield _HOME_RAD
    rng = np.random.default_rng(0)
    for _ in range(_MAX_RESTARTS):
        yield rng.uniform(low, high)


def _bring_fingertip(model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> bool:
    """Move the joints, within their limits, until the fingertip is at the goal; whether it got there."""
    import mujoco

    low, high = _joint_limits(model)
    site = model.site("fingertip").id
    jacobian = np.empty((3, model.nv))
    for _ in range(_MAX_ITERATIONS):
        mujoco.mj_kinematics(model, data)
        error = goal - data.site_xpos[site]
        distance_m = np.linalg.norm(error)
        if distance_m <= _PRECISION_M:
            return True
        mujoco.mj_comPos(model, data)  # mj_jacSite reads it
        mujoco.mj_jacSite(model, data, jacobian, None, site)
        damping = (0.1 * distance_m**2 + 1e-9) * np.eye(3)
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping, error)
        is_stuck = ((data.qpos <= low) & (step < 0)) | ((data.qpos >= high) & (step > 0))
        if is_stuck.any():  # the others do its share
            jacobian[:, is_stuck] = 0.0
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping, error)
        step *= min(1.0, _MAX_STEP_RAD / max(np.abs(step).max(), 1e-12))
        data.qpos[:] = np.clip(data.qpos + step, low, high)
    return False
