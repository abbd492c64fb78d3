"""Reading Minari's datasets: ours, and those of others."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.columns import COLUMN_DTYPES, is_word
from worldmodel.data.episode import Episode
from worldmodel.data.formats.hdf5 import (
    MARK,
    locating,
    mark_of,
    member,
    native,
    opened,
    reading,
    scalar_attribute,
    stored_array,
)
from worldmodel.data.formats.minari.writer import DATA_FILE, METADATA_FILE
from worldmodel.data.memory import require_memory
from worldmodel.errors import DatasetError

_MAX_METADATA_BYTES = 2**28  # the bounds of every pixel are listed: some MB for a large image
_MAX_DEPTH = 16  # of observations in observations
# What an import keeps of others' metadata.
_TOLD = (
    "dataset_id",
    "minari_version",
    "algorithm_name",
    "author",
    "author_email",
    "code_permalink",
    "description",
    "requirements",
    "env_spec",
    "action_space",
)


def read(path: Path) -> tuple[dict[str, Any], Iterator[Episode]]:
    """What is known of the dataset, and its episodes. Errors: `DatasetError` for damaged ones.

    Of others' datasets, all numbers of an observation, part by part in the order of their names, become the
    state, and an image (uint8, H x W x C or H x W) becomes the pixels; actions must be continuous, and stay
    as they are, outside of [-1, 1] too. Finite numeric infos of one level become extra columns: of T + 1 rows
    the first one, which belongs to the reset, is left out.
    """
    metadata_path, file_path = (path / "data" / name for name in (METADATA_FILE, DATA_FILE))
    with reading(metadata_path):
        metadata = _metadata(metadata_path)
        space = _space(metadata.get("observation_space"))
    mark, num_episodes = metadata.get(MARK), metadata["total_episodes"]
    with reading(file_path), opened(file_path) as file:
        extra = mark["extra"] if mark else _usable_infos(file, num_episodes)
    info = (
        mark["info"] if mark else {"minari": {key: metadata[key] for key in _TOLD if _is_text(metadata, key)}}
    )
    return info, _episodes(file_path, num_episodes, space, extra, mark is not None)


def _metadata(path: Path) -> dict[str, Any]:
    """What metadata.json says, as far as we rely on it."""
    if path.stat().st_size > _MAX_METADATA_BYTES:
        raise DatasetError(f"it has more than {_MAX_METADATA_BYTES} bytes: it is no metadata of Minari")
    metadata = json.loads(path.read_bytes())
    if not isinstance(metadata, dict):
        raise DatasetError("it is no JSON object")
    total = metadata.get("total_episodes")
    if type(total) is not int or total < 0:
        raise DatasetError(f"'total_episodes' is {total!r}, no number of episodes")
    found = metadata.get("data_format", "hdf5")
    if found != "hdf5":
        raise DatasetError(f"'data_format' is {found!r}; only hdf5 is read: let Minari write it as that")
    mark = metadata.get(MARK)
    if mark is not None:
        extra = mark.get("extra") if isinstance(mark, dict) and isinstance(mark.get("info"), dict) else None
        if not isinstance(extra, list) or not all(is_word(name) for name in extra):
            raise DatasetError(f"{MARK!r} is not what we write: it is damaged")
    kind = _space(metadata.get("action_space"))
    if kind and not (kind.get("type") == "Box" and str(kind.get("dtype")).startswith("float")):
        raise DatasetError(
            f"the actions are {kind.get('type')} of {kind.get('dtype')}: only continuous ones (a Box of "
            "floats) can be imported"
        )
    return metadata


def _space(text: Any) -> dict[str, Any]:
    """A space as Minari writes it; empty for older datasets, which refer to their environment instead."""
    if text is None:
        return {}
    space = json.loads(text) if isinstance(text, str) else None
    if not isinstance(space, dict):
        raise DatasetError("a space is no JSON object in a string")
    return space


def _is_text(metadata: dict[str, Any], key: str) -> bool:
    value = metadata.get(key)
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _usable_infos(file: Any, num_episodes: int) -> list[str]:
    """The infos that every episode has as a finite array of one and the same kind of row."""
    usable: dict[str, Any] = {}
    for number in range(num_episodes):
        group = member(file, f"episode_{number}")
        infos = member(group, "infos") if "infos" in group else {}
        rows = {name: _row_kind(infos, name, len(stored_array(group, "rewards"))) for name in infos}
        if number == 0:
            usable = {name: row for name, row in rows.items() if row is not None}
        usable = {name: row for name, row in usable.items() if rows.get(name) == row}
        if not usable:
            break
    return sorted(usable)


def _row_kind(infos: Any, name: str, num_steps: int) -> tuple[str, tuple[int, ...]] | None:
    import h5py

    node = member(infos, name)
    if not (is_word(name) and isinstance(node, h5py.Dataset) and node.ndim > 0):
        return None
    if node.dtype.name not in COLUMN_DTYPES or len(node) not in (num_steps, num_steps + 1):
        return None
    if node.dtype.kind == "f" and not np.isfinite(stored_array(infos, name)[-num_steps:]).all():
        return None
    return node.dtype.name, node.shape[1:]


def _episodes(
    path: Path, num_episodes: int, space: dict[str, Any], extra: list[str], is_ours: bool
) -> Iterator[Episode]:
    with reading(path), opened(path) as file:
        for number in range(num_episodes):
            with locating(f"episode {number}"):
                episode = _episode(member(file, f"episode_{number}"), space, extra, is_ours)
            yield episode


def _episode(group: Any, space: dict[str, Any], extra: list[str], is_ours: bool) -> Episode:
    rewards = stored_array(group, "rewards")
    num_steps = len(rewards)
    actions = stored_array(group, "actions", num_steps)
    if actions.dtype.kind != "f":
        raise DatasetError(f"the actions are {actions.dtype}: only continuous ones (floats) can be imported")
    ends = {}
    for name in ("terminations", "truncations"):
        flags = stored_array(group, name, num_steps)[()].astype(bool)
        if flags[:-1].any():
            raise DatasetError(
                f"{name} is true in step {int(flags.argmax())} of {num_steps}; an episode ends there: make "
                "the rest an episode of its own"
            )
        ends[name] = bool(flags[-1:].any())
    # Minari itself may have appended episodes to a dataset of ours: these have no mark.
    mark = mark_of(group)
    seed = scalar_attribute(group, "seed")
    columns = {}
    for name in extra:
        column = stored_array(member(group, "infos"), name)
        skipped = 0 if mark is not None else len(column) - num_steps
        columns[name] = native(column[skipped : skipped + num_steps])
    return Episode(
        observation=_observation(group, space, num_steps + 1, is_ours),
        action=actions[()].reshape(num_steps, -1).astype(np.float32),
        reward=rewards[()].astype(np.float32),
        terminated=ends["terminations"],
        truncated=ends["truncations"],
        extra=columns,
        info=mark["info"] if mark else {"seed": int(seed)} if isinstance(seed, np.integer) else {},
    )


def _observation(group: Any, space: dict[str, Any], num_rows: int, is_ours: bool) -> dict[str, np.ndarray]:
    states: list[np.ndarray] = []
    images: dict[str, np.ndarray] = {}
    for name, parent, key, part in _parts(group, "observations", space, 0):
        shape = part.get("shape", []) if part.get("dtype") == "uint8" else []
        array = stored_array(parent, key, num_rows, of_bytes=len(shape) > 1)
        if part.get("type", "Box") != "Box":
            raise DatasetError(f"{name} is of the space {part['type']}: only Box can be imported")
        if len(shape) in (2, 3) and array.ndim < 1 + len(shape):
            images[name] = _decoded(array, shape)
        elif array.dtype == np.uint8 and array.ndim in (3, 4):
            images[name] = array[()]
        else:
            states.append(array[()].reshape(num_rows, -1).astype(np.float32))
    if len(images) > 1:
        raise DatasetError(f"it observes the images {', '.join(images)}: only one can be imported")
    observation = {"state": np.concatenate(states, axis=1)} if states else {}
    for image in images.values():
        observation["pixels"] = _channels_first(image if image.ndim == 4 else image[..., None], is_ours)
    return observation


def _parts(
    parent: Any, key: str, space: dict[str, Any], depth: int
) -> Iterator[tuple[str, Any, str, dict[str, Any]]]:
    """Of each array of an observation: its full name, the group it lies in, its name there, and its space."""
    import h5py

    node = member(parent, key)
    if not isinstance(node, h5py.Group):
        yield node.name, parent, key, space
        return
    if depth > _MAX_DEPTH or space.get("type", "Dict") != "Dict":
        raise DatasetError(
            f"{node.name} is of the space {space.get('type')}: only Dict and Box can be imported"
        )
    for name in sorted(node):
        yield from _parts(node, name, space.get("subspaces", {}).get(name, {}), depth + 1)


def _channels_first(images: np.ndarray, is_ours: bool) -> np.ndarray:
    # Stacked frames (4 x 84 x 84, say) have the channels first already.
    if not is_ours and images.shape[1] <= 4 < images.shape[3]:
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _decoded(frames: Any, shape: list[int]) -> np.ndarray:
    """Images from one JPEG a row; all must have this shape (H, W) or (H, W, C)."""
    from PIL import Image

    if not all(type(size) is int and size > 0 for size in shape):
        raise DatasetError(f"the space of an image has the shape {shape}")
    require_memory(f"{frames.name}", len(frames) * math.prod(shape[:2]) * 4)
    images = []
    for row in range(len(frames)):
        with Image.open(io.BytesIO(np.asarray(frames[row]).tobytes()), formats=["JPEG"]) as image:
            if list(image.size) != [shape[1], shape[0]]:
                raise DatasetError(f"a frame has {image.size} pixels; the space says {shape}: it is damaged")
            images.append(np.asarray(image))
    return np.stack(images)
