"""Which entries of an observation are angles that wind up: one turn further, all is as before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

if TYPE_CHECKING:
    from envs.simulation import Simulation

_TOLERANCE = 1e-5  # observations are float32, and an angle of a few radians is rounded to 1e-6


def find_angles(env: gymnasium.Env[Any, Any], simulation: Simulation) -> tuple[int, ...]:
    """Entries of the observation (O,) that a full turn of a hinge changes by 2 pi, and by nothing else.

    Found by trying: each unlimited hinge is turned once around, and one step is taken from there. It counts
    where the rest of the observation and the reward stay the same, so a spring, a servo or a task that counts
    turns keeps its angle. The environment is reset with seed 0 for each trial.
    """
    import mujoco

    model, data = simulation.model, simulation.data
    hinges = np.flatnonzero((model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE.value) & (model.jnt_limited == 0))
    if not len(hinges):
        return ()
    env.reset(seed=0)
    state, rest = _step(env, simulation)
    found: set[int] = set()
    for hinge in hinges:
        env.reset(seed=0)
        data.qpos[model.jnt_qposadr[hinge]] += 2 * math.pi
        mujoco.mj_forward(model, data)
        turned_state, turned_rest = _step(env, simulation)
        change = turned_state - state
        changed = np.flatnonzero(np.abs(change) > _TOLERANCE)
        is_turn = np.abs(change[changed] - 2 * math.pi) < _TOLERANCE
        if is_turn.all() and np.allclose(turned_rest, rest, rtol=0, atol=_TOLERANCE):
            found.update(changed.tolist())
    return tuple(sorted(found))


def _step(env: gymnasium.Env[Any, Any], simulation: Simulation) -> tuple[np.ndarray, np.ndarray]:
    """The observation after a step, and what else must not depend on turns."""
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    state, reward, terminated, *_ = env.step(env.action_space.high)
    return np.asarray(state, np.float64), np.array([reward, terminated, *simulation.data.qvel])
