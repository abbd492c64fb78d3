"""Physical quantities by name, read from recorded physics states: what a model should have understood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
    m/s or rad/s; `pusher touches block` is 1 or 0.

    Args:
        simulation: of the task whose states these are; it is left as it was.
        states: as `physics_state` gives them.
    """
    model = simulation.model
    qpos, qvel = states[:, 1 : 1 + model.nq], states[:, 1 + model.nq : 1 + model.nq + model.nv]
    found: dict[str, np.ndarray] = {}
    for name, position, velocity, is_angle in _joints(model):
        if is_angle:
            found[f"{name}_sin"], found[f"{name}_cos"] = np.sin(qpos[:, position]), np.cos(qpos[:, position])
        else:
            found[name] = qpos[:, position].copy()
        found[f"{name}_velocity"] = qvel[:, velocity].copy()
    return found | _touches(simulation, states)


def _joints(model: mujoco.MjModel) -> Iterator[tuple[str, int, int, bool]]:
    """Name, place in qpos, place in qvel, and whether it turns; of joints with one degree of freedom."""
    import mujoco

    kinds = {mujoco.mjtJoint.mjJNT_SLIDE.value: False, mujoco.mjtJoint.mjJNT_HINGE.value: True}
    for index in range(model.njnt):
        kind = int(model.jnt_type[index])
        if kind in kinds:
            name = model.joint(index).name or f"joint{index}"
            yield name, int(model.jnt_qposadr[index]), int(model.jnt_dofadr[index]), kinds[kind]


def _touches(simulation: Simulation, states: np.ndarray) -> dict[str, np.ndarray]:
    model, data = simulation.model, simulation.data
    before = simulation.state()
    touching: dict[tuple[int, int], np.ndarray] = {}
    for row, state in enumerate(states):
        simulation.set_state(state)
        bodies = model.geom_bodyid[data.contact.geom]  # (contacts, 2)
        for first, second in {tuple(sorted(map(int, pair))) for pair in bodies}:
            # What never moves is touched nearly always, and says little.
            if model.body_weldid[first] and model.body_weldid[second] and first != second:
                touching.setdefault((first, second), np.zeros(len(states)))[row] = 1.0
    simulation.set_state(before)
    return {
        f"{model.body(first).name} touches {model.body(second).name}": values
        for (first, second), values in sorted(touching.items())
    }
