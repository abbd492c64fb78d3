"""Whose environments are stepped: ours, dm_control's own, bare physics, EnvPool's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Float32, Float64, Int64

import envs

# In the order of the page. Value: what it is, for people.
CONTENDERS = {
    "batch": "worldmodel, batch",
    "sync": "worldmodel, sync",
    "async": "worldmodel, async",
    "dm_control": "dm_control",
    "rollout": "bare mujoco.rollout",
    "envpool": "EnvPool",
}
# What must be installed for some.
PACKAGES = {"envpool": "envpool"}


class Contender(ABC):
    """Environments of one task, stepped together by calling it.

    Each starts a new episode once in `episode_length` calls, in turn and evenly spread: every timing then has
    its share of resets, however short it is.

    actions: what is played, again and again, (C, B, A) in [-1, 1]
    episode_length: control steps of an episode; None: it never ends
    """

    def __init__(self, actions: Float32[np.ndarray, "call env action"], episode_length: int | None) -> None:
        self.num_envs = actions.shape[1]
        self.num_calls = 0
        self._episode_length = episode_length
        self._actions = self.prepare(actions)

    def __call__(self) -> None:
        """One control step of every environment, observation and reward included."""
        self.step(self._actions[self.num_calls % len(self._actions)])
        ended = self._num_ended()
        self.num_calls += 1
        indices = np.arange(ended, self._num_ended()) % self.num_envs
        if len(indices):
            self.reset(indices)

    def due_ages(self) -> Int64[np.ndarray, " env"]:
        """How many control steps each running episode must have seen, if every call is one of each."""
        if self._episode_length is None:
            return np.full(self.num_envs, self.num_calls)
        turns = np.arange(1, self.num_envs + 1)
        first_resets = -(-turns * self._episode_length // self.num_envs)
        since = self.num_calls - first_resets
        return np.where(since < 0, self.num_calls, since % self._episode_length)

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        """The actions as `step` takes them."""
        return actions

    @abstractmethod
    def step(self, actions: Any) -> None:
        """One control step of every environment."""

    @abstractmethod
    def reset(self, indices: Int64[np.ndarray, " env"]) -> None:
        """Start a new episode in these environments."""

    @abstractmethod
    def ages(self) -> np.ndarray:
        """Control steps of each running episode, by the simulators' own clocks."""

    @abstractmethod
    def close(self) -> None:
        """Free processes and threads."""

    def _num_ended(self) -> int:
        if self._episode_length is None:
            return 0
        return self.num_calls * self.num_envs // self._episode_length


class OwnEnvs(Contender):
    """`envs.make_vec`; it is told when to reset, as when episodes are recorded."""

    def __init__(self, task: str, how: str, actions: np.ndarray, *, seed: int, num_threads: int) -> None:
        self._env = envs.make_vec(
            task,
            num_envs=actions.shape[1],
            seed=seed,
            how=how,
            num_threads=num_threads,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        super().__init__(actions, self._env.episode_length)
        self._env.reset()

    def step(self, actions: Any) -> None:
        """One control step of every environment."""
        self._env.step(actions)

    def reset(self, indices: Int64[np.ndarray, " env"]) -> None:
        """Start a new episode in these environments."""
        mask = np.zeros(self.num_envs, np.bool_)
        mask[indices] = True
        self._env.reset(options={"reset_mask": mask})

    def ages(self) -> np.ndarray:
        """Control steps of each running episode."""
        return self._env.physics_states()[:, 0] / self._env.control_period_s

    def close(self) -> None:
        """Free processes and threads."""
        self._env.close()


class DmControl(Contender):
    """`env.step` of dm_control itself: one environment."""

    def __init__(self, task: str, actions: np.ndarray, *, seed: int) -> None:
        task_env = envs.make(task, seed=seed)
        if not hasattr(task_env.unwrapped, "dm_env"):
            raise ValueError(f"dm_control has no {task}")
        self._env: Any = task_env.unwrapped.dm_env
        super().__init__(actions, task_env.episode_length)
        self._env.task.random.seed(seed)
        self._env.reset()

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        """In the units of its motors."""
        spec = self._env.action_spec()
        return _scaled(actions[:, 0], spec.minimum, spec.maximum)

    def step(self, actions: Any) -> None:
        """One control step."""
        self._env.step(actions)

    def reset(self, indices: Int64[np.ndarray, " env"]) -> None:
        """Start a new episode."""
        self._env.reset()

    def ages(self) -> np.ndarray:
        """Control steps of the running episode."""
        return np.array([self._env.physics.time() / self._env.control_timestep()])

    def close(self) -> None:
        """Free its renderer, if it has one."""
        self._env.close()


class BareRollout(Contender):
    """`mujoco.rollout` as a vector environment: one call, one control step; physics and nothing else.

    It neither observes nor rewards nor resets, and hands on no warm start of the contact solver.
    """

    def __init__(self, task: str, actions: np.ndarray, *, seed: int, num_threads: int) -> None:
        import mujoco
        from mujoco.rollout import Rollout

        task_env = envs.make(task, seed=seed)
        assert task_env.control_period_s is not None
        self._control_period_s = task_env.control_period_s
        self._model = task_env.simulation.model
        self._num_substeps = round(self._control_period_s / self._model.opt.timestep)
        spec = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
        size = mujoco.mj_stateSize(self._model, spec)
        self._start = np.empty((actions.shape[1], size))
        for row in self._start:
            task_env.reset()
            mujoco.mj_getState(task_env.simulation.model, task_env.simulation.data, row, spec)
        task_env.close()
        self._state = np.empty((len(self._start), self._num_substeps, size))
        self._data = [mujoco.MjData(self._model) for _ in range(num_threads)]
        # One thread is the calling one.
        self._pool = Rollout(nthread=num_threads if num_threads > 1 else 0)
        super().__init__(actions, episode_length=None)
        self._models = [self._model] * self.num_envs

    def prepare(self, actions: np.ndarray) -> Float64[np.ndarray, "call env substep motor"]:
        """In the units of the motors, for each physics step."""
        low, high = self._model.actuator_ctrlrange.T
        return np.repeat(_scaled(actions, low, high)[:, :, None], self._num_substeps, axis=2)

    def step(self, actions: Any) -> None:
        """The physics steps of one control step of every simulation."""
        self._pool.rollout(
            self._models,
            self._data,
            initial_state=self._start,
            control=actions,
            nstep=self._num_substeps,
            state=self._state,
            skip_checks=True,
        )
        self._start[...] = self._state[:, -1]

    def reset(self, indices: Int64[np.ndarray, " env"]) -> None:
        """There are no episodes."""

    def ages(self) -> np.ndarray:
        """Control steps since the start."""
        return self._start[:, 0] / self._control_period_s

    def close(self) -> None:
        """End the threads."""
        self._pool.close()


class EnvPool(Contender):
    """EnvPool's own version of the task, in its own MuJoCo."""

    def __init__(self, task: str, actions: np.ndarray, *, seed: int, num_threads: int) -> None:
        import envpool

        with envs.make(task) as task_env:
            episode_length = task_env.episode_length
        name = "".join(word.capitalize() for word in task.split("-"))
        self._env = envpool.make_gymnasium(
            f"{name}-v1", num_envs=actions.shape[1], num_threads=num_threads, seed=seed
        )
        super().__init__(actions, episode_length)
        self._ages = np.zeros(self.num_envs)
        self._env.reset()

    def prepare(self, actions: np.ndarray) -> np.ndarray:
        """In the units of its motors."""
        space = self._env.action_space
        return _scaled(actions, space.low, space.high)

    def step(self, actions: Any) -> None:
        """One control step of every environment."""
        self._note(self._env.step(actions)[-1])

    def reset(self, indices: Int64[np.ndarray, " env"]) -> None:
        """Start a new episode in these environments."""
        self._note(self._env.reset(indices.astype(np.int32))[-1])

    def ages(self) -> np.ndarray:
        """Control steps of each running episode."""
        return self._ages

    def close(self) -> None:
        """End its threads."""
        self._env.close()

    def _note(self, info: dict[str, Any]) -> None:
        self._ages[info["env_id"]] = info["elapsed_step"]


def build(kind: str, task: str, actions: np.ndarray, *, seed: int, num_threads: int) -> Contender:
    """One of `CONTENDERS`, for a canonical task; `actions` (C, B, A) say how many environments there are."""
    if kind == "dm_control":
        return DmControl(task, actions, seed=seed)
    if kind == "rollout":
        return BareRollout(task, actions, seed=seed, num_threads=num_threads)
    if kind == "envpool":
        return EnvPool(task, actions, seed=seed, num_threads=num_threads)
    return OwnEnvs(task, kind, actions, seed=seed, num_threads=num_threads)


def _scaled(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From [-1, 1] to the motors' own bounds."""
    return low + (actions.astype(np.float64) + 1) / 2 * (np.asarray(high, np.float64) - low)
