"""Tasks whose observations and rewards can be computed for many states at once, by name.

One file for each domain of dm_control's suite. Adding a task: a `BatchTask` and a line in `BATCH_TASKS`;
the shared tests hold it against dm_control.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from envs.batch_task import BatchTask
from envs.errors import UnsupportedEnvError
from envs.registry import canonical_task, check_exists
from envs.tasks.acrobot import Acrobot
from envs.tasks.ball_in_cup import BallInCup
from envs.tasks.cartpole import Cartpole
from envs.tasks.cheetah import Cheetah
from envs.tasks.finger import FingerSpin, FingerTurn
from envs.tasks.hopper import Hopper
from envs.tasks.humanoid import Humanoid
from envs.tasks.pendulum import Pendulum
from envs.tasks.point_mass import PointMass
from envs.tasks.reacher import Reacher
from envs.tasks.walker import Walker

BATCH_TASKS: Mapping[str, BatchTask] = {
    "acrobot-swingup": Acrobot(is_sparse=False),
    "acrobot-swingup-sparse": Acrobot(is_sparse=True),
    "ball-in-cup-catch": BallInCup(),
    "cartpole-balance": Cartpole(is_sparse=False),
    "cartpole-balance-sparse": Cartpole(is_sparse=True),
    "cartpole-swingup": Cartpole(is_sparse=False),
    "cartpole-swingup-sparse": Cartpole(is_sparse=True),
    "cheetah-run": Cheetah(),
    "finger-spin": FingerSpin(),
    "finger-turn-easy": FingerTurn(),
    "finger-turn-hard": FingerTurn(),
    "hopper-hop": Hopper(is_hopping=True),
    "hopper-stand": Hopper(is_hopping=False),
    "humanoid-run": Humanoid(speed_m_s=10.0),
    "humanoid-stand": Humanoid(speed_m_s=0.0),
    "humanoid-walk": Humanoid(speed_m_s=1.0),
    "pendulum-swingup": Pendulum(),
    "point-mass-easy": PointMass(),
    "point-mass-hard": PointMass(),
    "reacher-easy": Reacher(),
    "reacher-hard": Reacher(),
    "walker-run": Walker(speed_m_s=8.0),
    "walker-stand": Walker(speed_m_s=0.0),
    "walker-walk": Walker(speed_m_s=1.0),
}


def batch_task_names() -> tuple[str, ...]:
    """All tasks that can be computed for many states at once."""
    return tuple(BATCH_TASKS)


def batch_task(task: str) -> BatchTask:
    """Find a task by any of its spellings.

    Raises:
        UnsupportedEnvError: it has no batched form; names the closest that has, and all of them.
    """
    name = canonical_task(task)
    if name in BATCH_TASKS:
        return BATCH_TASKS[name]
    check_exists(task)
    close = difflib.get_close_matches(name, BATCH_TASKS, n=3)
    similar = f"did you mean {', '.join(close)}? " if close else ""
    raise UnsupportedEnvError(
        f"{task!r} has no batched observation and reward, which the simulator oracle needs: {similar}"
        f"There are {', '.join(BATCH_TASKS)}; envs/tasks/ shows how one is added"
    )
