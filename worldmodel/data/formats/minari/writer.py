"""Writing Minari's datasets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.formats import require_exportable
from worldmodel.data.formats.hdf5 import (
    MARK,
    MARK_VERSION,
    new_file,
    set_mark,
)
from worldmodel.errors import DatasetError
from worldmodel.files import committed_directory, fsync

DATA_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"
_DATASET_ID = re.compile(r"([-\w][-\w/]*[-\w]/)?[-\w]+-v\d+")  # as Minari has it
_VERSION_OF_STATES = "0.5.0"
_VERSION_OF_PIXELS = "0.5.4"
_FRAMES_A_CHUNK = 16


def write(path: Path, dataset: EpisodeDataset, info: dict[str, Any]) -> None:
    """A new folder `path`, whose name ends in -v0 or another version; it appears whole or not at all.

    Errors: `DatasetError`, `OSError`.
    """
    dataset_id, _ = found_as(path)
    require_exportable(path, dataset)
    with committed_directory(path) as temporary:
        folder = temporary / "data"
        folder.mkdir()
        with new_file(folder / DATA_FILE, path, track_order=True) as (file, check):
            largest_action = _write_episodes(file, dataset, check)
        has_pixels = "observation.pixels" in dataset.columns
        extra = [name.removeprefix("extra.") for name in dataset.columns if name.startswith("extra.")]
        metadata = {
            "dataset_id": dataset_id,
            "minari_version": _VERSION_OF_PIXELS if has_pixels else _VERSION_OF_STATES,
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": json.dumps(_observation_space(dataset)),
            "action_space": json.dumps(
                _box("float32", dataset.columns["action"].shape, 1.0 if largest_action <= 1 else np.inf)
            ),
            "total_episodes": len(dataset),
            "total_steps": dataset.num_steps,
            "dataset_size": round((folder / DATA_FILE).stat().st_size / 1e6, 1),
            MARK: {"version": MARK_VERSION, "info": info, "extra": extra},
        }
        (folder / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")
        fsync(folder / METADATA_FILE)


def found_as(path: Path) -> tuple[str, Path]:
    """A dataset's id, and the root that it is found below.

    Below Minari's own root the id is the rest of the path; elsewhere it is the last two parts of the path, as
    far as they can be an id. Errors: `DatasetError` for a name that none can have.
    """
    folder = path.resolve()
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or os.path.expanduser("~/.minari/datasets")).resolve()
    if folder.is_relative_to(root):
        dataset_id = folder.relative_to(root).as_posix()
    else:
        dataset_id = "/".join(path.parts[-2:])
        if not _DATASET_ID.fullmatch(dataset_id):
            dataset_id = folder.name
    if not _DATASET_ID.fullmatch(dataset_id):
        raise DatasetError(
            f"{dataset_id!r} is no id of a Minari dataset: name the folder NAME-v0 or NAMESPACE/NAME-v0, of "
            "letters, digits, - and _"
        )
    return dataset_id, folder.parents[dataset_id.count("/")]


def how_to_find(path: Path) -> str:
    """What Minari's users must know of a dataset at `path`, in one line."""
    dataset_id, root = found_as(path)
    return f"Minari finds it as {dataset_id} with MINARI_DATASETS_PATH={root}"


def _write_episodes(file: Any, dataset: EpisodeDataset, check: Callable[[], None]) -> float:
    """Returns the size of the largest action."""
    largest = 0.0
    for number, episode in enumerate(dataset):
        group = file.create_group(f"episode_{number}")
        group.attrs.update({"id": number, "total_steps": episode.num_steps})
        set_mark(group, info=episode.info)
        seed = episode.info.get("seed")
        if isinstance(seed, int) and 0 <= seed < 2**63:
            group.attrs["seed"] = seed
        is_plain = len(episode.observation) == 1
        for name, array in sorted(episode.observation.items()):
            where = "observations" if is_plain else f"observations/{name}"
            if name == "pixels":
                frames = array.transpose(0, 2, 3, 1)
                chunk = (min(_FRAMES_A_CHUNK, len(frames)), *frames.shape[1:])
                # Rendered images shrink to a fraction, at little cost: Minari reads whole episodes.
                group.create_dataset(where, data=frames, chunks=chunk, compression="gzip", compression_opts=1)
            else:
                group[where] = array
        group["actions"], group["rewards"] = episode.action, episode.reward
        last = np.arange(episode.num_steps) == episode.num_steps - 1
        group["terminations"], group["truncations"] = last & episode.terminated, last & episode.truncated
        for name, array in episode.extra.items():
            group[f"infos/{name}"] = np.concatenate([array, np.zeros_like(array[:1])])
        check()
        largest = max(largest, float(np.abs(episode.action).max(initial=0)))
    return largest


def _observation_space(dataset: EpisodeDataset) -> dict[str, Any]:
    spaces = {}
    for name in ("pixels", "state"):
        column = dataset.columns.get(f"observation.{name}")
        if column and name == "pixels":
            spaces[name] = _box("uint8", (*column.shape[1:], column.shape[0]), 255.0)
        elif column:
            spaces[name] = _box("float32", column.shape, np.inf)
    return {"type": "Dict", "subspaces": spaces} if len(spaces) > 1 else next(iter(spaces.values()))


def _box(dtype: str, shape: Sequence[int], high: float) -> dict[str, Any]:
    """A Gymnasium box as Minari writes it: bounds number by number, infinite ones as `Infinity`."""
    low = 0.0 if dtype == "uint8" else -high
    bounds = {key: np.full(shape, value, dtype).tolist() for key, value in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}
