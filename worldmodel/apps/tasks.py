"""`tasks`: what can be controlled, by name."""

import gymnasium

import envs
from worldmodel.apps.config import closest
from worldmodel.apps.progress import console
from worldmodel.errors import ConfigError

MAX_NUM_OPENED = 8  # tasks that are loaded for their cameras: each takes a moment


def tasks(pattern: str) -> list[str]:
    """Print the tasks whose names contain `pattern`, with the cameras of few; returns the names.

    Errors: `ConfigError` where there is none.
    """
    ours, gymnasiums = list(envs.task_names()), sorted(gymnasium.registry)
    wanted = pattern.lower().replace("_", "-")
    names = [name for name in ours if wanted in name]
    if wanted:  # without a pattern there are hundreds, and most of them no robots
        names += [name for name in gymnasiums if wanted in name.lower()]
    if not names:
        raise ConfigError(
            f"no task has {pattern!r} in its name{closest(pattern, [*ours, *gymnasiums])}: "
            "`worldmodel tasks` lists them"
        )
    for name in names:
        console.print(name + (_cameras(name) if len(names) <= MAX_NUM_OPENED else ""))
    if not wanted:
        console.print(
            "and Gymnasium's environments with bounded continuous actions by their ids, such as "
            "HalfCheetah-v5; of your own: module:id. `worldmodel tasks PATTERN` looks among those too"
        )
    return names


def _cameras(task: str) -> str:
    """What a task can be seen by, in words."""
    try:
        with envs.make(task) as env:
            model = env.simulation.model
            names = [model.camera(index).name or str(index) for index in range(model.ncam)]
    except envs.EnvError:  # it is not simulated by MuJoCo, or it lacks a package
        return ""
    return f"  cameras: {', '.join(names) or 'none'}"
