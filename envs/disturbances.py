"""What disturbs a robot: pushes, noise in what it observes, delays. Wrappers of a `TaskEnv`.

    env = ActionDelay(Push(envs.make("cheetah-run"), speed_m_s=1.0), num_steps=2)
    vector = envs.make_vec("cheetah-run", num_envs=5, wrappers=[partial(ActionDelay, num_steps=2)])

Steps are agent steps, the control periods of the robot. An episode's seed is also that of its disturbances:
they are the same whatever the agent does. Other masses, frictions and gravities are `envs.factors`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.errors import EnvError
from envs.vector import TaskWrapper, task_env_of
from envs.wrappers import Observation

if TYPE_CHECKING:
    import mujoco

Step: TypeAlias = tuple[Observation, Any, bool, bool, dict[str, Any]]

_CAN_MOVE_M = 1e-6  # of a place for each rad or m of any joint: less is rounding


class Disturbance(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """Something that disturbs, by a chance of its own.

    Args:
        env: a `TaskEnv`, or one that is disturbed already.
        seed: of the chance until `reset` gets one; None is the task's own first seed.

    Attributes:
        salt: another one for each kind: none repeats what another, or the task, draws from the same seed.
    """

    salt: ClassVar[int]

    def __init__(self, env: TaskWrapper, *, seed: int | None = None) -> None:
        super().__init__(env)
        if seed is None:
            seed = task_env_of(env).first_seed
        self._chance = np.random.default_rng([self.salt, seed])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; a seed is also that of what disturbs it."""
        if seed is not None:
            self._chance = np.random.default_rng([self.salt, seed])
        return super().reset(seed=seed, options=options)


class Push(Disturbance):
    """Now and then something pushes the robot, horizontally, for one agent step.

    A force acts on the centre of mass of the heaviest body that can move, in a random horizontal direction in
    which it can. Pushes come after gaps between half and one and a half times `interval_s`.

    Args:
        env: a task of MuJoCo.
        speed_m_s: how strong: the impulse is the one that gives this speed to the robot of the episode, were
            it free. A robot of 10 kg and 0.5 m/s: 5 N s.
        interval_s: mean time from push to push.
        seed: as in `Disturbance`.

    Raises:
        EnvError: a wrong number, or a task that cannot be pushed.
    """

    salt = 0x9D157

    def __init__(
        self, env: TaskWrapper, *, speed_m_s: float, interval_s: float = 1.0, seed: int | None = None
    ) -> None:
        super().__init__(env, seed=seed)
        if not 0 <= speed_m_s < math.inf:
            raise EnvError(f"a push with speed_m_s={speed_m_s}: must be at least 0")
        if not 0 < interval_s < math.inf:
            raise EnvError(f"pushes with interval_s={interval_s}: must be above 0 seconds")
        task_env = task_env_of(env)
        self._simulation = task_env.simulation
        if task_env.control_period_s is None:
            raise EnvError(f"{task_env.task} cannot be pushed: it does not say how long a step lasts")
        self._period_s, self._interval_s = task_env.control_period_s, interval_s
        self._task, self._speed_m_s = task_env.task, speed_m_s
        self._weigh()
        self._num_steps_left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode, undisturbed for a while."""
        result = super().reset(seed=seed, options=options)
        self._weigh()
        self._wait()
        return result

    def step(self, action: Any) -> Step:
        """As the task's; `info["push_n_s"]` is the impulse (3,), where there was one."""
        if self._num_steps_left > 0:
            self._num_steps_left -= 1
            return super().step(action)
        self._wait()
        impulse = self.impulse_n_s * self._direction()
        force = self._simulation.data.xfrc_applied[self.body, :3]
        force[:] = impulse / self._period_s
        try:
            observation, reward, terminated, truncated, info = super().step(action)
        finally:
            force[:] = 0.0
        return observation, reward, terminated, truncated, {**info, "push_n_s": impulse}

    def _weigh(self) -> None:
        """What is pushed, and how strongly: masses may be drawn anew with each episode."""
        model = self._simulation.model
        self.body = pushed_body(model, self._task)
        self.impulse_n_s = self._speed_m_s * robot_mass_kg(model, self.body)

    def _wait(self) -> None:
        gap_s = self._interval_s * self._chance.uniform(0.5, 1.5)
        self._num_steps_left = max(0, round(gap_s / self._period_s) - 1)

    def _direction(self) -> np.ndarray:
        """A unit vector (3,). One draw, wherever the body can move: the next pushes do not depend on it."""
        import mujoco

        model, data = self._simulation.model, self._simulation.data
        turn = self._chance.uniform(0.0, 2.0 * math.pi)
        direction = np.array([math.cos(turn), math.sin(turn), 0.0])
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacBodyCom(model, data, jacobian, None, self.body)
        can_move = np.linalg.norm(jacobian, axis=1) > _CAN_MOVE_M
        if can_move[:2].any():
            direction *= can_move
        return np.asarray(direction / np.linalg.norm(direction))


class ObservationNoise(Disturbance):
    """Gaussian noise on what is observed, each step anew; what is simulated stays as it is.

    Args:
        env: what is observed.
        std: of the noise, by key of the observation (`state`, `pixels`), in its own units: one number, or one
            for each entry.
        seed: as in `Disturbance`.

    Raises:
        EnvError: no such key, or a wrong std.
    """

    salt = 0x4015E

    def __init__(
        self, env: TaskWrapper, *, std: Mapping[str, float | np.ndarray], seed: int | None = None
    ) -> None:
        super().__init__(env, seed=seed)
        assert isinstance(env.observation_space, spaces.Dict)
        self._boxes: dict[str, spaces.Box] = {}
        self._std: dict[str, np.ndarray] = {}
        for key, given in std.items():
            if key not in env.observation_space.spaces:
                raise EnvError(
                    f"noise on {key!r}, and what is observed is {', '.join(env.observation_space)}"
                )
            box, each = env.observation_space[key], np.asarray(given, np.float64)
            assert isinstance(box, spaces.Box)
            if each.shape not in ((), box.shape) or not np.isfinite(each).all() or (each < 0).any():
                raise EnvError(
                    f"the noise's std on {key} is {given}, and it is a number of at least 0, or one for each "
                    f"entry {box.shape}"
                )
            self._boxes[key], self._std[key] = box, each

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; its first observation is noisy too."""
        observation, info = super().reset(seed=seed, options=options)
        return self._noisy(observation), info

    def step(self, action: Any) -> Step:
        """As the task's, but for the noise."""
        observation, reward, terminated, truncated, info = super().step(action)
        return self._noisy(observation), reward, terminated, truncated, info

    def _noisy(self, observation: Observation) -> Observation:
        noisy = dict(observation)
        for key, std in self._std.items():
            box = self._boxes[key]
            values = observation[key] + std * self._chance.standard_normal(box.shape)
            if np.issubdtype(box.dtype, np.integer):
                values = np.round(values)
            noisy[key] = np.clip(values, box.low, box.high).astype(box.dtype)
        return noisy


class ObservationDelay(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """What is observed is what was there `num_steps` steps ago; at first, the start.

    Rewards and ends come when they come. Errors: `EnvError` for a wrong number.
    """

    def __init__(self, env: TaskWrapper, *, num_steps: int) -> None:
        super().__init__(env)
        _check_steps(num_steps)
        self._num_steps = num_steps
        self._past: deque[Observation] = deque()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode."""
        observation, info = super().reset(seed=seed, options=options)
        self._past = deque([observation] * self._num_steps)
        return observation, info

    def step(self, action: Any) -> Step:
        """As the task's, but for what is observed."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._past.append(observation)
        return self._past.popleft(), reward, terminated, truncated, info


class ActionDelay(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """An action takes effect `num_steps` steps after it was given; until the first does, all motors rest.

    Errors: `EnvError` for a wrong number.
    """

    def __init__(self, env: TaskWrapper, *, num_steps: int) -> None:
        super().__init__(env)
        _check_steps(num_steps)
        self._num_steps = num_steps
        self._coming: deque[Any] = deque()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode, with nothing on its way."""
        assert self.action_space.shape is not None
        rest = np.zeros(self.action_space.shape, np.float32)
        self._coming = deque([rest] * self._num_steps)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Step:
        """Play the action of `num_steps` steps ago."""
        self._coming.append(np.array(action))  # the caller may write into theirs
        return super().step(self._coming.popleft())


def pushed_body(model: mujoco.MjModel, task: str = "this model") -> int:
    """The heaviest body that can move. Errors: `EnvError` if none can."""
    moving = model.body_weldid != 0
    if not moving.any():
        raise EnvError(f"{task} has no body that can move, and so none to push")
    return int(np.argmax(np.where(moving, model.body_mass, -1.0)))


def robot_mass_kg(model: mujoco.MjModel, body: int) -> float:
    """The mass of all that moves in the tree of this body."""
    belongs = (model.body_rootid == model.body_rootid[body]) & (model.body_weldid != 0)
    return float(model.body_mass[belongs].sum())


def _check_steps(num_steps: int) -> None:
    if num_steps < 0:
        raise EnvError(f"a delay of num_steps={num_steps}: must be at least 0")
