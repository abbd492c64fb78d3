"""Where the parts of a robot are, for joint positions: on a copy, beside the simulation that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import envs
from worldmodel.apps.config import closest
from worldmodel.errors import ConfigError

if TYPE_CHECKING:
    import mujoco

_LONG = ("mjGEOM_CAPSULE", "mjGEOM_CYLINDER")  # along their own z


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """Positions (..., body, 3) in m and orientations (..., body, 4; w x y z) of all bodies."""

    positions: np.ndarray
    quaternions: np.ndarray

    def place(self, point: Point) -> np.ndarray:
        """Where a point is: (..., 3)."""
        w, v = self.quaternions[..., point.body, :1], self.quaternions[..., point.body, 1:]
        turned = point.offset + 2 * np.cross(v, np.cross(v, point.offset) + w * point.offset)
        return np.asarray(self.positions[..., point.body, :] + turned)

    def __getitem__(self, index: Any) -> Bodies:
        return Bodies(positions=self.positions[index], quaternions=self.quaternions[index])


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point fixed to a body, `offset` (3,) in the body's frame."""

    name: str
    body: int
    offset: np.ndarray


class Kinematics:
    """Forward kinematics of one model, with what an episode has drawn into it."""

    def __init__(self, simulation: envs.Simulation) -> None:
        import mujoco

        self._simulation = simulation
        self._data = mujoco.MjData(simulation.model)

    def bodies(self, qpos: np.ndarray) -> Bodies:
        """For joint positions (..., nq), which may hold NaN: then NaN."""
        import mujoco

        model, data = self._simulation.model, self._data
        data.mocap_pos[:] = self._simulation.data.mocap_pos
        data.mocap_quat[:] = self._simulation.data.mocap_quat
        rows = qpos.reshape(-1, model.nq)
        positions = np.full((len(rows), model.nbody, 3), np.nan)
        quaternions = np.full((len(rows), model.nbody, 4), np.nan)
        for index, row in enumerate(rows):
            if np.isfinite(row).all():
                data.qpos[:] = row
                mujoco.mj_kinematics(model, data)
                positions[index], quaternions[index] = data.xpos, data.xquat
        shape = qpos.shape[:-1]
        return Bodies(
            positions=positions.reshape(*shape, -1, 3), quaternions=quaternions.reshape(*shape, -1, 4)
        )

    def now(self) -> Bodies:
        """Where they are in the simulation that runs."""
        data = self._simulation.data
        return Bodies(positions=data.xpos.copy(), quaternions=data.xquat.copy())


def moving_bodies(model: mujoco.MjModel) -> list[int]:
    """The bodies that joints move, from the root on."""
    return [body for body in range(1, model.nbody) if model.body_weldid[body] != 0]


def body_names(model: mujoco.MjModel) -> dict[str, int]:
    """The bodies that joints move, by name; those without one are numbered."""
    return {model.body(body).name or f"body {body}": body for body in moving_bodies(model)}


def find_point(simulation: envs.Simulation, name: str | None) -> Point:
    """A site or body by name; None: of all that moves, the end of a geom that is farthest from the root.

    Errors: `ConfigError` for a name that the model has not.
    """
    model = simulation.model
    if name is None:
        return _farthest(simulation)
    sites = {model.site(index).name: index for index in range(model.nsite) if model.site(index).name}
    if name in sites:
        site = model.site(sites[name])
        return Point(name=name, body=int(site.bodyid[0]), offset=site.pos.copy())
    bodies = body_names(model)
    if name not in bodies:
        known = [*bodies, *sites]
        raise ConfigError(
            f"trail={name}: there is no such body or site{closest(name, known)}. Known: {', '.join(known)}"
        )
    return Point(name=name, body=bodies[name], offset=np.zeros(3))


def _farthest(simulation: envs.Simulation) -> Point:
    import mujoco

    model = simulation.model
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    moving = moving_bodies(model)
    root = data.xpos[moving[0]]
    long = [getattr(mujoco.mjtGeom, kind).value for kind in _LONG]
    best, found = -1.0, Point(name=model.body(moving[-1]).name, body=moving[-1], offset=np.zeros(3))
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        if body not in moving or model.geom_rgba[geom, 3] == 0:
            continue
        half = model.geom_size[geom, 1] if model.geom_type[geom] in long else 0.0
        axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
        for end in (data.geom_xpos[geom] + half * axis, data.geom_xpos[geom] - half * axis):
            distance = float(np.linalg.norm(end - root))
            if distance > best + 1e-9:
                offset = data.xmat[body].reshape(3, 3).T @ (end - data.xpos[body])
                best, found = distance, Point(name=model.body(body).name, body=body, offset=offset)
    return found
