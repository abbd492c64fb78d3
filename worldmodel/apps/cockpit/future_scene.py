"""Imagined futures in 3D: the elites' paths as fading trails, and poses of the best one as ghosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel.apps.cockpit.futures import Futures
from worldmodel.apps.cockpit.ghosts import NOWHERE, Ghosts, Meshes
from worldmodel.apps.cockpit.kinematics import Bodies, Point

if TYPE_CHECKING:
    import viser

_PLANNED, _FURTHER = np.array([235, 90, 20]), np.array([60, 110, 220])  # the plan's steps, the policy's
_BACKGROUND = np.array([255, 255, 255])
_GHOST = (70, 120, 230)
_NEAR, _FAR = 0.35, 0.12  # opacity of the first and of the last ghost


class FutureScene:
    """What is imagined. Trails fade with rank and time; ghosts with time.

    Attributes:
        shows_trails: whether there are trails.
        num_ghosts: how many poses of the best elite.
    """

    def __init__(self, server: viser.ViserServer, name: str, meshes: Meshes, *, size_m: float) -> None:
        self._server, self._name, self._meshes, self._size_m = server, name, meshes, size_m
        self.shows_trails, self.num_ghosts = True, 3
        self._trails: Any = None
        self._ghosts: Ghosts | None = None
        self._num_ghosts = 0
        self._shown: tuple[int, int, bool, int] | None = None

    def show(self, futures: Futures, trail: Point) -> None:
        """Show these; nothing is sent where they are shown already."""
        now = id(futures), id(trail), self.shows_trails, self.num_ghosts
        if now == self._shown:
            return
        self._shown = now
        self._show_trails(futures.bodies.place(trail), futures.num_planned)
        self._show_ghosts(futures.bodies)

    def _show_trails(self, paths: np.ndarray, num_planned: int) -> None:
        """Paths (elite, step, 3)."""
        if not self.shows_trails:
            if self._trails is not None:
                self._trails.visible = False
            return
        points = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 3)
        points = np.where(np.isfinite(points).all(axis=(1, 2), keepdims=True), points, NOWHERE)
        colours = trail_colours(len(paths), paths.shape[1] - 1, num_planned).reshape(-1, 2, 3)
        if self._trails is not None and self._trails.points.shape == points.shape:
            self._trails.points, self._trails.colors, self._trails.visible = points, colours, True
            return
        self._trails = self._server.scene.add_line_segments(
            f"{self._name}/trails", points, colours, thickness=0.012 * self._size_m
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
    """Of both ends of each segment: uint8 (elite, step, 2, 3); lines have no opacity, so they fade to white."""
    times = np.arange(num_steps + 1) / max(1, num_steps)
    by_time = 1 - 0.75 * times
    by_rank = 1 - 0.7 * np.arange(num_elites) / max(1, num_elites - 1)
    weight = by_rank[:, None, None] * np.stack([by_time[:-1], by_time[1:]], axis=1)[None]
    hue = np.where((np.arange(num_steps) < num_planned)[:, None], _PLANNED, _FURTHER)[None, :, None]
    return (_BACKGROUND + weight[..., None] * (hue - _BACKGROUND)).astype(np.uint8)
