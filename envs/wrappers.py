"""`TaskEnv`: the one face of every task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.arguments import LARGEST, check_arguments, checked_action
from envs.episode_goal import EpisodeGoal
from envs.errors import EnvError, SimulationError
from envs.loaded_task import LoadedTask
from envs.mjcf_env import MjcfEnv
from envs.rendering import FAST, VIDEO
from envs.simulation import Simulation
from envs.suite import SuiteEnv
from envs.task_images import TaskImages

if TYPE_CHECKING:
    import mujoco

Observation: TypeAlias = dict[str, np.ndarray]


class TaskEnv(gymnasium.Wrapper[Observation, np.ndarray, Any, Any]):
    """A task with dict observations and actions in [-1, 1]; made by `envs.make`, described there.

    Observations: `state` float32 (O,) and/or `pixels` uint8 (C, H, W). Actions: float32 (A,).
    One `step` is one agent step: `action_repeat` env steps, fewer where the episode ends in between.
    `first_seed` is that of the first episode, where `reset` gets none.
    """

    def __init__(
        self,
        loaded: LoadedTask,
        *,
        seed: int,
        action_repeat: int,
        observe: Sequence[str],
        image_size: int,
        camera: str | int | None,
        render_size: tuple[int, int],
        marks_goal: bool = True,
    ) -> None:
        super().__init__(loaded.env)
        check_arguments(action_repeat, observe, image_size, render_size)
        self._loaded = loaded
        self._action_repeat = action_repeat
        self.first_seed = seed
        self._due_seed: int | None = seed
        self._agent_step: int | None = None  # None: no episode is running, reset() is due
        self._num_divergences = 0
        # render_size is (width, height), as images are spoken of; arrays are (H, W, 3).
        width, height = render_size
        self._video = TaskImages(
            loaded, camera=camera, width=width, height=height, quality=VIDEO, shows_goal=marks_goal
        )
        self._pixels = TaskImages(
            loaded, camera=camera, width=image_size, height=image_size, quality=FAST, shows_goal=False
        )
        self._observe = tuple(observe)
        self.observation_space = self._make_observation_space(image_size)
        self.action_space = spaces.Box(-1.0, 1.0, loaded.env.action_space.shape, np.float32)
        self.action_space.seed(seed)
        # A video at this rate runs in real time.
        fps = None if self.control_period_s is None else 1.0 / self.control_period_s
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}

    @property
    def task(self) -> str:
        """Canonical name of the task."""
        return self._loaded.name

    @property
    def action_repeat(self) -> int:
        """Env steps per agent step."""
        return self._action_repeat

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """What actions of -1 and of 1 are to the task's actuators, in their own units: (A,) each."""
        space = self._loaded.env.unwrapped.action_space
        assert isinstance(space, spaces.Box)
        return space.low.astype(np.float64), space.high.astype(np.float64)

    @property
    def control_period_s(self) -> float | None:
        """Seconds between two decisions; None where the environment does not say."""
        step_s = self._loaded.env_step_s
        return None if step_s is None else step_s * self._action_repeat

    @property
    def episode_length(self) -> int | None:
        """Agent steps until truncation; None where there is no limit."""
        num_env_steps = self._loaded.num_env_steps
        return None if num_env_steps is None else math.ceil(num_env_steps / self._action_repeat)

    @property
    def num_env_steps(self) -> int | None:
        """Env steps until truncation; None where there is no limit."""
        return self._loaded.num_env_steps

    @property
    def can_terminate(self) -> bool:
        """Whether the task may end by itself (False only where that is known)."""
        return self._loaded.can_terminate

    @property
    def angles(self) -> tuple[int, ...]:
        """Entries of `state` that are angles without limits: a full turn further, all else is the same."""
        return self._loaded.angles

    @property
    def factors(self) -> dict[str, float]:
        """The numbers that vary in the running episode, of those that were asked for."""
        env = self.unwrapped
        return dict(env.factors) if isinstance(env, MjcfEnv | SuiteEnv) else {}

    def undo_factors(self, model: mujoco.MjModel) -> None:
        """Make a copy of this task's model what it is without factors."""
        env = self.unwrapped
        if isinstance(env, MjcfEnv | SuiteEnv):
            env.undo_factors(model)

    @property
    def goal(self) -> EpisodeGoal:
        """The goal of the running episode. Errors: `EnvError` for a task without goals."""
        if self._loaded.goal is None:
            raise EnvError(f"{self.task} has no goals; those that have are in envs.goal_task_names()")
        return self._loaded.goal

    @property
    def render_mode(self) -> str:  # type: ignore[override]
        """Always `rgb_array`."""
        return "rgb_array"

    @property
    def spec(self) -> None:  # type: ignore[override]
        """None: a `TaskEnv` is made by `envs.make`, not by `gymnasium.make`."""
        return None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. The first one uses `make`'s seed; later ones go on from there; `seed` reseeds."""
        seed = self._due_seed if seed is None else seed
        self._due_seed = None
        self._agent_step = None
        state, info = self._loaded.env.reset(seed=seed, options=options)
        for images in (self._video, self._pixels):
            images.model_changed()
        if self._loaded.simulation is not None:
            self._num_divergences = self._loaded.simulation.num_divergences()
        self._agent_step = 0
        return self.observation_now(state), info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Repeat the action (array-like, (A,)) `action_repeat` times; the reward is the sum.

        Raises:
            InvalidActionError: wrong shape, NaN or inf. Outside [-1, 1] is clipped.
            SimulationError: the simulation diverged; `reset()` is due.
            gymnasium.error.ResetNeeded: the episode is over, or none was started.
        """
        if self._agent_step is None:
            raise gymnasium.error.ResetNeeded(
                f"{self.task}: step() needs a running episode, and none was started or the last one is over: "
                "call reset() first"
            )
        action = checked_action(action, self.action_space, self.task)
        total_reward = 0.0
        agent_step, self._agent_step = self._agent_step + 1, None
        for _ in range(self._action_repeat):
            try:
                state, reward, terminated, truncated, info = self._loaded.env.step(action)
            except self._loaded.divergence_errors as error:
                raise self._diverged(agent_step, str(error)) from error
            total_reward += float(reward)
            if terminated or truncated:
                break
        observation = self.observation_now(state, agent_step)
        if not abs(total_reward) <= LARGEST:
            raise self._diverged(agent_step, f"the reward is {total_reward}")
        if not (terminated or truncated):
            self._agent_step = agent_step
        return observation, total_reward, bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        """Image of the current state for people: uint8 (H, W, 3), `render_size`.

        Raises:
            RenderingError: nothing here can render; says what to install.
        """
        return self._video.render()

    def pixels(self) -> np.ndarray:
        """Image of the current state as the agent sees it: uint8 (C, H, W). Errors: as `render`."""
        return np.ascontiguousarray(self._pixels.render().transpose(2, 0, 1))

    def close(self) -> None:
        """Free the renderers and the environment."""
        for images in (self._video, self._pixels):
            images.close()
        super().close()

    @property
    def simulation(self) -> Simulation:
        """The MuJoCo model and data of this task, shared with it.

        Raises:
            EnvError: the task is not simulated by MuJoCo.
        """
        if self._loaded.simulation is None:
            raise EnvError(
                f"{self.task} has no MuJoCo physics state: take a dm_control task or a Gymnasium MuJoCo task"
            )
        return self._loaded.simulation

    def physics_state(self) -> np.ndarray:
        """MuJoCo's full integration state (mjSTATE_INTEGRATION): float64 vector.

        It does not hold the step count, nor what `reset` draws into the model (reacher's target, the terrain
        of quadruped-escape): to repeat an episode elsewhere, reset with its seed first.
        """
        return self.simulation.state()

    def set_physics_state(self, state: np.ndarray) -> None:
        """Continue from a state that `physics_state` returned; the steps left until truncation stay.

        The same actions then give the same physics states to the bit. Gymnasium's tasks observe a few
        quantities from before their last physics step, so their first observation and reward after this
        call may differ from those first recorded.
        """
        self.simulation.set_state(state)

    def observation_at(self, state: np.ndarray) -> Observation:
        """What would be observed in another physics state; the episode stays where it is.

        The state is of this task, as `physics_state` gives it; what `reset` draws into the model stays as it
        is now.

        Raises:
            EnvError: no such state, or the task tells what it observes in a step alone.
        """
        if self._loaded.observe is None:
            raise EnvError(
                f"{self.task} does not tell what it observes in a given physics state: take a task of "
                "MuJoCo, or give an observation"
            )
        now = self.physics_state()
        try:
            self.set_physics_state(state)
            return self.observation_now(self._loaded.observe())
        finally:
            self.set_physics_state(now)

    def _make_observation_space(self, image_size: int) -> spaces.Space[Any]:
        entries: dict[str, spaces.Space[Any]] = {}
        if "state" in self._observe:
            vector = self._loaded.env.observation_space
            assert isinstance(vector, spaces.Box)
            low, high = vector.low.astype(np.float32), vector.high.astype(np.float32)
            entries["state"] = spaces.Box(low, high, dtype=np.float32)
        if "pixels" in self._observe:
            entries["pixels"] = spaces.Box(0, 255, (3, image_size, image_size), np.uint8)
        return spaces.Dict(entries)

    def observation_now(self, state: np.ndarray, agent_step: int = 0) -> Observation:
        """What is observed where the task's own environment observes `state`, with an image of now."""
        # A number beyond float32 becomes inf, which is reported below.
        with np.errstate(over="ignore"):
            vector = np.array(state, np.float32)
        if not np.isfinite(vector).all():
            bad = np.flatnonzero(~np.isfinite(vector))
            raise self._diverged(
                agent_step, f"entries {bad.tolist()} of the state are {vector[bad].tolist()}"
            )
        if self._loaded.simulation is not None and not self._loaded.divergence_errors:
            # dm_control raises; Gymnasium's environments go on with a state that MuJoCo has silently reset.
            count = self._loaded.simulation.num_divergences()
            if count > self._num_divergences:
                raise self._diverged(agent_step, "MuJoCo found NaN, inf or huge values in the physics state")
        observation: Observation = {}
        if "state" in self._observe:
            observation["state"] = vector
        if "pixels" in self._observe:
            observation["pixels"] = self.pixels()
        return observation

    def _diverged(self, agent_step: int, what: str) -> SimulationError:
        self._agent_step = None
        return SimulationError(
            f"{self.task} diverged at agent step {agent_step}: {what}. Call reset() to go on; actions that "
            "change less from step to step, or a smaller action_repeat, make this rarer"
        )
