"""Configuration -> objects: the only place that turns names and numbers into parts."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import envs
from planners import BASES, NOISES, PLANNERS, SamplingPlanner
from worldmodel.apps.agent import PlanningAgent
from worldmodel.apps.config import closest
from worldmodel.apps.foresight import Foresight
from worldmodel.errors import ConfigError
from worldmodel.model import MAX_IMAGE_SIZE, PRECISIONS, Acceleration, LatentModel, TaskSize, WorldModelSize
from worldmodel.training import ALONE, Processes, Trainer, TrainerSettings, make_model, make_trainer

# Settings come from checkpoints and datasets too, which are anybody's: none asks for all of a machine.
MAX_ACTION_REPEAT = 10_000
TRAINER_KEYS = frozenset(TrainerSettings.__dataclass_fields__)


def build_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device of that name; of `cuda`, each of several processes has its own.

    Errors: `ConfigError` for one that is not there, or that all would share.
    """
    try:
        device = torch.device(name)
        if processes.count > 1 and device.type == "cuda":
            if device.index is not None:
                raise ConfigError(
                    f"device={name}: each of {processes.count} processes needs a GPU of its own; give "
                    "device=cuda"
                )
            device = torch.device("cuda", processes.local_rank)
            torch.cuda.set_device(device)  # where NCCL looks
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}; device=cpu always works") from error
    return device


def build_acceleration(config: dict[str, Any], device: torch.device) -> Acceleration:
    """What the keys `compile` and `precision` ask for. Errors: `ConfigError` where it does not run."""
    if config["precision"] not in PRECISIONS:
        raise ConfigError(
            f"precision={config['precision']}: there is no such precision"
            f"{closest(str(config['precision']), list(PRECISIONS))}. Known: {', '.join(PRECISIONS)}"
        )
    acceleration = Acceleration(is_compiled=config["compile"], precision=PRECISIONS[config["precision"]])
    if acceleration.is_compiled:
        try:
            torch.compile(torch.sin)(torch.zeros(1, device=device))
        except Exception as error:  # whatever a compiler, or none, makes of it
            raise ConfigError(
                "compile=true: torch.compile does not run here; it needs a C++ compiler (on Debian: apt "
                f"install g++). compile=false always works ({str(error).splitlines()[0]})"
            ) from error
    return acceleration


def build_env(
    task: str, env_config: dict[str, Any], *, num_envs: int, seed: int, **kwargs: Any
) -> envs.TaskVectorEnv:
    """Environments that wait at an episode's end, so that its last observation is recorded.

    Errors: `ConfigError` for settings that no environment has; `EnvError` as `envs.make_vec`.
    """
    for key, most in (("action_repeat", MAX_ACTION_REPEAT), ("image_size", MAX_IMAGE_SIZE)):
        if not 1 <= env_config.get(key, 1) <= most:
            least = "at least 1" if env_config[key] < 1 else f"at most {most}"
            raise ConfigError(f"env.{key}={env_config[key]}: must be {least}")
    observe = env_config.get("observe", ["state"])
    if not observe or not set(map(str, observe)) <= {"state", "pixels"}:
        raise ConfigError(
            f"env.observe=[{','.join(map(str, observe))}]: write [state], [pixels] or [state,pixels]"
        )
    return envs.make_vec(
        task, num_envs=num_envs, seed=seed, autoreset_mode=AutoresetMode.DISABLED, **env_config, **kwargs
    )


def action_dim(env: envs.TaskVectorEnv) -> int:
    """A: the size of one action."""
    assert env.single_action_space.shape is not None
    return int(env.single_action_space.shape[0])


def build_model(
    model_config: dict[str, Any], env: envs.TaskVectorEnv, *others: envs.TaskVectorEnv, seed: int
) -> LatentModel:
    """A fresh world model for an environment's observations and actions; weights depend on `seed` alone.

    With `others` it is one model for the tasks of all.
    """
    size = _size_for(model_config, env)
    if others:
        size = _size_of_several([size, *(_size_for(model_config, other) for other in others)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_model(size)


def _size_for(model_config: dict[str, Any], env: envs.TaskVectorEnv) -> WorldModelSize:
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    observes = list(model_config.get("observes", ["state"]))
    if missing := [key for key in observes if key not in space.spaces]:
        every = ",".join(sorted({*space.spaces, *observes}, reverse=True))  # state first
        raise ConfigError(
            f"env.observe={list(space.spaces)}: this model learns from {' and '.join(observes)}; "
            f"add {', '.join(missing)}: env.observe=[{every}]"
        )
    shapes = {key: entry.shape or () for key, entry in space.spaces.items() if key in observes}
    return WorldModelSize(
        state_dim=shapes["state"][0] if "state" in shapes else 0,
        action_dim=action_dim(env),
        predicts_continuation=env.can_terminate and model_config.get("predicts_return", True),
        angles=env.angles if "state" in shapes else (),
        **dict[str, Any]({"image_size": shapes["pixels"][-1]} if "pixels" in shapes else {}),
        **model_config,
    )


def _size_of_several(sizes: Sequence[WorldModelSize]) -> WorldModelSize:
    return replace(
        sizes[0],
        state_dim=max(size.state_dim for size in sizes),
        action_dim=max(size.action_dim for size in sizes),
        predicts_continuation=any(size.predicts_continuation for size in sizes),
        angles=(),
        tasks=[
            TaskSize(state_dim=size.state_dim, action_dim=size.action_dim, angles=size.angles)
            for size in sizes
        ],
    )


def build_trainer(
    training_config: dict[str, Any], model: LatentModel, *, seed: int, processes: Processes = ALONE
) -> Trainer:
    """The trainer of a fresh model."""
    settings = {key: value for key, value in training_config.items() if key in TRAINER_KEYS}
    return make_trainer(model, TrainerSettings(**settings), seed=seed, processes=processes)


def build_planner(planner_config: dict[str, Any], action_dim: int) -> SamplingPlanner:
    """The planner of a `configs/planner/*.yaml`."""
    settings = dict(planner_config)
    name = settings.pop("name")
    settings.pop("num_proposals")
    for key, kinds in (("basis", BASES), ("noise", NOISES)):
        if key in settings:
            settings[key] = _build_part(key, settings[key], kinds)
    if not isinstance(name, str) or name not in PLANNERS:
        raise ConfigError(
            f"there is no planner {name!r}{closest(str(name), list(PLANNERS))}. Known: {', '.join(PLANNERS)}"
        )
    if unknown := settings.keys() - PLANNERS[name].__dataclass_fields__:
        raise ConfigError(
            f"planner.name={name} has no {', '.join(sorted(unknown))}: choose a planner with planner={name}"
        )
    needed = {
        each.name
        for each in fields(PLANNERS[name])
        if each.init and each.default is MISSING and each.default_factory is MISSING
    }
    if missing := needed - settings.keys() - {"action_dim"}:
        raise ConfigError(
            f"planner.name={name} needs {', '.join(sorted(missing))}: give planner.{min(missing)}="
        )
    return PLANNERS[name](action_dim=action_dim, **settings)


def _build_part(key: str, settings: dict[str, Any], kinds: Mapping[str, type[Any]]) -> Any:
    """A basis or a noise by name; a number that only another kind has (a planner's default one's) is left."""
    name = settings.get("name") if isinstance(settings, Mapping) else settings
    if not isinstance(name, str) or name not in kinds:
        raise ConfigError(
            f"planner.{key}.name={name}: there is no {key} {name!r}{closest(str(name), list(kinds))}. "
            f"Known: {', '.join(kinds)}"
        )
    known = {field for kind in kinds.values() for field in kind.__dataclass_fields__}
    if unknown := settings.keys() - known - {"name"}:
        raise ConfigError(f"planner.{key}.{min(unknown)}: there is no such setting of any {key}")
    return kinds[name](
        **{field: settings[field] for field in kinds[name].__dataclass_fields__ if field in settings}
    )


def build_planning_agent(foresight: Foresight, planner_config: dict[str, Any], *, seed: int) -> PlanningAgent:
    """Foresight and planner joined; it does not explore until it is told to."""
    planner = build_planner(planner_config, foresight.action_dim)
    num_proposals = planner_config["num_proposals"]
    if not isinstance(num_proposals, int) or not 0 <= num_proposals < planner.num_candidates:
        raise ConfigError(
            f"planner.num_proposals={num_proposals}: must be at least 0 and below "
            f"num_candidates={planner.num_candidates}"
        )
    return PlanningAgent(
        foresight,
        planner,
        num_proposals=num_proposals,
        generator=torch.Generator().manual_seed(seed),
    )
