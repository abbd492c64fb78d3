"""Tasks whose observations and rewards can be computed for many states at once, by name.

One file for each domain of dm_control's suite, and one (with its MJCF) for each task of our own. Adding a
task: a `SuiteTask` or an `MjcfTask`, and a line here; the shared tests hold the former against dm_control.
"""

from __future__ import annotations

from collections.abc import Mapping

from envs.batch_task import BatchTask
from envs.mjcf_task import MjcfTask
from envs.tasks.acrobot import Acrobot
from envs.tasks.ball_in_cup import BallInCup
from envs.tasks.cartpole import Cartpole
from envs.tasks.cheetah import Cheetah
from envs.tasks.drop import Drop
from envs.tasks.finger import FingerSpin, FingerTurn
from envs.tasks.hopper import Hopper
from envs.tasks.humanoid import Humanoid
from envs.tasks.pendulum import Pendulum
from envs.tasks.point_mass import PointMass
from envs.tasks.push import Push
from envs.tasks.reach import Reach
from envs.tasks.reacher import Reacher
from envs.tasks.tworoom import TwoRoom
from envs.tasks.walker import Walker

OWN_TASKS: Mapping[str, MjcfTask] = {task.name: task for task in (Drop(), Push(), Reach(), TwoRoom())}

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
    **OWN_TASKS,
}
