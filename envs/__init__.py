"""Every task by name, behind one Gymnasium interface.

    env = envs.make("cartpole-swingup")
    observation, info = env.reset()
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

Importing this package imports no simulator, but chooses how they will render (MUJOCO_GL, see `rendering`).
"""

from envs.rendering import choose_gl_backend

# Before anything could import mujoco or dm_control, which read the choice once, when they are imported.
choose_gl_backend()

from envs.batch_task import BatchTask, Readings, Sensor  # noqa: E402
from envs.disturbances import ActionDelay, ObservationDelay, ObservationNoise, Push  # noqa: E402
from envs.errors import (  # noqa: E402
    EnvError,
    IncompatibleVersionsError,
    InvalidActionError,
    RenderingError,
    SimulationError,
    UnknownTaskError,
    UnsupportedEnvError,
)
from envs.goals import goal_observation, goal_reward, is_solved, set_goal, set_goal_state  # noqa: E402
from envs.live_factors import LiveFactors  # noqa: E402
from envs.model_copy import copy_model  # noqa: E402
from envs.oracle import Oracle  # noqa: E402
from envs.physics import BatchPhysics  # noqa: E402
from envs.quantities import places, quantities  # noqa: E402
from envs.registry import (  # noqa: E402
    batch_task,
    batch_task_names,
    canonical_task,
    factors_of,
    goal_task_names,
    make,
    make_vec,
    task_names,
    to_play,
)
from envs.simulation import Simulation  # noqa: E402
from envs.vector import SyncTaskVectorEnv, TaskVectorEnv  # noqa: E402
from envs.violations import violations_of  # noqa: E402
from envs.wrappers import Observation, TaskEnv  # noqa: E402

__all__ = [
    "ActionDelay",
    "BatchPhysics",
    "BatchTask",
    "EnvError",
    "IncompatibleVersionsError",
    "InvalidActionError",
    "LiveFactors",
    "Observation",
    "ObservationDelay",
    "ObservationNoise",
    "Oracle",
    "Push",
    "Readings",
    "RenderingError",
    "Sensor",
    "Simulation",
    "SimulationError",
    "SyncTaskVectorEnv",
    "TaskEnv",
    "TaskVectorEnv",
    "UnknownTaskError",
    "UnsupportedEnvError",
    "batch_task",
    "batch_task_names",
    "canonical_task",
    "copy_model",
    "factors_of",
    "goal_observation",
    "goal_reward",
    "goal_task_names",
    "is_solved",
    "make",
    "make_vec",
    "places",
    "quantities",
    "set_goal",
    "set_goal_state",
    "task_names",
    "to_play",
    "violations_of",
]
