"""Whether what would be collected fits the folder it goes into: told before anything is played."""

from pathlib import Path

import numpy as np
from gymnasium import spaces

from envs import TaskVectorEnv
from worldmodel.apps.build import action_dim
from worldmodel.data.columns import OBSERVATION_DTYPES, Column, Columns
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, RunError


def check_folder(path: str) -> None:
    """A folder with other things in it is no place for a dataset. Errors: `RunError`."""
    folder = Path(path)
    if not folder.is_dir() or (folder / "dataset.json").exists():
        return
    # What somebody who was killed just after they began has left is no hindrance.
    others = sorted(
        entry.name for entry in folder.iterdir() if entry.name[0] != "." and entry.name != "shards"
    )
    if others:
        raise RunError(
            f"dataset={path} is no dataset, and not empty ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}): give a new folder, such as dataset={folder / 'recorded'}"
        )


def check_columns(path: str, env: TaskVectorEnv, *, physics_states: np.ndarray | None) -> None:
    """A dataset that is there must have the columns that would be recorded. Errors: `ConfigError`."""
    if not (Path(path) / "dataset.json").exists():
        return
    there = EpisodeStore(Path(path)).columns
    if not there:
        return
    coming = _columns(env, physics_states)
    names = [name for name in there | coming if name.startswith("observation.")]
    names += ["action", "extra.physics_state"]
    differences = [
        f"{name} is {there.get(name, 'absent')} there and would be {coming.get(name, 'absent')}"
        for name in names
        if there.get(name) != coming.get(name)
    ]
    if differences:
        raise ConfigError(
            f"dataset={path} has other columns than this would record: {'; '.join(differences)}. "
            f"Give {' '.join(_settings(there))}, as it was recorded, or another dataset="
        )


def _columns(env: TaskVectorEnv, physics_states: np.ndarray | None) -> Columns:
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    columns = {
        f"observation.{name}": Column(OBSERVATION_DTYPES[name], tuple(entry.shape or ()))
        for name, entry in space.spaces.items()
    }
    columns["action"] = Column("float32", (action_dim(env),))
    if physics_states is not None:
        columns["extra.physics_state"] = Column(physics_states.dtype.name, physics_states.shape[1:])
    return columns


def _settings(columns: Columns) -> list[str]:
    """What records these columns."""
    observed = [name for name in ("state", "pixels") if f"observation.{name}" in columns]
    settings = [f"env.observe=[{','.join(observed)}]"]
    if "pixels" in observed:
        settings.append(f"env.image_size={columns['observation.pixels'].shape[-1]}")
    return [*settings, f"physics_state={str('extra.physics_state' in columns).lower()}"]
