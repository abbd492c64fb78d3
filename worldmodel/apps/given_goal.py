"""A goal that a person gives: a picture, an observation, a physics state, or the task's own numbers.

Nothing in a file is executed: pictures are PNG or JPEG, arrays are `.npz` without pickled objects.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

import envs
from worldmodel.apps.goals import Goal, always, goals_of, is_goal_task
from worldmodel.apps.trained import TrainedRun
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModel

_PICTURES = (".png", ".jpg", ".jpeg")
_MAX_BYTES, _MAX_PIXELS = 64_000_000, 64_000_000  # of a file, unpacked
_OBSERVATION_KEYS, _STATE_KEY = {"state", "pixels"}, "physics_state"


def sought_goal(
    given: str | Sequence[Any] | None,
    env: envs.SyncTaskVectorEnv,
    run: TrainedRun | None,
    *,
    plans_in_model: bool,
) -> Goal | None:
    """What is sought in the one environment of `env`; None where rewards are all that counts.

    Errors: `ConfigError` where a goal is given and nobody plans to it, or is missing; as `given_goal`.
    """
    model = None if run is None or isinstance(run.model, WorldModel) else run.model
    if given is not None:
        if model is None:
            trained = "" if run is None else f", and {run.checkpoint.path} was trained with them"
            raise ConfigError(
                f"goal={given}: only models without rewards plan to goals{trained}: give the "
                "checkpoint= of a run with experiment=jepa"
            )
        return given_goal(given, env, model)
    if is_goal_task(env.task) and (model is not None or env.task_envs[0].goal.is_rewarded):
        return Goal(goals_of(env), is_judged=True)
    if model is not None and plans_in_model:
        raise ConfigError(
            f"goal= is missing: {env.task} draws none. Give a picture, an observation or a physics state"
        )
    return None


def given_goal(given: str | Sequence[Any], env: envs.SyncTaskVectorEnv, model: LatentModel) -> Goal:
    """What `goal=` names, for the one environment that `env` holds and a model that plans there.

    Errors: `ConfigError` for what cannot be read, or does not fit the task or what the model observes.
    """
    if not isinstance(given, str):
        return _of_numbers(given, env)
    path = Path(given)
    if path.suffix.lower() not in (*_PICTURES, ".npz"):
        raise ConfigError(
            f"goal={given}: a picture (.png, .jpg), an observation or a physics state (.npz), or the task's "
            "own numbers, such as goal=[0.3,0.1]"
        )
    if not path.is_file():
        raise ConfigError(f"goal={given}: there is no such file")
    if path.suffix.lower() != ".npz":
        if model.size.observes != ("pixels",):
            raise ConfigError(
                f"goal={given}: a picture is all that it shows, and this model observes "
                f"{' and '.join(model.size.observes)}: give a .npz with {' and '.join(model.size.observes)}, "
                "or a physics state"
            )
        return Goal(always({"pixels": _picture(path, model.size.image_size)}), is_judged=False)
    arrays = _arrays(path)
    if set(arrays) == {_STATE_KEY}:
        return _of_state(given, np.asarray(arrays[_STATE_KEY]), env)
    return Goal(always(_observation(given, arrays, model)), is_judged=False)


def _of_numbers(given: Sequence[Any], env: envs.SyncTaskVectorEnv) -> Goal:
    only = env.task_envs[0]
    told = f"goal=[{','.join(map(str, given))}]"
    if not is_goal_task(env.task):
        raise ConfigError(
            f"{told}: {env.task} has no goals in numbers, as {', '.join(envs.goal_task_names())} have: give "
            "a picture, an observation or a physics state"
        )
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in given):
        raise ConfigError(f"{told}: must be numbers")
    goal = np.array(given, np.float64)
    only.reset()
    try:
        envs.set_goal(only, goal)
    except envs.EnvError as error:
        raise ConfigError(f"{told}: {error}") from error
    return Goal(goals_of(env), is_judged=True, start=lambda: envs.set_goal(only, goal))


def _of_state(given: str, state: np.ndarray, env: envs.SyncTaskVectorEnv) -> Goal:
    only = env.task_envs[0]
    try:
        only.reset()
        only.observation_at(state)
    except (envs.EnvError, TypeError, ValueError) as error:
        raise ConfigError(f"goal={given}: {error}") from error
    is_judged = is_goal_task(env.task)

    def start() -> None:
        if is_judged:
            envs.set_goal_state(only, state)

    # Looked at anew in each episode, for the model may hold what that has drawn.
    return Goal(
        lambda: {key: value[None] for key, value in only.observation_at(state).items()},
        is_judged=is_judged,
        start=start,
    )


def _picture(path: Path, size: int) -> np.ndarray:
    """The middle square of a picture, as large as the model sees: uint8 (3, size, size)."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise ConfigError(f"goal={path}: {picture.width} x {picture.height} pixels are too many")
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"goal={path}: cannot be read as a picture ({error})") from error
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > _MAX_BYTES:
                raise ConfigError(f"goal={path}: holds more than {_MAX_BYTES // 1_000_000} MB")
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"goal={path}: cannot be read as .npz of plain numbers ({error}); numpy.savez writes it"
        ) from error


def _observation(given: str, arrays: dict[str, np.ndarray], model: LatentModel) -> dict[str, np.ndarray]:
    size = model.size
    if not arrays or not set(arrays) <= _OBSERVATION_KEYS:
        raise ConfigError(
            f"goal={given}: holds {', '.join(sorted(arrays)) or 'nothing'}, and a goal is either "
            f"{' and '.join(sorted(_OBSERVATION_KEYS))} or {_STATE_KEY} alone"
        )
    if missing := [key for key in size.observes if key not in arrays]:
        raise ConfigError(f"goal={given}: has no {' and no '.join(missing)}, which this model observes")
    shapes = {"state": (size.state_dim,), "pixels": (3, size.image_size, size.image_size)}
    dtypes = {"state": np.float32, "pixels": np.uint8}
    observation = {}
    for key in size.observes:
        value, shape = arrays[key], shapes[key]
        fits = value.dtype == np.uint8 if key == "pixels" else value.dtype.kind in "fiu"
        if value.shape != shape or not fits or not np.isfinite(value).all():
            raise ConfigError(
                f"goal={given}: {key} is {value.dtype} of shape {value.shape}, and this model observes "
                f"{np.dtype(dtypes[key])} of shape {shape}, all finite"
            )
        observation[key] = value.astype(dtypes[key])
    return observation
