"""Where things of the task `drop` are put: nothing overlaps, and what falls has room to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

MIN_DROP_M = 0.25  # under an object that nothing holds up at the start
_WALL_M = 0.58  # to here objects are put, and
_TOP_M = 1.1  # to this height
_APART_M = 0.01  # between things at least where they are put
_ROUNDING_M = 1e-9  # of places computed in other ways
_TRAY_START_M = (0.2, 0.42)  # heights: above what lies on the table, below the shelf
_TILT = 0.5  # radians at the most, of a box or a capsule that falls
_NUM_FALLING_CHANCES = (0.5, 0.4, 0.1)  # of one, two, three
_TRAY_SPEED_M_S, _TRAY_DELAY_S = 1.6, 0.06  # with which the tray comes in time surely (its fastest: 2 m/s)
_MAX_PLACES = 30  # tried for one object before all are drawn anew


@dataclass(frozen=True)
class Box:
    """A rectangle that holds a thing, its sides along x and z; in metres."""

    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def around(cls, x: float, z: float, half_x: float, half_z: float) -> Box:
        """Of this middle and half these sides."""
        return cls(float(x - half_x), float(x + half_x), float(z - half_z), float(z + half_z))

    def overlaps(self, other: Box) -> bool:
        """Whether they are nearer than things are put."""
        return (
            self.is_in_column_of(other)
            and self.bottom < other.top + _APART_M
            and other.bottom < self.top + _APART_M
        )

    def is_in_column_of(self, other: Box) -> bool:
        """Whether one is above or below the other, or nearly so."""
        return self.left < other.right + _APART_M and other.left < self.right + _APART_M


@dataclass
class Scene:
    """Where tray and objects are, and how large: of one model, as it is now.

    Attributes:
        tray: x, z.
        objects: of each x, z, angle: (3, 3).
        shelf: its place.
        tray_half_m: half of the tray's width, with rims.
        tray_floor_m: from the tray's place up to where things lie.
        tray_rim_m: and up to the top of its rims, from there too.
        tray_x_range: where the tray can be.
        half_sizes: of each object along x and z, without a capsule's caps: (3, 2).
        radii: of a ball, and of a capsule's caps; 0 for the box: (3,).
        gravity_m_s2: downwards.
    """

    tray: np.ndarray
    objects: np.ndarray
    shelf: Box
    tray_half_m: float
    tray_floor_m: float
    tray_rim_m: float
    tray_x_range: tuple[float, float]
    half_sizes: np.ndarray
    radii: np.ndarray
    gravity_m_s2: float

    @classmethod
    def of(cls, model: mujoco.MjModel, data: mujoco.MjData) -> Scene:
        """Read it."""
        shelf, rim = model.geom("shelf"), model.geom("right_rim")
        x, z = model.body("shelf").pos[::2] + shelf.pos[::2]
        ball_m, box, capsule = model.geom("ball").size[0], model.geom("box").size, model.geom("capsule").size
        low, high = model.joint("tray_x").range.tolist()
        return cls(
            tray=data.qpos[:2].copy(),
            objects=data.qpos[2:].reshape(3, 3).copy(),
            shelf=Box.around(x, z, shelf.size[0], shelf.size[2]),
            tray_half_m=float(rim.pos[0] + rim.size[0]),
            tray_floor_m=float(model.geom("tray").size[2]),
            tray_rim_m=float(rim.pos[2] + rim.size[0]),
            tray_x_range=(low, high),
            half_sizes=np.array([[0.0, 0.0], [box[0], box[2]], [capsule[1], 0.0]]),
            radii=np.array([ball_m, 0.0, capsule[0]]),
            gravity_m_s2=-float(model.opt.gravity[2]),
        )

    def half_extent(self, index: int, angle: float) -> tuple[float, float]:
        """How far an object reaches from its middle along x and z."""
        x, z = self.half_sizes[index].tolist()
        cos, sin, radius = abs(math.cos(angle)), abs(math.sin(angle)), float(self.radii[index])
        return x * cos + z * sin + radius, x * sin + z * cos + radius

    def box(self, index: int) -> Box:
        """What holds an object."""
        x, z, angle = self.objects[index]
        return Box.around(x, z, *self.half_extent(index, angle))

    def tray_box(self) -> Box:
        """What holds the tray, rims included."""
        x, z = self.tray.tolist()
        floor = Box.around(x, z, self.tray_half_m, self.tray_floor_m)
        return replace(floor, top=z + self.tray_rim_m)

    def put_on_tray(self, index: int) -> None:
        """In the middle of it, flat."""
        half_z = self.half_extent(index, 0.0)[1]
        self.objects[index] = self.tray[0], self.tray[1] + self.tray_floor_m + half_z, 0.0

    def is_held(self, index: int) -> bool:
        """Whether an object lies on the table, the shelf, or another object: not on the tray, which moves."""
        own, others = self.box(index), [self.box(other) for other in range(3) if other != index]
        gaps_m = [own.bottom - each.top for each in (self.shelf, *others) if own.is_in_column_of(each)]
        return any(abs(gap_m) < _APART_M for gap_m in (own.bottom, *gaps_m))

    def catchable(self) -> list[int]:
        """Objects that fall from free air, freely down to the table, so slowly that the tray can come."""
        found = []
        for index in range(3):
            own = self.box(index)
            others = [self.box(other) for other in range(3) if other != index]
            is_free = not any(own.is_in_column_of(other) for other in others)
            lands_on_table = own.top < self.shelf.bottom or not own.is_in_column_of(self.shelf)
            x = float(self.objects[index, 0])
            low, high = self.tray_x_range
            if not (is_free and lands_on_table and low <= x <= high) or self.is_held(index):
                continue
            reach_m = math.inf
            if self.gravity_m_s2 > 0:
                fall_s = math.sqrt(2 * max(own.bottom - 2 * self.tray_rim_m, 0.0) / self.gravity_m_s2)
                reach_m = _TRAY_SPEED_M_S * max(fall_s - _TRAY_DELAY_S, 0.0)
            if abs(x - self.tray[0]) <= reach_m:
                found.append(index)
        return found


def draw_scene(scene: Scene, rng: np.random.Generator) -> bool:
    """Draw places for tray and objects; False where one found none."""
    highest_m = min(_TRAY_START_M[1], scene.shelf.bottom - scene.tray_rim_m - _APART_M)
    scene.tray[:] = rng.uniform(*scene.tray_x_range), rng.uniform(_TRAY_START_M[0], highest_m)
    num_falling = 1 + int(rng.choice(3, p=_NUM_FALLING_CHANCES))
    falling = set(rng.permutation(3)[:num_falling].tolist())
    taken = [(scene.shelf, False), (scene.tray_box(), False)]
    for index in sorted(range(3), key=lambda index: index in falling):  # those at rest first
        for _ in range(_MAX_PLACES):
            falls = index in falling
            scene.objects[index] = _draw_place(scene, index, falls, rng)
            own = scene.box(index)
            if all(_may_stand(own, falls, other, other_falls) for other, other_falls in taken):
                taken.append((own, falls))
                break
        else:
            return False
    return True


def _draw_place(
    scene: Scene, index: int, falls: bool, rng: np.random.Generator
) -> tuple[float, float, float]:
    """x, z, angle: in free air, or on table or shelf."""
    is_round = not scene.half_sizes[index].any()
    limit = math.pi if is_round else _TILT if falls else 0.0
    angle = float(rng.uniform(-limit, limit))
    half_x, half_z = scene.half_extent(index, angle)
    if falls:
        x = rng.uniform(-_WALL_M + half_x, _WALL_M - half_x)
        return float(x), float(rng.uniform(MIN_DROP_M + half_z, _TOP_M - half_z)), angle
    if rng.random() < 0.5:
        return float(rng.uniform(-_WALL_M + half_x, _WALL_M - half_x)), half_z, angle
    x = rng.uniform(max(scene.shelf.left, -_WALL_M) + half_x, scene.shelf.right - half_x)
    return float(x), scene.shelf.top + half_z, angle


def _may_stand(own: Box, falls: bool, other: Box, other_falls: bool) -> bool:
    """Whether two things are apart, with room to fall between them where the upper one falls."""
    if not own.is_in_column_of(other):
        return True
    if own.bottom > other.top - _ROUNDING_M:
        return not falls or own.bottom - other.top >= MIN_DROP_M
    if other.bottom >= own.top:
        return other.bottom - own.top >= (MIN_DROP_M if other_falls else _APART_M)
    return False


def put_down(scene: Scene, index: int, taken: list[Box]) -> None:
    """At rest on table or shelf where it would fall to, or near there; stays where there is no room."""
    x, z, _ = scene.objects[index]
    half_x, half_z = scene.half_extent(index, 0.0)
    limit = _WALL_M - half_x
    xs = np.linspace(-limit, limit, 100)
    for near in [np.clip(x, -limit, limit), *xs[np.argsort(np.abs(xs - x))]]:
        is_over_shelf = near - half_x < scene.shelf.right and z >= scene.shelf.bottom
        if is_over_shelf and near + half_x > scene.shelf.right:
            continue  # half over the edge
        height = half_z + (scene.shelf.top if is_over_shelf else 0.0)
        own = Box.around(near, height, half_x, half_z)
        if not any(own.overlaps(box) for box in (taken[1:] if is_over_shelf else taken)):
            scene.objects[index] = near, height, 0.0
            return
