"""Physical quantities by name, read from recorded physics states: what a model should have understood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import mujoco

    from envs.simulation import Simulation


def quantities(
    simulation: Simulation, states: Float[np.ndarray, "row state"]
) -> dict[str, Float[np.ndarray, " row"]]:
    """Positions and velocities of every slide and hinge joint, and which moving bodies touch.

    `block_x` is a position in m, `angle_sin` and `angle_cos` stand for a hinge's angle, `..._velocity` is in
    m/s or rad/s; `pusher touches block` is 1 or 0. Of what never moves only those geoms are told of that the
    model names (`<text name="supports" data="table shelf"/>`): `table touches box`.

    Args:
        simulation: of the task whose states these are; it is left as it was.
        states: as `physics_state` gives them.
    """
    first = 1 + simulation.model.nq
    found: dict[str, np.ndarray] = {}
    for joint in _joints(simulation.model):
        found |= _place(joint, states)
        found[f"{joint.name}_velocity"] = states[:, first + joint.velocity].copy()
    return found | _touches(simulation, states)


def places(
    simulation: Simulation, states: Float[np.ndarray, "row state"]
) -> dict[str, Float[np.ndarray, " row"]]:
    """Those of `quantities` that a picture could show: positions and angles."""
    found: dict[str, np.ndarray] = {}
    for joint in _joints(simulation.model):
        found |= _place(joint, states)
    return found


class _Joint(NamedTuple):
    """A joint with one degree of freedom: its places in qpos and qvel, and whether it turns."""

    name: str
    position: int
    velocity: int
    is_hinge: bool


def _place(joint: _Joint, states: np.ndarray) -> dict[str, np.ndarray]:
    position = states[:, 1 + joint.position]
    if joint.is_hinge:
        return {f"{joint.name}_sin": np.sin(position), f"{joint.name}_cos": np.cos(position)}
    return {joint.name: position.copy()}


def _joints(model: mujoco.MjModel) -> Iterator[_Joint]:
    import mujoco

    kinds = {mujoco.mjtJoint.mjJNT_SLIDE.value: False, mujoco.mjtJoint.mjJNT_HINGE.value: True}
    for index in range(model.njnt):
        kind = int(model.jnt_type[index])
        if kind in kinds:
            name = model.joint(index).name or f"joint{index}"
            yield _Joint(name, int(model.jnt_qposadr[index]), int(model.jnt_dofadr[index]), kinds[kind])


def _touches(simulation: Simulation, states: np.ndarray) -> dict[str, np.ndarray]:
    model, data = simulation.model, simulation.data
    before = simulation.state()
    supports = _supports(model)
    touching: dict[tuple[int, int], np.ndarray] = {}
    supporting: dict[tuple[int, int], np.ndarray] = {}  # a geom, a body
    for row, state in enumerate(states):
        simulation.set_state(state)
        for geoms in data.contact.geom:
            first, second = sorted(map(int, model.geom_bodyid[geoms]))
            # What never moves is touched nearly always, and says little where it holds nothing up.
            if model.body_weldid[first] and model.body_weldid[second] and first != second:
                touching.setdefault((first, second), np.zeros(len(states)))[row] = 1.0
            for geom, other in (geoms, geoms[::-1]):
                body = int(model.geom_bodyid[other])
                if geom in supports and model.body_weldid[body]:
                    supporting.setdefault((int(geom), body), np.zeros(len(states)))[row] = 1.0
    simulation.set_state(before)
    return {
        f"{model.body(first).name} touches {model.body(second).name}": values
        for (first, second), values in sorted(touching.items())
    } | {
        f"{model.geom(geom).name} touches {model.body(body).name}": values
        for (geom, body), values in sorted(supporting.items())
    }


def _supports(model: mujoco.MjModel) -> set[int]:
    """The geoms that a model names as what holds things up."""
    import mujoco

    text = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_TEXT, "supports")
    if text < 0:
        return set()
    first = int(model.text_adr[text])
    names = model.text_data[first : first + int(model.text_size[text]) - 1].decode().split()  # ends with \0
    return {model.geom(name).id for name in names}
