"""Factors of variation: what may differ from the task that was learned, one number each.

    Push.factors = {"mass": mass("block"), "gravity": gravity()}

A factor is a change of the compiled model; 1 (or the default that it names) leaves all as it is. Tasks of
dm_control have those that make sense for any model: `PHYSICS`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from envs.errors import EnvError

if TYPE_CHECKING:
    import mujoco

Apply: TypeAlias = Callable[["mujoco.MjModel", "mujoco.MjModel", float], None]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One number that changes a model.

    Attributes:
        meaning: for people, with its unit.
        default: which leaves the model as it is.
        low, high: what makes sense, both included.
        apply: writes the change for a number into a model, given the model as it was compiled.
    """

    meaning: str
    default: float
    low: float
    high: float
    apply: Apply


@dataclass(frozen=True)
class Variation:
    """What is asked of a task's factors: numbers to keep to, and ranges from which each episode draws."""

    factors: Mapping[str, Factor]
    fixed: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]

    @classmethod
    def parse(cls, task: str, factors: Mapping[str, Factor], given: Mapping[str, Any]) -> Variation:
        """Read `{"mass": 2.0, "friction": [0.5, 1.5]}`. Errors: `EnvError` for what the task lacks."""
        fixed, ranges = {}, {}
        for name, value in given.items():
            if name not in factors:
                known = ", ".join(f"{key} ({each.meaning})" for key, each in factors.items()) or "nothing"
                raise EnvError(f"{task} has no factor {name!r}; what may vary is {known}")
            numbers = [value] if isinstance(value, (int, float)) else value
            factor = factors[name]
            if (
                isinstance(value, bool | str)
                or not isinstance(numbers, Sequence)
                or len(numbers) not in (1, 2)
                or not all(
                    isinstance(each, (int, float)) and factor.low <= each <= factor.high for each in numbers
                )
                or numbers[0] > numbers[-1]
            ):
                raise EnvError(
                    f"{task}: factor {name}={value!r} must be a number from {factor.low:g} to "
                    f"{factor.high:g} ({factor.meaning}), or [lowest, highest] of such numbers"
                )
            if len(numbers) == 2:
                ranges[name] = float(numbers[0]), float(numbers[1])
            else:
                fixed[name] = float(numbers[0])
        return cls(factors, fixed, ranges)

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """The numbers of an episode, of all factors that were asked for."""
        drawn = {name: float(rng.uniform(low, high)) for name, (low, high) in sorted(self.ranges.items())}
        return {**self.fixed, **drawn}

    @property
    def asked(self) -> tuple[str, ...]:
        """The factors that were asked for."""
        return (*self.fixed, *self.ranges)

    def undo(self, model: mujoco.MjModel, compiled: mujoco.MjModel) -> None:
        """Make a model again what it is where nothing is asked for."""
        if self.asked:
            self.apply(model, compiled, {name: self.factors[name].default for name in self.asked})

    def apply(self, model: mujoco.MjModel, compiled: mujoco.MjModel, values: Mapping[str, float]) -> None:
        """Write the changes into a model, given the model as it was compiled."""
        import mujoco

        for name, value in values.items():
            self.factors[name].apply(model, compiled, value)
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what follows from masses and sizes


def gravity() -> Factor:
    """How strongly everything falls."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        model.opt.gravity[:] = compiled.opt.gravity * value

    return Factor(meaning="times the Earth's gravity", default=1.0, low=0.0, high=3.0, apply=apply)


def mass(*bodies: str) -> Factor:
    """How heavy bodies are (without names: all), their shape being as it is."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for index in [model.body(name).id for name in bodies] or range(1, model.nbody):
            model.body_mass[index] = compiled.body_mass[index] * value
            _follow_inertia(model, compiled, index)

    return Factor(meaning="times the usual mass", default=1.0, low=0.1, high=10.0, apply=apply)


def friction(*geoms: str) -> Factor:
    """How much geoms rub (without names: all, and the pairs that have a friction of their own)."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for name in geoms:
            index = model.geom(name).id
            model.geom_friction[index] = compiled.geom_friction[index] * value
        if not geoms:
            model.geom_friction[:] = compiled.geom_friction * value
            model.pair_friction[:] = compiled.pair_friction * value

    return Factor(meaning="times the usual friction", default=1.0, low=0.05, high=5.0, apply=apply)


def damping(*joints: str) -> Factor:
    """How much joints with one degree of freedom (hinges, slides) resist their own speed."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for name in joints:
            index = model.joint(name).dofadr
            model.dof_damping[index] = compiled.dof_damping[index] * value

    return Factor(meaning="times the usual damping", default=1.0, low=0.0, high=10.0, apply=apply)


def turned_hue(colour: np.ndarray, turns: float) -> tuple[float, float, float]:
    """A colour (3,) so many turns further on the colour wheel, as light and as strong."""
    h, lightness, saturation = colorsys.rgb_to_hls(*colour.tolist())
    return colorsys.hls_to_rgb((h + turns) % 1.0, lightness, saturation)


def hue(*geoms: str) -> Factor:
    """Which colour geoms have: looks alone."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for name in geoms:
            index = model.geom(name).id
            model.geom_rgba[index, :3] = turned_hue(compiled.geom_rgba[index, :3], value)

    return Factor(meaning="turns around the colour wheel", default=0.0, low=0.0, high=1.0, apply=apply)


def camera_height(name: str) -> Factor:
    """From how far above a camera looks: looks alone."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        index = model.camera(name).id
        model.cam_pos[index, 2] = compiled.cam_pos[index, 2] * value

    return Factor(meaning="times the camera's usual height", default=1.0, low=0.8, high=1.25, apply=apply)


def size(*bodies: str) -> Factor:
    """How large bodies are, their mass being as it is."""

    def apply(model: mujoco.MjModel, compiled: mujoco.MjModel, value: float) -> None:
        for name in bodies:
            body = model.body(name)
            geoms = slice(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
            nodes = slice(model.body_bvhadr[body.id], model.body_bvhadr[body.id] + model.body_bvhnum[body.id])
            for field, index in (
                ("geom_size", geoms),
                ("geom_pos", geoms),
                ("geom_rbound", geoms),
                ("geom_aabb", geoms),
                ("bvh_aabb", nodes),
                ("body_ipos", body.id),
            ):
                getattr(model, field)[index] = getattr(compiled, field)[index] * value
            _follow_inertia(model, compiled, body.id)

    return Factor(meaning="times the usual size", default=1.0, low=0.5, high=2.0, apply=apply)


def _follow_inertia(model: mujoco.MjModel, compiled: mujoco.MjModel, body: int) -> None:
    """Inertia for the mass and size that a body now has: they may both vary, in any order."""
    geom = compiled.body_geomadr[body]
    has_size = geom >= 0 and compiled.geom_size[geom, 0] > 0.0  # a plane has none
    times_size = model.geom_size[geom, 0] / compiled.geom_size[geom, 0] if has_size else 1.0
    before_kg = compiled.body_mass[body]
    times_mass = model.body_mass[body] / before_kg if before_kg > 0.0 else 1.0
    model.body_inertia[body] = compiled.body_inertia[body] * times_mass * times_size**2


PHYSICS: Mapping[str, Factor] = {"mass": mass(), "friction": friction(), "gravity": gravity()}
