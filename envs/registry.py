"""Every task by name: `make`, `make_vec`, `batch_task`, `task_names`, `canonical_task`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from envs.batch_env import BatchTaskVectorEnv
from envs.batch_task import BatchTask
from envs.errors import EnvError, IncompatibleVersionsError, UnknownTaskError, UnsupportedEnvError
from envs.factors import PHYSICS, Factor
from envs.gymnasium_tasks import find_spec, load_gymnasium_task
from envs.live_physics import has_live_physics
from envs.loaded_task import LoadedTask
from envs.mjcf_env import load_mjcf_task
from envs.mjcf_task import MjcfTask
from envs.pose_goals import POSES
from envs.suite import canonical_name, load_suite_task, suite_tasks
from envs.task_images import hide_geoms
from envs.tasks import BATCH_TASKS, OWN_TASKS
from envs.vector import AsyncTaskVectorEnv, SyncTaskVectorEnv, TaskVectorEnv
from envs.wrappers import Observation, TaskEnv

_MAX_NUM_SUGGESTIONS = 5
_WAYS = ("auto", "batch", "sync", "async")
_LEAST_WORTH_BATCHING = 2  # environments


def task_names() -> tuple[str, ...]:
    """Our own tasks and dm_control's suite, by canonical name; `gymnasium.registry` lists Gymnasium's ids."""
    return (*OWN_TASKS, *sorted(suite_tasks()))


def goal_task_names() -> tuple[str, ...]:
    """The tasks with goals: our own, and those of dm_control whose poses are goals (`envs.pose_goals`)."""
    return (*OWN_TASKS, *POSES)


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


def canonical_task(task: str) -> str:
    """The one spelling of a task's name, as `TaskEnv.task` has it; an unknown name comes back cleaned up."""
    spec = find_spec(task)
    return canonical_name(task) if spec is None else spec.id


def make(
    task: str,
    *,
    seed: int = 0,
    action_repeat: int = 1,
    observe: Sequence[str] = ("state",),
    image_size: int = 64,
    camera: str | int | None = None,
    render_size: tuple[int, int] = (480, 480),
    factors: Mapping[str, Any] | None = None,
    hide: Sequence[str] = (),
    marks_goal: bool = True,
) -> TaskEnv:
    """Make a task with dict observations and actions in [-1, 1].

    Args:
        task: one of our own (`push`), `domain-task` of dm_control's suite (`cartpole-swingup`,
            `ball-in-cup-catch`; underscores and `cup-catch` are understood), or the id of a Gymnasium
            continuous-control environment (`HalfCheetah-v5`, `module:id`).
        seed: of the first episode, where `reset()` is called without one; later episodes follow from it.
        action_repeat: env steps per action; rewards are summed.
        observe: `state` (float32 vector), `pixels` (uint8, C x H x W), or both.
        image_size: height and width of `pixels`.
        camera: name or number; -1 is a free camera; None is the task's usual view.
        render_size: (width, height) of the images that `render()` returns.
        factors: what differs from the usual: {"mass": 2.0, "friction": [0.5, 1.5]} is twice the mass, and
            friction drawn anew from a range with each episode. `envs.factors_of(task)` has those of a task:
            mass, friction and gravity in dm_control's, more in our own, none in Gymnasium's.
        hide: geoms of the MuJoCo model, by name, that no image shows (`target`, of reacher's poses).
        marks_goal: whether `render()` shows the goal of the episode, in our own tasks.

    Raises:
        UnknownTaskError: no such task; names similar ones.
        UnsupportedEnvError: the task's spaces do not fit.
        EnvError: other wrong arguments, or missing packages.
    """
    loaded = load_task(task, factors)
    try:
        hide_geoms(loaded, hide)
        return TaskEnv(
            loaded,
            seed=seed,
            action_repeat=action_repeat,
            observe=observe,
            image_size=image_size,
            camera=camera,
            render_size=render_size,
            marks_goal=marks_goal,
        )
    except Exception:
        loaded.env.close()
        raise


def make_vec(
    task: str,
    *,
    num_envs: int,
    seed: int = 0,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    how: str = "auto",
    num_threads: int = 1,
    wrappers: Sequence[Callable[[Any], gymnasium.Env[Observation, Any]]] = (),
    **kwargs: Any,
) -> TaskVectorEnv:
    """Make `num_envs` environments of one task, stepped together; returned batches are copies.

    Environment i is `make(task, seed=env_seeds[i], **kwargs)`, with `env_seeds` drawn from `seed` (unlike
    seed + i, two vector environments with neighbouring seeds then share no episode). With
    `AutoresetMode.DISABLED`, `reset(options={"reset_mask": mask})` resets those whose entry in the boolean
    mask is set.

    Args:
        task: as in `make`.
        num_envs: how many.
        seed: of all of them.
        autoreset_mode: what follows an episode's end (Gymnasium: NEXT_STEP, SAME_STEP, DISABLED).
        how: they are stepped. The results are the same.
            `batch`: their physics in C++ threads, rewards and observations at once; `batch_task_names()`,
            with MuJoCo 3.17 or newer.
            `sync`: in a loop, which is the faster way for few of them; needed where a simulator plans.
            `async`: a process for each, which pays for slow simulations and `pixels` only (scripts then need
            `if __name__ == "__main__":`).
            `auto`: `batch` where it can be and there are enough of them, else `sync`.
        num_threads: that simulate, with `batch`; the results do not depend on it.
        wrappers: what each environment is wrapped in, the first innermost (`envs.disturbances`); there is no
            `batch` with them.
        **kwargs: as in `make`.

    Raises:
        UnsupportedEnvError: there is no `batch` for this task, or not with this MuJoCo.
        EnvError: as `make`.
    """
    if num_envs < 1:
        raise EnvError(f"num_envs={num_envs}, and a vector environment holds at least 1")
    if how not in _WAYS:
        raise EnvError(f"how={how!r}: environments are stepped in one of these ways: {', '.join(_WAYS)}")
    env_seeds = tuple(int(word) for word in np.random.SeedSequence(seed).generate_state(num_envs))
    is_batched = canonical_task(task) in BATCH_TASKS and has_live_physics() and not wrappers
    if how == "batch" or (how == "auto" and is_batched and num_envs >= _LEAST_WORTH_BATCHING):
        found = batch_task(task)
        if not has_live_physics():
            raise UnsupportedEnvError(
                "how='batch' needs mujoco.batch, which came with MuJoCo 3.17: update mujoco and dm-control, "
                "or take how='sync'"
            )
        if wrappers:
            raise UnsupportedEnvError("how='batch' steps bare tasks: leave out wrappers, or take how='sync'")
        task_env = make(task, seed=env_seeds[0], **kwargs)
        return BatchTaskVectorEnv(
            task_env, found, env_seeds=env_seeds, autoreset_mode=autoreset_mode, num_threads=num_threads
        )
    makers = [partial(_wrapped, task, wrappers, seed=env_seed, **kwargs) for env_seed in env_seeds]
    kind = AsyncTaskVectorEnv if how == "async" else SyncTaskVectorEnv
    return kind(makers, env_seeds=env_seeds, autoreset_mode=autoreset_mode)


def _wrapped(task: str, wrappers: Sequence[Callable[[Any], Any]], **kwargs: Any) -> Any:
    env: Any = make(task, **kwargs)
    for wrapper in wrappers:
        env = wrapper(env)
    return env


def load_task(task: str, factors: Mapping[str, Any] | None = None) -> LoadedTask:
    """What `make` wraps. Errors: as `make`."""
    spec, name = find_spec(task), canonical_name(task)
    if factors:
        factors_of(task)
    if spec is not None:
        return load_gymnasium_task(spec)
    if name in OWN_TASKS:
        return load_mjcf_task(OWN_TASKS[name], factors)
    if _is_suite_task(task):
        return load_suite_task(name, factors)
    raise _unknown(task)


def factors_of(task: str) -> Mapping[str, Factor]:
    """What may vary in a task, by name, as `make(factors=...)` takes it.

    Raises:
        UnknownTaskError: no such task.
        EnvError: nothing may vary in it.
    """
    name = canonical_name(task)
    if find_spec(task) is not None:
        raise EnvError(
            f"{task} has no factors that may vary; those that have are {', '.join(OWN_TASKS)} and the tasks "
            "of dm_control"
        )
    if name in OWN_TASKS:
        return OWN_TASKS[name].factors
    if _is_suite_task(task):
        return PHYSICS
    raise _unknown(task)


def to_play(task: str) -> Callable[[np.ndarray], np.ndarray]:
    """`MjcfTask.to_play` of a task.

    Raises:
        UnknownTaskError: no such task.
        EnvError: nothing in it can be played with.
    """
    check_exists(task)
    playful = [name for name, own in OWN_TASKS.items() if type(own).to_play is not MjcfTask.to_play]
    name = canonical_name(task)
    if name not in playful:
        raise EnvError(f"{task} does not say how to go at things, as {', '.join(playful)} does")
    return OWN_TASKS[name].to_play


def check_exists(task: str) -> None:
    """Errors: `UnknownTaskError` with similar names, for a task that `make` does not know either."""
    name = canonical_name(task)
    if find_spec(task) is None and name not in OWN_TASKS and name not in suite_tasks():
        raise _unknown(task)


def _is_suite_task(task: str) -> bool:
    return re.search(r"-v\d+$", task) is None and canonical_name(task) in suite_tasks()


def _unknown(task: str) -> UnknownTaskError:
    try:
        names = list(task_names())
    except IncompatibleVersionsError:  # the name is wrong either way; suggest what we can
        names = list(OWN_TASKS)
    # Compared in lower case, since `halfcheetah-v5` is a likely slip.
    spelled = {name.lower(): name for name in [*names, *gymnasium.registry]}
    close = difflib.get_close_matches(canonical_name(task), spelled, n=_MAX_NUM_SUGGESTIONS, cutoff=0.6)
    similar = f"did you mean {', '.join(spelled[name] for name in close)}? " if close else ""
    return UnknownTaskError(
        f"There is no task {task!r}: {similar}envs.task_names() lists ours and dm_control's "
        "(on the command line: `worldmodel tasks`), gymnasium.pprint_registry() Gymnasium's"
    )
