"""Every task by name, behind one Gymnasium interface.

    env = envs.make("cartpole-swingup")
    observation, info = env.reset()
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

Importing this package imports no simulator, but chooses how they will render (MUJOCO_GL, see `rendering`).
"""

from envs.rendering import choose_gl_backend

# Before anything could import mujoco or dm_control, which read the choice once, when they are imported.
choose_gl_backend()

from envs.errors import (  # noqa: E402
    EnvError,
    IncompatibleVersionsError,
    InvalidActionError,
    RenderingError,
    SimulationError,
    UnknownTaskError,
    UnsupportedEnvError,
)
from envs.registry import canonical_task, make, make_vec, task_names  # noqa: E402
from envs.vector import TaskVectorEnv  # noqa: E402
from envs.wrappers import Observation, TaskEnv  # noqa: E402

__all__ = [
    "EnvError",
    "IncompatibleVersionsError",
    "InvalidActionError",
    "Observation",
    "RenderingError",
    "SimulationError",
    "TaskEnv",
    "TaskVectorEnv",
    "UnknownTaskError",
    "UnsupportedEnvError",
    "canonical_task",
    "make",
    "make_vec",
    "task_names",
]
