"""Gymnasium's own continuous-control tasks, by id (`HalfCheetah-v5`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FilterObservation, FlattenObservation, RescaleAction

from envs.angles import find_angles
from envs.errors import EnvError, RenderingError, UnsupportedEnvError
from envs.loaded_task import LoadedTask
from envs.rendering import find_camera
from envs.simulation import Simulation

# Gymnasium has no field for "may end by itself". These say so in their documentation ("Episode End", which
# names truncation only) and their `step` returns terminated=False as a constant.
_NEVER_TERMINATING = frozenset({"HalfCheetah", "HumanoidStandup", "Pendulum", "Pusher", "Reacher", "Swimmer"})


def find_spec(task: str) -> EnvSpec | None:
    """The registered environment of this id (`module:id` imports the module first); None if unknown.

    Raises:
        EnvError: the module cannot be imported.
    """
    module, _, name = task.rpartition(":")
    if module:
        try:
            __import__(module)
        except ImportError as error:
            raise EnvError(
                f"{task}: the module {module!r} cannot be imported ({error}): install it"
            ) from error
    return gymnasium.registry.get(name)


def load_gymnasium_task(spec: EnvSpec) -> LoadedTask:
    """Load a registered task.

    Raises:
        UnsupportedEnvError: its actions or observations do not fit.
        EnvError: a package it needs is missing, or it refuses to be made; says why.
    """
    env = _make(spec)
    try:
        simulation = _simulation(env)
        if simulation is None and "rgb_array" in env.metadata.get("render_modes", ()):
            env.close()
            env = _make(spec, render_mode="rgb_array")
        _check_actions(spec.id, env.action_space)
        vector_env = _flattened(spec.id, env)
    except Exception:
        env.close()
        raise
    period = getattr(env.unwrapped, "dt", None)
    return LoadedTask(
        name=spec.id,
        env=RescaleAction(vector_env, np.float32(-1.0), np.float32(1.0)),
        env_step_s=float(period) if isinstance(period, (int, float)) else None,
        num_env_steps=spec.max_episode_steps,
        can_terminate=_can_terminate(spec, env.unwrapped),
        angles=() if simulation is None else find_angles(vector_env, simulation),
        simulation=simulation,
        default_camera=None if simulation is None else _default_camera(env.unwrapped, simulation),
        observe=None if simulation is None else _observe(vector_env),
        frame=(lambda: _frame(spec.id, env)) if env.render_mode == "rgb_array" else None,
    )


def _make(spec: EnvSpec, **arguments: Any) -> gymnasium.Env[Any, Any]:
    try:
        # TaskEnv checks what comes in and out itself.
        return gymnasium.make(spec, disable_env_checker=True, **arguments)
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvError(f"{spec.id} is registered, but cannot be made: {error}") from error


def _simulation(env: gymnasium.Env[Any, Any]) -> Simulation | None:
    if "mujoco" not in sys.modules:  # then it cannot hold a MuJoCo model either
        return None
    import mujoco

    model, data = getattr(env.unwrapped, "model", None), getattr(env.unwrapped, "data", None)
    if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData):
        return Simulation(model, data)
    return None


def _check_actions(name: str, space: spaces.Space[Any]) -> None:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UnsupportedEnvError(
            f"{name} has the action space {space}, and actions must be a vector of real numbers (a "
            "one-dimensional Box): take a continuous-control task"
        )
    if not space.is_bounded("both"):
        raise UnsupportedEnvError(
            f"{name} has the action space {space}, and actions must have bounds to be scaled to [-1, 1]: "
            "register a variant with gymnasium.wrappers.ClipAction or a bounded Box"
        )


def _is_image(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def _flattened(name: str, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    space = env.observation_space
    entries = dict(space.items()) if isinstance(space, spaces.Dict) else {}
    kept = [key for key, entry in entries.items() if not _is_image(entry)]
    if (entries and not kept) or _is_image(space) or not space.is_np_flattenable:
        raise UnsupportedEnvError(
            f"{name} has the observation space {space}, and `state` needs numbers other than images: "
            "take a task that observes a vector; `observe=('pixels',)` adds images to it"
        )
    if len(kept) < len(entries):
        env = FilterObservation(env, kept)
    return FlattenObservation(env)


def _observe(env: gymnasium.Env[Any, Any]) -> Callable[[], np.ndarray] | None:
    """What the environment observes now, through its wrappers; None where it does not tell."""
    now = getattr(env.unwrapped, "_get_obs", None)  # what all MuJoCo tasks of Gymnasium have
    if not callable(now):
        return None
    wrappers: list[gymnasium.ObservationWrapper[Any, Any, Any]] = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.ObservationWrapper):
            wrappers.insert(0, env)
        env = env.env

    def observe() -> np.ndarray:
        observation = now()
        for wrapper in wrappers:
            observation = wrapper.observation(observation)
        return np.asarray(observation)

    return observe


def _can_terminate(spec: EnvSpec, env: gymnasium.Env[Any, Any]) -> bool:
    if spec.name in _NEVER_TERMINATING:
        return False
    # The MuJoCo robots that may fall keep this switch (v4 and v5); everything else may end by itself.
    return bool(getattr(env, "_terminate_when_unhealthy", True))


def _default_camera(env: Any, simulation: Simulation) -> Any:
    """The model's own camera `track`; else Gymnasium's view of the task, made to follow the robot."""
    import mujoco

    model = simulation.model
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, "track") >= 0:
        return find_camera(simulation, "track", mujoco.MjvCamera())
    camera = find_camera(simulation, -1, mujoco.MjvCamera())
    config = getattr(getattr(env, "mujoco_renderer", None), "default_cam_config", None) or {}
    for name, value in config.items():
        if isinstance(value, np.ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    if config.get("trackbodyid", -1) >= 0:
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING.value
    return camera


def _frame(name: str, env: gymnasium.Env[Any, Any]) -> np.ndarray:
    try:
        image = env.render()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise RenderingError(f"{name} cannot be rendered: {error}") from error
    return np.asarray(image, np.uint8)
