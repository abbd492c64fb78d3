"""stable-worldmodel's HDF5 datasets: one `.h5` file, all episodes one after the other in every column.

    ep_len (episodes,) int32, ep_offset (episodes,) int64    which rows an episode has
    pixels (rows, H, W, C) uint8, state (rows, O)            observations
    action (rows, A), reward (rows,), extra.<name>           of the step that starts at the row's observation
    terminated, truncated (rows,) bool                       true in the last row of an episode at most
    ep_idx, step_idx (rows,) int32                           which episode and which step of it a row is

All columns have as many rows, so an episode of T steps has T + 1: the last one holds its last observation and
no action, which stable-worldmodel marks with NaN (its loaders skip NaN or make it 0). Our file does the same
for the reward and further float columns; others are 0 there.

Their recorder writes a reward one row further down, beside the observation after the step, and NaN in the
first row. Their TD-MPC2 reads it beside the action, however, and so does whoever reads a file of ours.
Reading goes by where the NaN is; where there is none, by their recorder.

The attribute `worldmodel` of the file, JSON, keeps what the columns cannot: `info` of the dataset and of each
episode.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.columns import COLUMN_DTYPES, is_word
from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.episode import Episode
from worldmodel.data.formats import require_exportable
from worldmodel.data.formats.hdf5 import (
    MARK,
    locating,
    mark_of,
    member,
    native,
    new_file,
    opened,
    reading,
    set_mark,
    stored_array,
)
from worldmodel.data.shard import episode_arrays
from worldmodel.errors import DatasetError
from worldmodel.files import TEMPORARY_PREFIX, fsync

_SUFFIXES = (".h5", ".hdf5")  # by which stable-worldmodel knows the format
_PREFIX = "extra."
_INDEX_COLUMNS = {"ep_len", "ep_offset", "ep_idx", "episode_idx", "step_idx", "id"}
_STEP_COLUMNS = {"action", "reward", "terminated", "truncated"}
_STATE_COLUMNS = ("state", "observation", "proprio")  # the first one that there is becomes our state


def write(path: Path, dataset: EpisodeDataset, info: dict[str, Any]) -> None:
    """A new file `path`, which ends in .h5; it appears whole or not at all.

    Errors: `DatasetError`, `OSError`.
    """
    if path.suffix not in _SUFFIXES:
        raise DatasetError(f"{path} is to be a file of stable-worldmodel: let its name end in .h5")
    require_exportable(path, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with new_file(temporary, path) as (file, check):
            _fill(file, dataset, info, check)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], Iterator[Episode]]:
    """What is known of the dataset, and its episodes. Errors: `DatasetError` for damaged ones.

    Of others' files, the state is the column `state`, `observation` or `proprio`; further finite numeric
    columns become extra ones. A reward that is missing is 0, which `info` then says. Episodes of one row hold
    no step and are left out.
    """
    with reading(path), opened(path) as file:
        layout = _layout(file)
    return layout.info, _episodes(path, layout)


def _fill(file: Any, dataset: EpisodeDataset, info: dict[str, Any], check: Callable[[], None]) -> None:
    num_rows = dataset.num_steps + len(dataset)
    for name, column in dataset.columns.items():
        shape = (*column.shape[1:], column.shape[0]) if name.endswith(".pixels") else column.shape
        file.create_dataset(name.removeprefix("observation."), shape=(num_rows, *shape), dtype=column.dtype)
    for name, dtype in {"terminated": "bool", "truncated": "bool", "ep_idx": "i4", "step_idx": "i4"}.items():
        file.create_dataset(name, shape=(num_rows,), dtype=dtype)
    lengths, facts, start = [], [], 0
    for number, episode in enumerate(dataset):
        last = start + episode.num_steps
        for name, array in episode_arrays(episode).items():
            column = file[name.removeprefix("observation.")]
            if name.startswith("observation."):
                column[start : last + 1] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
            else:
                column[start:last] = array
                column[last] = np.nan if array.dtype.kind == "f" else 0
        file["terminated"][last], file["truncated"][last] = episode.terminated, episode.truncated
        file["ep_idx"][start : last + 1] = number
        file["step_idx"][start : last + 1] = np.arange(episode.num_steps + 1)
        facts.append({"terminated": episode.terminated, "truncated": episode.truncated, "info": episode.info})
        lengths.append(episode.num_steps + 1)
        start = last + 1
        check()
    file["ep_len"] = np.array(lengths, dtype=np.int32)
    file["ep_offset"] = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    set_mark(file, info=info, columns=list(dataset.columns), episodes=facts)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of an episode are."""

    info: dict[str, Any]
    rows: list[tuple[int, int]]  # of each episode: its first row, and the one after its last
    observation: dict[str, str]  # our name -> the column's name
    extra: dict[str, str]
    has: set[str]  # further columns
    facts: list[dict[str, Any]] | None  # what our own file says of each episode


def _layout(file: Any) -> _Layout:
    mark = mark_of(file)
    if mark is None and "ep_len" not in file:
        raise DatasetError("it lacks 'ep_len': it is no file of stable-worldmodel")
    lengths, offsets = (stored_array(file, name)[()] for name in ("ep_len", "ep_offset"))
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in (lengths, offsets)):
        raise DatasetError("'ep_len' and 'ep_offset' are no lists of whole numbers")
    rows = [(int(offset), int(offset) + int(length)) for offset, length in zip(offsets, lengths, strict=True)]
    num_rows = len(stored_array(file, "action"))
    if any(not 0 <= start <= stop <= num_rows for start, stop in rows) or sum(map(int, lengths)) > num_rows:
        raise DatasetError(f"'ep_len' and 'ep_offset' point outside of its {num_rows} rows")
    if mark is not None:
        return _layout_of_ours(mark, rows)
    return _layout_of_others(file, [(start, stop) for start, stop in rows if stop - start > 1])


def _layout_of_ours(mark: dict[str, Any], rows: list[tuple[int, int]]) -> _Layout:
    columns, facts = mark.get("columns"), mark.get("episodes")
    if not isinstance(columns, list) or not isinstance(facts, list) or len(facts) != len(rows):
        raise DatasetError(f"its attribute {MARK!r} does not tell of columns and {len(rows)} episodes")
    if not all(isinstance(fact, dict) and isinstance(fact.get("info"), dict) for fact in facts):
        raise DatasetError(f"its attribute {MARK!r} does not tell the 'info' of every episode")
    names = {name: name.removeprefix("observation.") for name in columns}
    return _Layout(
        info=mark["info"],
        rows=rows,
        observation={stored: stored for name, stored in names.items() if name != stored},
        extra={name.removeprefix(_PREFIX): name for name in columns if name.startswith(_PREFIX)},
        has=set(names.values()),
        facts=facts,
    )


def _layout_of_others(file: Any, rows: list[tuple[int, int]]) -> _Layout:
    columns = {name for name in file if _is_numeric(file, name)}
    state = next((name for name in _STATE_COLUMNS if name in columns), None)
    observation = {"state": state} if state else {}
    if "pixels" in columns:
        observation["pixels"] = "pixels"
    others = columns - _INDEX_COLUMNS - _STEP_COLUMNS - set(observation.values())
    extra = {
        name: name
        for name in sorted(others)
        if is_word(name)
        and file[name].dtype.name in COLUMN_DTYPES
        and _is_finite(stored_array(file, name, len(file["action"])), rows)
    }
    info = {} if "reward" in columns else {"reward": "missing where this was imported from: 0"}
    return _Layout(info, rows, observation, extra, columns, None)


def _is_numeric(file: Any, name: str) -> bool:
    import h5py

    node = member(file, name)
    return isinstance(node, h5py.Dataset) and node.ndim > 0 and node.dtype.kind in "biuf"


def _is_finite(column: Any, rows: list[tuple[int, int]]) -> bool:
    return column.dtype.kind != "f" or all(
        bool(np.isfinite(column[start : stop - 1]).all()) for start, stop in rows
    )


def _episodes(path: Path, layout: _Layout) -> Iterator[Episode]:
    with reading(path), opened(path) as file:
        num_rows = len(file["action"])
        columns = {
            name: stored_array(file, name, num_rows)
            for name in {*layout.observation.values(), *layout.extra.values(), *(_STEP_COLUMNS & layout.has)}
            | {"action"}
        }
        if columns["action"].dtype.kind != "f":
            raise DatasetError(
                f"its actions are {columns['action'].dtype}: only continuous ones (floats) can be imported"
            )
        for number, (start, stop) in enumerate(layout.rows):
            arrays = {name: column[start:stop] for name, column in columns.items()}
            with locating(f"episode {number}"):
                episode = _episode(arrays, layout, number)
            yield episode


def _episode(arrays: dict[str, np.ndarray], layout: _Layout, number: int) -> Episode:
    num_steps = len(arrays["action"]) - 1
    is_ours = layout.facts is not None
    observation = {}
    for name, column in layout.observation.items():
        if name == "pixels":
            observation[name] = _channels_first(arrays[column], is_ours)
        else:
            observation[name] = arrays[column].reshape(num_steps + 1, -1).astype(np.float32)
    return Episode(
        observation=observation,
        action=arrays["action"][:-1].reshape(num_steps, -1).astype(np.float32),
        reward=_reward(arrays.get("reward", np.zeros(num_steps + 1)), is_ours),
        extra={name: native(arrays[column][:-1]) for name, column in layout.extra.items()},
        **(layout.facts[number] if layout.facts is not None else _ending(arrays)),
    )


def _channels_first(pixels: np.ndarray, is_ours: bool) -> np.ndarray:
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise DatasetError(f"'pixels' is {pixels.dtype}{list(pixels.shape)}; it is uint8, of 4 axes")
    # Their documentation allows both layouts, and their loader goes by the last axis.
    if not is_ours and pixels.shape[3] not in (1, 3) and pixels.shape[1] in (1, 3):
        return native(pixels)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _reward(reward: np.ndarray, is_ours: bool) -> np.ndarray:
    reward = reward.reshape(len(reward), -1)
    if reward.shape[1] != 1:
        raise DatasetError(f"'reward' has {reward.shape[1]} numbers a row; it is one")
    reward = reward[:, 0].astype(np.float32)
    is_beside_action = is_ours or (bool(np.isnan(reward[-1])) and not np.isnan(reward[0]))
    return reward[:-1] if is_beside_action else reward[1:]


def _ending(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    terminated = bool(np.any(arrays["terminated"][-1])) if "terminated" in arrays else False
    truncated = bool(np.any(arrays["truncated"][-1])) if "truncated" in arrays else not terminated
    return {"terminated": terminated, "truncated": truncated, "info": {}}
