"""Goals for tasks of dm_control, whose own say nothing of them: poses of an arm, places of a mass.

A goal is the position of some joints. It is drawn where an episode of the task may start, apart from its
start, and reached when every joint is near; the task's reward knows nothing of it, and neither do its images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from envs.batch_task import Readings, tolerance
from envs.episode_goal import checked_goal
from envs.errors import EnvError
from envs.simulation import Simulation

if TYPE_CHECKING:
    import mujoco

_MAX_DRAWS = 1000  # of a goal that the start has not reached
_MARGIN = 10.0  # tolerances, beyond which the reward for being near is nearly gone


@dataclass(frozen=True)
class Pose:
    """Which joints make a pose, and what counts as reached.

    Attributes:
        tolerances: rad of each hinge, m of each slide.
        num_env_steps: in which a goal must be reached.
    """

    tolerances: Mapping[str, float]
    num_env_steps: int


def _reacher(near: float) -> Pose:
    return Pose({"shoulder": near, "wrist": near}, num_env_steps=100)


_PLACE = Pose({"root_x": 0.03, "root_y": 0.03}, num_env_steps=200)
# Where the joints are as near as this, reacher's fingertip is as near as the task asks it to come to a target
# (0.24 m of arm and 0.12 m of hand: 5.4 of 6 cm, 2.2 of 2.5 cm).
POSES: Mapping[str, Pose] = {
    "reacher-easy": _reacher(0.15),
    "reacher-hard": _reacher(0.06),
    "point-mass-easy": _PLACE,
    "point-mass-hard": _PLACE,
}


@dataclass(frozen=True)
class Joints:
    """The joints of a pose: where they stand in qpos, where they may be, which turn, what is near."""

    places: np.ndarray
    low: np.ndarray
    high: np.ndarray
    is_hinge: np.ndarray
    tolerances: np.ndarray

    @classmethod
    def of(cls, model: mujoco.MjModel, pose: Pose) -> Joints:
        """Those of a pose. Errors: `KeyError` for a joint that the model has not."""
        import mujoco

        joints = [model.joint(name) for name in pose.tolerances]
        is_hinge = np.array([joint.type[0] == mujoco.mjtJoint.mjJNT_HINGE.value for joint in joints])
        ranges = [j.range if model.jnt_limited[j.id] else (-math.pi, math.pi) for j in joints]
        low, high = np.array(ranges, np.float64).T
        places = np.array([joint.qposadr[0] for joint in joints])
        return cls(places, low, high, is_hinge, np.array(list(pose.tolerances.values())))

    def draw(self, chance: np.random.Generator) -> np.ndarray:
        """A goal (G,)."""
        return chance.uniform(self.low, self.high)

    def excess(self, qpos: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The largest distance of [..., nq] from a goal, in tolerances."""
        distance = np.abs(qpos[..., self.places] - goal)
        turned = np.abs((distance + math.pi) % (2 * math.pi) - math.pi)
        return np.asarray((np.where(self.is_hinge, turned, distance) / self.tolerances).max(axis=-1))


class PoseGoalEnv(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A task with a pose as the goal of each episode.

    Args:
        env: the task's environment.
        simulation: its simulation.
        pose: what a goal is.
        name: of the task.
    """

    is_rewarded = False

    def __init__(
        self, env: gymnasium.Env[np.ndarray, np.ndarray], simulation: Simulation, pose: Pose, *, name: str
    ) -> None:
        super().__init__(env)
        self._simulation, self._name = simulation, name
        self.joints = Joints.of(simulation.model, pose)
        self.num_goal_steps = pose.num_env_steps
        self.goal = np.zeros(len(pose.tolerances))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode, and draw a goal that it has not reached.

        The goal follows from the start: what the task draws stays what dm_control itself draws.
        """
        observation, info = super().reset(seed=seed, options=options)
        chance = np.random.default_rng(np.frombuffer(self._simulation.data.qpos.tobytes(), np.uint32))
        for _ in range(_MAX_DRAWS):
            self.goal = self.joints.draw(chance)
            if not self.is_solved():
                break
        else:
            raise EnvError(f"{self._name}: each of {_MAX_DRAWS} goals was reached at the start already")
        return observation, info

    def is_solved(self) -> bool:
        """Whether every joint is near the goal now."""
        return bool(self.joints.excess(self._simulation.data.qpos, self.goal) <= 1)

    def set_goal(self, goal: np.ndarray) -> None:
        """Let another goal (G,) stand, from now until the next episode. Errors: `EnvError`."""
        self.goal = checked_goal(goal, len(self.goal), self._name)

    def achieved_goal(self) -> np.ndarray:
        """The goal (G,) that the present state has reached."""
        return self._simulation.data.qpos[self.joints.places].copy()

    def goal_state(self) -> np.ndarray:
        """A physics state in which the goal is reached, at rest."""

        def reach(data: mujoco.MjData) -> None:
            data.qpos[self.joints.places] = self.goal

        return self._simulation.state_at_rest(reach)


def pose_reward(envs: Sequence[PoseGoalEnv]) -> Callable[[Readings], np.ndarray]:
    """For planners in the simulator: 1 where the goals that stand now are reached, falling with the distance.

    Readings [B, ...] of these environments -> [B, ...].
    """
    joints, goals = envs[0].joints, np.stack([env.goal for env in envs])

    def reward(readings: Readings) -> np.ndarray:
        standing = goals.reshape(len(goals), *(1,) * (readings.qpos.ndim - 2), -1)
        excess = joints.excess(readings.qpos, standing)
        return tolerance(excess, (0.0, 1.0), margin=_MARGIN, sigmoid="long_tail")

    return reward
