"""Imagined futures in 3D: the elites' paths as fading trails, and poses of the best one as ghosts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel.apps.cockpit.futures import Futures
from worldmodel.apps.cockpit.ghosts import NOWHERE, Ghosts, Meshes
from worldmodel.apps.cockpit.kinematics import Bodies, Point

if TYPE_CHECKING:
    import viser

_PLANNED, _FURTHER = np.array([205, 40, 0]), np.array([0, 40, 180])  # the plan's steps, the policy's
_BACKGROUND = np.array([255, 255, 255])
_GHOST = (20, 70, 210)
_NEAR, _FAR = 0.5, 0.18  # opacity of the first and of the last ghost


class FutureScene:
    """What is imagined. Trails fade with rank and time; ghosts with time.

    A browser leaves out what it believes to be out of sight, by where it was first: so all is kept near the
    origin of a frame that goes along with the robot.

    Attributes:
        shows_trails: whether there are trails.
        num_ghosts: how many poses of the best elite.
    """

    def __init__(self, server: viser.ViserServer, name: str, meshes: Meshes, *, size_m: float) -> None:
        self._server, self._name, self._meshes, self._size_m = server, name, meshes, size_m
        self._frame = server.scene.add_frame(name, show_axes=False)
        self.shows_trails, self.num_ghosts = True, 3
        self._trails: Any = None
        self._ghosts: Ghosts | None = None
        self._num_ghosts = 0
        self._shown: tuple[int, int, bool, int] | None = None

    def show(self, futures: Futures, trail: Point, origin: np.ndarray) -> None:
        """Show these, from an origin (3,) near them; nothing is sent where they are shown already."""
        now = id(futures), id(trail), self.shows_trails, self.num_ghosts
        if now == self._shown:
            return
        self._shown = now
        self._frame.position = origin
        near = replace(futures.bodies, positions=futures.bodies.positions - origin)
        self._show_trails(near.place(trail), futures.num_planned)
        self._show_ghosts(near)

    def _show_trails(self, paths: np.ndarray, num_planned: int) -> None:
        """Paths (elite, step, 3)."""
        if not self.shows_trails:
            if self._trails is not None:
                self._trails.visible = False
            return
        points = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 3)
        points = np.where(np.isfinite(points).all(axis=(1, 2), keepdims=True), points, NOWHERE)
        colours = trail_colours(len(paths), paths.shape[1] - 1, num_planned).reshape(-1, 2, 3)
        points, colours = points[::-1], colours[::-1]  # what is drawn last is seen best
        if self._trails is not None and self._trails.points.shape == points.shape:
            self._trails.points, self._trails.colors, self._trails.visible = points, colours, True
            return
        self._trails = self._server.scene.add_line_segments(
            f"{self._name}/trails", points, colours, thickness=0.018 * self._size_m
        )

    def _show_ghosts(self, bodies: Bodies) -> None:
        num_steps = bodies.positions.shape[1] - 1
        count = min(self.num_ghosts, num_steps)
        if count != self._num_ghosts:
            if self._ghosts is not None:
                self._ghosts.remove()
            self._num_ghosts, self._ghosts = count, None
            if count:
                opacities = np.linspace(_NEAR, _FAR, count)
                self._ghosts = Ghosts(
                    self._server, f"{self._name}/ghosts", self._meshes, colour=_GHOST, opacities=opacities
                )
        if self._ghosts is not None:
            self._ghosts.show(bodies[0, ghost_steps(num_steps, count)])


def ghost_steps(num_steps: int, count: int) -> list[int]:
    """Which of `num_steps` imagined steps, as evenly as that goes, the last one included."""
    return [round(num_steps * (index + 1) / count) for index in range(count)]


def trail_colours(num_elites: int, num_steps: int, num_planned: int) -> np.ndarray:
    """Of both ends of each segment: uint8 (elite, step, 2, 3). Lines have no opacity: they fade to white."""
    times = np.arange(num_steps + 1) / max(1, num_steps)
    by_time = 1 - 0.6 * times
    by_rank = 1 - 0.6 * np.arange(num_elites) / max(1, num_elites - 1)
    weight = by_rank[:, None, None] * np.stack([by_time[:-1], by_time[1:]], axis=1)[None]
    hue = np.where((np.arange(num_steps) < num_planned)[:, None], _PLANNED, _FURTHER)[None, :, None]
    return (_BACKGROUND + weight[..., None] * (hue - _BACKGROUND)).astype(np.uint8)
