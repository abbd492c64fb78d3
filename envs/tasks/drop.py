"""drop: things fall that nothing holds up; catch one of them on a tray, and hold it at a place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.batch_task import Readings, tolerance
from envs.errors import EnvError
from envs.factors import Factor, camera_height, friction, gravity, hue, mass, size
from envs.mjcf_task import MjcfTask
from envs.tasks.drop_scene import Scene, draw_scene, put_down
from envs.violations import gravity_off, pass_through, recolor, teleport, vanish

if TYPE_CHECKING:
    import mujoco

OBJECTS = ("ball", "box", "capsule")
_HARD = ("table", "left", "right", "ceiling", "shelf", "tray", "left_rim", "right_rim")
_MARKS = tuple(f"goal_{name}" for name in OBJECTS)  # static bodies: that of the target shows the goal
_NO_PLACE_M = np.array([0.0, -1.0])  # of the other marks: below the table, out of sight
REACHED_M = 0.06
_HELD_M_S = 0.25  # and no faster than this: who falls past the goal has not reached it
_GOAL_TRAY_M = (0.12, 0.8)  # heights of the tray at the goal
_SHELF_M = 0.5  # the usual height of its middle
_MAX_DRAWS = 1000


_SLIDES = {name: (f"{name}_x", f"{name}_z") for name in OBJECTS}
_FALLS_M_S = 0.5  # an object that sinks faster falls


def _falls(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    return min(float(data.joint(f"{name}_z").qvel[0]) for name in OBJECTS) < -_FALLS_M_S


class Drop(MjcfTask):
    """Catch a falling object, and hold it at a place.

    Of a ball, a box and a capsule some rest on the table or the shelf, and some are in free air and fall. The
    tray can be under one of these in time: the goal is which one (one of three numbers is 1: no object is
    between two others), and a place for it above the table. Where the others end up is nobody's aim. Most
    falls are over in 0.4 s: who does not foresee what falls, how fast, and what stops it, does not catch.
    """

    name = "drop"
    control_period_s = 0.04
    num_env_steps = 75

    def observe(self, readings: Readings) -> np.ndarray:
        """Of the tray x, z and velocities; of each object x, z, sin, cos, velocities; the goal: O = 30."""
        places, speeds = _by_object(readings.qpos), _by_object(readings.qvel)
        angle = places[..., 2:]
        objects = np.concatenate([places[..., :2], np.sin(angle), np.cos(angle), speeds], axis=-1)
        return np.concatenate(
            [
                readings.qpos[..., :2],
                readings.qvel[..., :2],
                objects.reshape(*objects.shape[:-2], -1),
                self.goal(readings),
            ],
            axis=-1,
        )

    def reward(self, readings: Readings) -> np.ndarray:
        """1 where the target is at its place, falling with the distance."""
        return tolerance(self._distance_m(readings), (0.0, REACHED_M), margin=0.5, sigmoid="long_tail")

    def draw_start(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """The tray anywhere low, objects at rest on something or in free air; one can be caught at least."""
        for _ in range(_MAX_DRAWS):
            scene = Scene.of(model, data)
            if draw_scene(scene, rng) and scene.catchable():
                data.qpos[:2] = scene.tray
                data.qpos[2:] = scene.objects.ravel()
                return
        raise EnvError(f"{self.name}: in none of {_MAX_DRAWS} draws an object could be caught")

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """One of the objects that can be caught, and a place for it on the tray, away from what stays."""
        scene = Scene.of(model, data)
        target = int(rng.choice(scene.catchable()))
        others = [scene.box(index) for index in range(3) if index != target and scene.is_held(index)]
        for _ in range(_MAX_DRAWS):
            scene.tray[:] = rng.uniform(*scene.tray_x_range), rng.uniform(*_GOAL_TRAY_M)
            scene.put_on_tray(target)
            held = [scene.tray_box(), scene.box(target)]
            if not any(box.overlaps(other) for box in held for other in [scene.shelf, *others]):
                return _as_goal(target, scene.objects[target, :2])
        raise EnvError(f"{self.name}: in none of {_MAX_DRAWS} draws there was a free place for the goal")

    def reach_goal(self, model: mujoco.MjModel, data: mujoco.MjData, goal: np.ndarray) -> None:
        """Put the target on the tray there; what is in the way or in free air, at rest near below it."""
        scene = Scene.of(model, data)
        target, place = int(np.argmax(goal[:3])), goal[3:]
        scene.objects[target, 2] = 0.0
        half_z = scene.half_extent(target, 0.0)[1]
        scene.tray[:] = place[0], place[1] - half_z - scene.tray_floor_m
        others = [index for index in range(3) if index != target]
        scene.objects[target, :2] = place
        floats = not model.opt.gravity.any()
        stays = {index: floats or scene.is_held(index) for index in others}
        taken = [scene.shelf, scene.tray_box(), scene.box(target)]
        for index in sorted(others, key=lambda index: not stays[index]):
            in_the_way = any(scene.box(index).overlaps(box) for box in taken[1:])
            if in_the_way or not stays[index]:
                put_down(scene, index, taken)
            taken.append(scene.box(index))
        data.qpos[:2], data.qpos[2:] = scene.tray, scene.objects.ravel()

    def achieved(self, readings: Readings) -> np.ndarray:
        """Where the target is; which one that is, the goal says."""
        return np.concatenate([self._is_target(readings), self._target(readings.qpos, readings)], axis=-1)

    def is_solved(self, readings: Readings) -> np.ndarray:
        """Whether the target is within 0.06 m of its place, and does not just fly past."""
        speed_m_s = np.linalg.norm(self._target(readings.qvel, readings), axis=-1)
        return (self._distance_m(readings) <= REACHED_M) & (speed_m_s <= _HELD_M_S)

    def goal(self, readings: Readings) -> np.ndarray:
        """Which object (one of three is 1), x, z."""
        marks = np.stack([readings.constant("body", name, "pos")[..., ::2] for name in _MARKS], axis=-2)
        is_target = (marks[..., 1] > _NO_PLACE_M[1]).astype(np.float64)
        goal = np.concatenate([is_target, (is_target[..., None] * marks).sum(axis=-2)], axis=-1)
        return np.broadcast_to(goal, (*readings.qpos.shape[:-1], goal.shape[-1]))

    def write_goal(self, model: mujoco.MjModel, goal: np.ndarray) -> None:
        """Put the target's mark there, the others out of sight."""
        target = int(np.argmax(goal[:3]))
        for index, name in enumerate(_MARKS):
            model.body(name).pos[::2] = goal[3:] if index == target else _NO_PLACE_M

    def _is_target(self, readings: Readings) -> np.ndarray:
        """Which object is the target: one of three is 1, [..., 3]."""
        return self.goal(readings)[..., :3]

    def _target(self, values: np.ndarray, readings: Readings) -> np.ndarray:
        """The target's x, z of qpos, or their velocities of qvel: [..., 2]."""
        chosen: np.ndarray = (self._is_target(readings)[..., None] * _by_object(values)[..., :2]).sum(axis=-2)
        return chosen

    def _distance_m(self, readings: Readings) -> np.ndarray:
        to_goal = self._target(readings.qpos, readings) - self.goal(readings)[..., 3:]
        return np.linalg.norm(to_goal, axis=-1)

    @staticmethod
    def _move_shelf(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        # The body's centre goes with its one geom: what MuJoCo keeps of its bounds is told from there.
        model.geom("shelf").pos[2] = value
        model.body("shelf").ipos[2] = value

    factors: ClassVar = {
        "gravity": gravity(),
        "mass": mass(*OBJECTS),
        # The rougher of two counts: all of them change. More than 2 wedges objects into walls.
        "friction": replace(friction(*OBJECTS, *_HARD), high=2.0),
        "size": replace(size(*OBJECTS, *_MARKS), high=1.5),  # larger ones do not fit between the rims
        "hue": hue(*OBJECTS, *_MARKS),
        "shelf_height": Factor(
            meaning="m, the middle of the shelf", default=_SHELF_M, low=0.4, high=0.65, apply=_move_shelf
        ),
        # So that the table and all above it stay in sight.
        "camera_height": replace(camera_height("side"), low=0.9, high=1.1),
    }
    violations: ClassVar = {
        "teleport": teleport(_SLIDES, far_m=0.3, low=(-0.45, 0.1), high=(0.45, 0.9)),
        "vanish": vanish(_SLIDES),
        "gravity_off": gravity_off(falling=_falls),
        "pass_through": pass_through(
            _SLIDES, meaning="objects go through shelf, tray and table", is_due=_falls
        ),
        "recolor": recolor(OBJECTS),
    }


def _by_object(values: np.ndarray) -> np.ndarray:
    """Numbers of each object in qpos or qvel, after the tray's two: [..., 3, 3]."""
    return values[..., 2:].reshape(*values.shape[:-1], 3, 3)


def _as_goal(target: int, place: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(3)[target], place])
