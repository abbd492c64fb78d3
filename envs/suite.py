"""dm_control's suite behind Gymnasium: names, loading, and a thin adapter.

An adapter of our own, because planners need the physics state, which shimmy's hides (and it takes 40 % more
time). Sources: Tassa et al. 2018, "DeepMind Control Suite", arXiv 1801.00690.
"""

from __future__ import annotations

import copy
import importlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction

from envs.angles import find_angles
from envs.batch_task import BatchTask
from envs.errors import UnsupportedEnvError
from envs.factors import PHYSICS, Variation
from envs.loaded_task import LoadedTask
from envs.pose_goals import POSES, PoseGoalEnv
from envs.rendering import find_camera
from envs.simulation import Simulation
from envs.versions import check_installed_pair, pair_failure

if TYPE_CHECKING:
    import mujoco

# Spellings in use elsewhere (TD-MPC2, DrQ): `cup-catch`, `pointmass-easy`.
_DOMAIN_ALIASES = {"cup-": "ball-in-cup-", "pointmass-": "point-mass-", "humanoidcmu-": "humanoid-cmu-"}
# The camera from which pixel papers look (TD-MPC2, DrQ-v2): 0, except where the robot leaves its view.
_DEFAULT_CAMERA = {"quadruped": 2}
# lqr's motors have no limits and its episodes no end. Optimal forces stay below 5.5 from 200 random starts
# (discrete Riccati equation on either task), so this bound leaves the optimal policy within [-1, 1].
_LQR_MAX_FORCE = 6.0
_LQR_TIME_LIMIT_S = 30.0  # 1000 control steps, as in all other tasks of the suite
# mujoco's mjMAXVAL, which dm_control's action specs hold for "no limit".
_NO_LIMIT = 1e10


@cache
def suite_tasks() -> dict[str, tuple[str, str]]:
    """All tasks: canonical name (`ball-in-cup-catch`) -> domain and task in dm_control's spelling.

    Raises:
        IncompatibleVersionsError: dm_control is not installed, or does not run with the installed MuJoCo.
    """
    check_installed_pair()
    try:
        from dm_control import suite
    except (AttributeError, ImportError, TypeError) as error:
        raise pair_failure(error) from error
    return {canonical_name(f"{domain}-{task}"): (domain, task) for domain, task in suite.ALL_TASKS}


def canonical_name(task: str) -> str:
    """Lower case, hyphens, domains spelled out: `cup-catch`, `ball_in_cup-catch` -> `ball-in-cup-catch`."""
    name = task.lower().replace("_", "-")
    for alias, domain in _DOMAIN_ALIASES.items():
        if name.startswith(alias):
            return domain + name.removeprefix(alias)
    return name


def load_suite_task(name: str, factors: Mapping[str, Any] | None = None) -> LoadedTask:
    """Load a task by its canonical name; `factors` of `envs.factors.PHYSICS` may differ from the usual.

    Raises:
        EnvError: no such factor, or no such number of it.
        IncompatibleVersionsError: dm_control does not run with the installed MuJoCo.
        UnsupportedEnvError: its actions have no bounds.
    """
    domain, task = suite_tasks()[name]
    variation = Variation.parse(name, PHYSICS, factors or {})
    import mujoco
    from dm_control import suite
    from dm_control.rl import control

    # The seed here is only a start, reset(seed=...) sets the real one. It must be a fixed one: lqr draws its
    # springs from it, and two environments of one task must have the same physics.
    arguments: dict[str, Any] = {"random": np.random.RandomState(0)}
    if domain == "lqr":
        arguments["time_limit"] = _LQR_TIME_LIMIT_S
    try:
        with _deprecations_unsaid():
            dm_env = suite.load(domain, task, task_kwargs=arguments)
    except (AttributeError, TypeError) as error:
        raise pair_failure(error) from error
    simulation = Simulation(dm_env.physics.model.ptr, dm_env.physics.data.ptr)
    max_action = _LQR_MAX_FORCE if domain == "lqr" else None
    env = SuiteEnv(dm_env, name=name, variation=variation, max_action=max_action)
    pose = POSES.get(name)
    goal = None if pose is None else PoseGoalEnv(env, simulation, pose, name=name)
    whole: gymnasium.Env[np.ndarray, np.ndarray] = env if goal is None else goal
    camera = mujoco.MjvCamera()
    if simulation.model.ncam:
        camera = find_camera(simulation, _DEFAULT_CAMERA.get(domain, 0), camera)
    # dm_control keeps the limit to itself; a task whose limit we cannot see counts as endless.
    step_limit = float(getattr(dm_env, "_step_limit", math.inf))
    return LoadedTask(
        name=name,
        env=RescaleAction(whole, np.float32(-1.0), np.float32(1.0)) if env.needs_rescaling else whole,
        env_step_s=dm_env.control_timestep(),
        num_env_steps=math.ceil(step_limit) if math.isfinite(step_limit) else None,
        # The base class never terminates, and a task that may must override it (of the suite, only lqr).
        can_terminate=type(dm_env.task).get_termination is not control.Task.get_termination,
        angles=find_angles(env, simulation),
        simulation=simulation,
        default_camera=camera,
        observe=env.observe,
        goal=goal,
        divergence_errors=(control.PhysicsError,),
    )


class SuiteTask(BatchTask):
    """A task of the suite.

    Attributes:
        domain: dm_control's name of the module that has the model (`ball_in_cup`).
    """

    domain: ClassVar[str]

    def load_spec(self) -> mujoco.MjSpec:
        """The domain's model."""
        import mujoco

        module = importlib.import_module(f"dm_control.suite.{self.domain}")
        xml, assets = module.get_model_and_assets()
        with _deprecations_unsaid():
            return mujoco.MjSpec.from_string(
                xml, include={name.removeprefix("./"): text for name, text in assets.items()}
            )


@contextmanager
def _deprecations_unsaid() -> Iterator[None]:
    """The suite's models use attributes that MuJoCo calls deprecated, which nobody here can mend."""
    absl = logging.getLogger("absl")  # where dm_control sends MuJoCo's warnings

    def is_news(record: logging.LogRecord) -> bool:
        return "deprecated" not in record.getMessage()

    absl.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        absl.removeFilter(is_news)


class SuiteEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A dm_control environment: observations flattened in their own order, actions in the task's bounds.

    Observations: float32 (O,). Actions: float32 (A,). What varies is drawn apart from what dm_control draws:
    whatever the physics, the episodes of a seed begin with the same draws.

    Raises:
        UnsupportedEnvError: an action has no bounds and `max_action` gives none.
    """

    def __init__(
        self, dm_env: Any, *, name: str, variation: Variation, max_action: float | None = None
    ) -> None:
        self.dm_env = dm_env
        self._variation = variation
        model = dm_env.physics.model.ptr
        self._compiled = copy.copy(model) if variation.asked else model
        self.factors: dict[str, float] = {}
        spec = dm_env.action_spec()
        low = np.broadcast_to(spec.minimum, spec.shape).astype(np.float32)
        high = np.broadcast_to(spec.maximum, spec.shape).astype(np.float32)
        if max_action is not None:
            low, high = np.full_like(low, -max_action), np.full_like(high, max_action)
        if (low <= -_NO_LIMIT).any() or (high >= _NO_LIMIT).any():
            raise UnsupportedEnvError(
                f"{name} has actions without bounds ({low} to {high}), and actions must be scaled to "
                "[-1, 1]: give its motors a ctrlrange"
            )
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        size = sum(math.prod(entry.shape) for entry in dm_env.observation_spec().values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.needs_rescaling = bool((low != -1.0).any() or (high != 1.0).any())
        if dm_env.physics.model.nhfield:
            # quadruped-escape sends its new terrain to dm_control's renderer at each reset, and makes that
            # (slow, full quality) renderer if there is none; where nothing can render it fails. We have a
            # renderer of our own.
            dm_env.physics._make_rendering_contexts = lambda: None

    @property
    def num_substeps(self) -> int:
        """Physics steps per env step."""
        return round(self.dm_env.control_timestep() / self.dm_env.physics.timestep())

    @property
    def varies_model(self) -> bool:
        """Whether episodes have models of their own, by more than the `drawn_fields` of its task."""
        return bool(self._variation.ranges)

    @property
    def chance(self) -> dict[str, Any]:
        """What the coming episodes are drawn from."""
        episodes = dict(self.dm_env.task.random.get_state(legacy=False))
        return {"episodes": episodes, "factors": dict(self.np_random.bit_generator.state)}

    @chance.setter
    def chance(self, chance: dict[str, Any]) -> None:
        self.dm_env.task.random.set_state(chance["episodes"])
        self.np_random.bit_generator.state = chance["factors"]

    def undo_factors(self, model: mujoco.MjModel) -> None:
        """Make a copy of the model what it is without factors."""
        self._variation.undo(model, self._compiled)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; a seed gives the episodes that dm_control itself gives for it."""
        super().reset(seed=seed)
        if seed is not None:
            # RandomState takes 32 bits, Gymnasium's seeds may be longer.
            self.dm_env.task.random.seed(
                seed if seed < 2**32 else np.random.SeedSequence(seed).generate_state(4)
            )
        self.factors = self._variation.draw(self.np_random)
        if self.factors:
            self._variation.apply(self.dm_env.physics.model.ptr, self._compiled, self.factors)
        return _flatten(self.dm_env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step; terminated iff the task ended it (discount 0), truncated iff time is up."""
        time_step = self.dm_env.step(action)
        terminated = time_step.last() and time_step.discount == 0.0
        truncated = time_step.last() and not terminated
        return _flatten(time_step.observation), float(time_step.reward), terminated, truncated, {}

    def observe(self) -> np.ndarray:
        """What is observed now, float32 (O,)."""
        return _flatten(self.dm_env.task.get_observation(self.dm_env.physics))

    def close(self) -> None:
        """Free dm_control's own renderer, if one was made."""
        self.dm_env.close()


def _flatten(observation: dict[str, Any]) -> np.ndarray:
    parts = [np.ravel(entry) for entry in observation.values()]
    # A number beyond float32 becomes inf, which the caller reports; numpy's warning would only add noise.
    with np.errstate(over="ignore"):
        return np.concatenate(parts, dtype=np.float32, casting="unsafe")
