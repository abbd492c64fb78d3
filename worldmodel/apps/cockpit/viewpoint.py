"""From where a robot is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import envs
from worldmodel.apps.cockpit.kinematics import moving_bodies

if TYPE_CHECKING:
    import mujoco

FOV_RAD = 0.75  # of the camera, vertical


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """A camera's place and what it looks at (3,), and how large the robot is.

    Robots that move in a horizontal plane are looked at from above, the others from the side.
    """

    position: np.ndarray
    look_at: np.ndarray
    radius_m: float

    @classmethod
    def of(cls, simulation: envs.Simulation) -> Viewpoint:
        """For a simulation as it is now."""
        model, data = simulation.model, simulation.data
        bodies = moving_bodies(model)
        moving = np.isin(model.geom_bodyid, bodies) & (model.geom_rgba[:, 3] > 0)
        places, sizes = data.geom_xpos[moving], model.geom_rbound[moving, None]
        low, high = (places - sizes).min(axis=0), (places + sizes).max(axis=0)
        travels = travelling_body(model) is not None
        if not travels:  # it may turn anywhere around its root, and slide to where its rails end
            root = data.xpos[bodies[0]]
            reach = float((np.linalg.norm(places - root, axis=1) + sizes[:, 0]).max())
            low, high = _with_rails(model, root - reach, root + reach)
        centre, radius = (low + high) / 2, float(max(0.05, (high - low)[[0, 2]].max() / 2))
        towards = np.array([0.0, -0.55, 0.85]) if _is_flat(model) else np.array([0.25, -1.0, 0.3])
        distance = 1.3 * radius / np.tan(FOV_RAD / 2)
        if travels:  # what is imagined lies ahead
            distance, centre = 1.7 * distance, centre + np.array([1.1 * radius, 0.0, 0.0])
        return cls(
            position=centre + towards / np.linalg.norm(towards) * distance,
            look_at=centre,
            radius_m=min(radius, 2.0),
        )


def travelling_body(model: mujoco.MjModel) -> int | None:
    """The body whose joint lets the robot go as far as it likes; None for one that stays where it is."""
    import mujoco

    for joint in range(model.njnt):
        kind, axis = model.jnt_type[joint], np.abs(model.jnt_axis[joint])
        is_slide = kind == mujoco.mjtJoint.mjJNT_SLIDE.value and axis[:2].max() > 0.5
        if kind == mujoco.mjtJoint.mjJNT_FREE.value or (is_slide and not model.jnt_limited[joint]):
            return int(model.jnt_bodyid[joint])
    return None


def _with_rails(model: mujoco.MjModel, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With how far limited slides go, from where their bodies are."""
    import mujoco

    for joint in range(model.njnt):
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE.value and model.jnt_limited[joint]:
            for end in model.jnt_range[joint]:
                place = model.body_pos[model.jnt_bodyid[joint]] + end * model.jnt_axis[joint]
                low, high = np.minimum(low, place), np.maximum(high, place)
    return low, high


def _is_flat(model: mujoco.MjModel) -> bool:
    """Whether all joints move in the horizontal plane."""
    import mujoco

    for joint in range(model.njnt):
        kind, up = model.jnt_type[joint], abs(model.jnt_axis[joint][2])
        is_hinge = kind == mujoco.mjtJoint.mjJNT_HINGE.value and up > 0.9
        is_slide = kind == mujoco.mjtJoint.mjJNT_SLIDE.value and up < 0.1
        if not (is_hinge or is_slide):
            return False
    return True
