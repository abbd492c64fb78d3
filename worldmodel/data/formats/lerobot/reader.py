"""Reading datasets in LeRobot's v3.0 layout, ours and others'; `lerobot` says what is where."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.columns import COLUMN_DTYPES, is_word
from worldmodel.data.episode import Episode
from worldmodel.data.formats.lerobot import layout
from worldmodel.data.formats.lerobot.own import OwnEpisode, OwnFiles
from worldmodel.data.formats.lerobot.tables import FrameFile, read_episode_rows, rows_of
from worldmodel.data.formats.lerobot.video import read_frames, read_image
from worldmodel.errors import DatasetError

_IMAGES = ("video", "image")


def read(path: Path, camera: str | None = None) -> tuple[dict[str, Any], Iterator[Episode]]:
    """What is known of the dataset, and its episodes, whose frames are read one episode at a time.

    camera: whose images become the pixels, where there are several cameras
    Errors: `DatasetError` for another version, several cameras without a choice, what no episode can be made
    of, and missing or damaged files (those of frames when their episode is reached).
    """
    dataset = _LeRobotDataset(path, camera)
    return dataset.info(), dataset.episodes()


class _LeRobotDataset:
    """The tables in meta/, and what becomes of each feature."""

    def __init__(self, path: Path, camera: str | None) -> None:
        self.path = path
        self.header = _header(path)
        self.features: dict[str, dict[str, Any]] = self.header["features"]
        self.fps = float(self.header["fps"])
        self.camera = self._camera(camera)
        for name in ("action",) if self.camera else ("action", "observation.state"):
            if name not in self.features:
                raise DatasetError(
                    f"{path} has no feature {name!r}, without which there are no episodes; it has "
                    f"{', '.join(sorted(self.features))}"
                )
        self.extra = self._extra_columns()
        self.rows = self._episode_rows()
        self.num_frames = sum(row["length"] for row in self.rows)
        has_own = (path / layout.OWN_INFO_PATH).exists()
        self.own = OwnFiles(path, max_rows=self.num_frames) if has_own else None

    def info(self) -> dict[str, Any]:
        """What is known of the dataset as a whole."""
        if self.own:
            return self.own.info
        info: dict[str, Any] = {"control_period_s": 1 / self.fps}
        tasks = {task for row in self.rows for task in _tasks(row)}
        if len(tasks) == 1:
            info["task"] = tasks.pop()
        if isinstance(self.header.get("robot_type"), str):
            info["robot_type"] = self.header["robot_type"]
        if self.camera:
            info["camera"] = self.camera.removeprefix(layout.CAMERA_PREFIX)
        return info

    def episodes(self) -> Iterator[Episode]:
        """The episodes, in the order of their numbers."""
        file: FrameFile | None = None
        for row in self.rows:
            number, length = row["episode_index"], row["length"]
            own = self.own.episode(number, length) if self.own else None
            if own is None and length < 2:
                warnings.warn(
                    f"left out episode {number} of {self.path} with its {length} frames: nothing is known of "
                    "what an action led to",
                    stacklevel=2,
                )
                continue
            path = self._file(row, "data", self.header.get("data_path"))
            if file is None or file.path != path:
                file = FrameFile(path, max_rows=self.num_frames)
            try:
                episode = self._episode(row, file, own)
            except DatasetError as error:
                raise DatasetError(f"episode {number} of {self.path}: {error}") from error
            yield episode

    def _episode(self, row: dict[str, Any], file: FrameFile, own: OwnEpisode | None) -> Episode:
        known = [name for name in layout.FEATURE_NAMES.values() if name in self.features]
        images = [self.camera] if self.camera and self._dtype(self.camera) == "image" else []
        table = file.frames(row["episode_index"], [*known, *self.extra, *images])
        length = row["length"]
        if len(table) != length:
            raise DatasetError(
                f"{file.path} has {len(table)} frames of it, meta/episodes says {length}: copy the dataset "
                "again, whole"
            )
        columns = {name: rows_of(name, table[name]) for name in (*known, *self.extra)}
        observation = {}
        if "observation.state" in known:
            observation["state"] = _vectors(columns["observation.state"])
        if self.camera:
            observation["pixels"] = self._pixels(row, table)
        if own is not None:
            observation = {name: own.extended(name, rows) for name, rows in observation.items()}
        # Without the observation that it led to, the last action is not a step of an episode.
        num_steps = length if own is not None else length - 1
        reward = columns.get("next.reward", np.zeros(length))
        return Episode(
            observation=observation,
            action=_vectors(columns["action"])[:num_steps],
            reward=_vectors(reward)[:num_steps, 0],
            terminated=own is not None and own.terminated,
            truncated=own is None or own.truncated,
            extra={
                name: self._shaped(feature, columns[feature][:num_steps])
                for feature, name in self.extra.items()
            },
            info={"task": ", ".join(_tasks(row))} if own is None else own.info,
        )

    def _shaped(self, feature: str, rows: np.ndarray) -> np.ndarray:
        """The rows of an extra column as they were: to LeRobot a number and a [1] are the same."""
        rows = rows.astype(self._dtype(feature))
        column = self.own.columns.get(feature) if self.own else None
        if column is None or math.prod(column.shape) != rows[0].size:
            return rows
        return rows.reshape(len(rows), *column.shape)

    def _pixels(self, row: dict[str, Any], table: Any) -> np.ndarray:
        """The frames of the camera."""
        assert self.camera is not None
        if self._dtype(self.camera) == "image":
            files = [entry.get("bytes") if entry else None for entry in table[self.camera].to_pylist()]
            size = layout.image_size(self.camera, self.features[self.camera])
            return np.stack([read_image(file, size) for file in files])
        place = f"videos/{self.camera}"
        start_s = row.get(f"{place}/from_timestamp")
        if not isinstance(start_s, int | float) or not 0 <= start_s < math.inf:
            raise DatasetError(f"{place}/from_timestamp is {start_s!r}; it is a number of seconds")
        path = self._file(row, place, self.header.get("video_path"), video_key=self.camera)
        if self.own is not None:
            self.own.check_video(path)
        return read_frames(path, self.fps, float(start_s), row["length"])

    def _file(self, row: dict[str, Any], place: str, template: Any, video_key: str | None = None) -> Path:
        """The file that holds an episode's frames or video."""
        values: dict[str, int | str] = {} if video_key is None else {"video_key": video_key}
        for name in ("chunk_index", "file_index"):
            number = row.get(f"{place}/{name}")
            if not isinstance(number, int) or number < 0:
                raise DatasetError(
                    f"{self.path}: {place}/{name} of episode {row['episode_index']} is {number!r}; it counts "
                    "from 0"
                )
            values[name] = number
        return layout.inside(self.path, template, values)

    def _dtype(self, feature: str) -> str:
        return str(self.features[feature]["dtype"])

    def _camera(self, wanted: str | None) -> str | None:
        """The feature whose images become the pixels, if there is one."""
        cameras = sorted(name for name in self.features if self._dtype(name) in _IMAGES)
        if wanted is None and len(cameras) < 2:
            return cameras[0] if cameras else None
        for name in cameras:
            if wanted in (name, name.removeprefix(layout.CAMERA_PREFIX)):
                return name
        chosen = "none is chosen" if wanted is None else f"{wanted!r} is not there"
        raise DatasetError(
            f"{self.path} has the cameras {', '.join(cameras) or '(none)'}, an episode has one, {chosen}: "
            "choose one with camera=, or remove the others with LeRobot's `lerobot-edit-dataset "
            "--operation.type remove_feature`"
        )

    def _extra_columns(self) -> dict[str, str]:
        """The features that become extra columns, and their names there."""
        extra: dict[str, str] = {}
        left_out = []
        for feature in self.features:
            is_known = feature in layout.FEATURE_NAMES.values() or feature in layout.BOOKKEEPING
            if is_known or self._dtype(feature) in _IMAGES:
                continue
            name = re.sub(r"\W", "_", feature.removeprefix("extra."), flags=re.ASCII)
            if self._dtype(feature) not in COLUMN_DTYPES or not is_word(name) or name in extra.values():
                left_out.append(f"{feature} ({self._dtype(feature)})")
            else:
                extra[feature] = name
        if left_out:
            warnings.warn(
                f"left out of {self.path} what no column can hold: {', '.join(sorted(left_out))}",
                stacklevel=4,
            )
        return extra

    def _episode_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for file in sorted((self.path / "meta" / "episodes").glob("*/*.parquet")):
            rows += read_episode_rows(file)
        if not rows:
            raise DatasetError(f"{self.path} has no episodes in meta/episodes: copy the dataset again, whole")
        for row in rows:
            for name in ("episode_index", "length"):
                if not isinstance(row.get(name), int) or row[name] < 0:
                    raise DatasetError(
                        f"{self.path}: {name} of an episode in meta/episodes is {row.get(name)!r}; it counts "
                        "from 0"
                    )
        return sorted(rows, key=lambda row: int(row["episode_index"]))


def _header(path: Path) -> dict[str, Any]:
    """What meta/info.json says, of a version that is known."""
    file = path / layout.INFO_PATH
    try:
        header = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{path} is no LeRobot dataset: it has no {layout.INFO_PATH}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is damaged ({error}): copy the dataset again") from error
    version = header.get("codebase_version") if isinstance(header, dict) else None
    if not isinstance(version, str) or not version.startswith("v3."):
        raise DatasetError(
            f"{path} is a LeRobot dataset of the version {version!r}; only v3 is read: convert v2.1 with "
            "LeRobot's `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=...`"
        )
    fps, features = header.get("fps"), header.get("features")
    if not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise DatasetError(f"{file} has fps={fps!r}; it is a number of frames per second, above 0")
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict) and isinstance(feature.get("dtype"), str) for feature in features.values()
    ):
        raise DatasetError(f"{file} has no 'features', each with its 'dtype': copy the dataset again")
    return header


def _tasks(row: dict[str, Any]) -> list[str]:
    tasks = row.get("tasks")
    return [task for task in tasks if isinstance(task, str)] if isinstance(tasks, list) else []


def _vectors(rows: np.ndarray) -> np.ndarray:
    """Rows as float32 vectors, whatever their shape."""
    return rows.reshape(len(rows), -1).astype(np.float32)
