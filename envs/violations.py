"""What cannot happen: violations of physics, to see whether a model is surprised.

    Push.violations = {"teleport": teleport({"block": ("block_x", "block_y")}, far_m=0.2), ...}

A violation changes a running simulation once; what it writes into the model stays until that is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from envs.errors import EnvError
from envs.factors import turned_hue

if TYPE_CHECKING:
    import mujoco

    from envs.wrappers import TaskEnv

Change: TypeAlias = Callable[["mujoco.MjModel", "mujoco.MjData", np.random.Generator], None]
Due: TypeAlias = Callable[["mujoco.MjModel", "mujoco.MjData"], bool]
Joints: TypeAlias = Mapping[str, tuple[str, ...]]  # body -> its joints

_MAX_DRAWS = 100
# Red becomes orange. A third of the wheel would make drop's ball as green as its box was: another object.
_RECOLOR_TURNS = 0.1
_STIFF = 1e4  # damping that lets nothing move


def _always(model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One change that physics forbids (or, as a control, allows).

    Attributes:
        meaning: for people.
        apply: makes it.
        is_due: whether this is a moment at which it would be seen.
        breaks_physics: False for a control, which changes looks alone.
    """

    meaning: str
    apply: Change
    is_due: Due = _always
    breaks_physics: bool = True


def violations_of(env: TaskEnv) -> Mapping[str, Violation]:
    """Those that a task has. Errors: `EnvError` for a task without."""
    found: Mapping[str, Violation] = getattr(getattr(env.unwrapped, "task", None), "violations", {})
    if not found:
        from envs.tasks import OWN_TASKS

        having = [name for name, task in OWN_TASKS.items() if task.violations]
        raise EnvError(f"{env.task} has no violations of physics; those that have are {', '.join(having)}")
    return found


def teleport(bodies: Joints, *, far_m: float, low: Sequence[float], high: Sequence[float]) -> Violation:
    """One of the bodies is elsewhere, `far_m` or more from where it was; `low`, `high` bound its slides."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        joints = list(bodies.values())[rng.integers(len(bodies))]
        before = np.array([data.joint(name).qpos[0] for name in joints])
        for _ in range(_MAX_DRAWS):
            place = rng.uniform(low, high)
            if np.linalg.norm(place - before) >= far_m:
                break
        for name, value in zip(joints, place, strict=True):
            data.joint(name).qpos[0] = value

    return Violation(meaning="an object is suddenly elsewhere", apply=apply)


def vanish(bodies: Joints) -> Violation:
    """One of the bodies is gone: neither seen nor touched."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        name = list(bodies)[rng.integers(len(bodies))]
        for index in np.flatnonzero(model.geom_bodyid == model.body(name).id):
            model.geom_rgba[index, 3] = 0.0
            model.geom_contype[index] = model.geom_conaffinity[index] = 0

    return Violation(meaning="an object is suddenly gone", apply=apply)


def gravity_off(*, falling: Due) -> Violation:
    """Nothing falls any more; due where something does."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        model.opt.gravity[:] = 0.0
        data.qvel[:] = 0.0

    return Violation(meaning="what falls stops in the air", apply=apply, is_due=falling)


def pass_through(bodies: Joints, *, meaning: str, is_due: Due = _always) -> Violation:
    """The bodies touch nothing any more."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        for name in bodies:
            index = np.flatnonzero(model.geom_bodyid == model.body(name).id)
            model.geom_contype[index] = model.geom_conaffinity[index] = 0

    return Violation(meaning=meaning, apply=apply, is_due=is_due)


def freeze(bodies: Joints, *, moving: Due) -> Violation:
    """The bodies stand still, whatever pushes them; due where they move."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        for joints in bodies.values():
            for name in joints:
                dof = model.joint(name).dofadr[0]
                model.dof_damping[dof], data.qvel[dof] = _STIFF, 0.0

    return Violation(meaning="what is pushed stands still", apply=apply, is_due=moving)


def recolor(geoms: Sequence[str]) -> Violation:
    """Control: other colours, a tenth of the wheel on, which physics has nothing against."""

    def apply(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        for name in geoms:
            model.geom(name).rgba[:3] = turned_hue(model.geom(name).rgba[:3], _RECOLOR_TURNS)

    return Violation(meaning="control: the colour changes", apply=apply, breaks_physics=False)
