"""Translucent copies of a robot, in poses that are not its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mjviser.conversions import merge_geoms

from worldmodel.apps.cockpit.kinematics import Bodies, moving_bodies

if TYPE_CHECKING:
    import mujoco
    import viser

_MAX_GEOM_GROUP = 2  # of those that MuJoCo shows
NOWHERE = np.array([0.0, 0.0, -1e3])  # for what is not there this time

Meshes = dict[int, tuple[np.ndarray, np.ndarray]]  # vertices and faces, by body


def meshes_of(model: mujoco.MjModel) -> Meshes:
    """Vertices and faces of each body that moves and can be seen."""
    found = {}
    for body in moving_bodies(model):
        geoms = [
            geom
            for geom in range(model.ngeom)
            if model.geom_bodyid[geom] == body
            and model.geom_group[geom] <= _MAX_GEOM_GROUP
            and model.geom_rgba[geom, 3] > 0
        ]
        if geoms:
            mesh = merge_geoms(model, geoms)
            found[body] = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32)
    return found


class Ghosts:
    """So many copies of a robot as there are opacities.

    - `meshes`: what `meshes_of` gives.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        name: str,
        meshes: Meshes,
        *,
        colour: tuple[int, int, int],
        opacities: np.ndarray,
    ) -> None:
        count = len(opacities)
        self._handles: list[tuple[int, Any]] = []
        for body, (vertices, faces) in meshes.items():
            handle = server.scene.add_batched_meshes_simple(
                f"{name}/{body}",
                vertices,
                faces,
                batched_wxyzs=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
                batched_positions=np.tile(NOWHERE, (count, 1)),
                batched_colors=np.tile(np.array(colour, np.uint8), (count, 1)),
                batched_opacities=opacities.astype(np.float32),
                cast_shadow=False,
                receive_shadow=False,
                lod="off",
            )
            self._handles.append((body, handle))

    def show(self, bodies: Bodies) -> None:
        """Their poses: bodies (copy,); one that is NaN is not there."""
        for body, handle in self._handles:
            positions, quaternions = bodies.positions[:, body], bodies.quaternions[:, body]
            is_there = np.isfinite(positions).all(axis=1, keepdims=True)
            handle.batched_positions = np.where(is_there, positions, NOWHERE)
            handle.batched_wxyzs = np.where(is_there, quaternions, np.array([1.0, 0.0, 0.0, 0.0]))

    def remove(self) -> None:
        """They are gone."""
        for _, handle in self._handles:
            handle.remove()
        self._handles = []
