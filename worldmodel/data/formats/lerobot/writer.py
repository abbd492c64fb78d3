"""Writing a dataset in LeRobot's v3.0 layout; `lerobot` says what goes where."""

from __future__ import annotations

import json
import math
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.columns import Columns
from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.episode import Episode
from worldmodel.data.formats import require_exportable
from worldmodel.data.formats.lerobot import layout
from worldmodel.data.formats.lerobot.layout import Feature
from worldmodel.data.formats.lerobot.own import own_info, own_row
from worldmodel.data.formats.lerobot.stats import MAX_PIXELS, FeatureStatistics, image_rows
from worldmodel.data.formats.lerobot.tables import RowFile, schema_of, table_of, task_table, writer_of
from worldmodel.data.formats.lerobot.video import CODEC, PIXEL_FORMAT, VideoWriter
from worldmodel.errors import DatasetError
from worldmodel.files import committed_directory, fsync

MAX_DATA_BYTES = 100 * 2**20  # of a file; LeRobot's own limits
MAX_VIDEO_BYTES = 200 * 2**20
# LeRobot compares times in float32, to 0.1 ms: beyond 1024 s that is less than one rounding step.
MAX_VIDEO_S = 1000.0
FILES_PER_CHUNK = 1000

_FRAME_FEATURES = {
    "next.done": Feature("bool", (1,)),
    "next.truncated": Feature("bool", (1,)),
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


def write(path: Path, dataset: EpisodeDataset, info: dict[str, Any]) -> None:
    """A new folder with all episodes; it appears whole or not at all.

    info: needs `control_period_s`; `task` and `camera` (names), if there, name the task and the video.
    Errors: `DatasetError` for a folder that exists, no episodes, an unknown control period, pixels that are
    not RGB, or rows that LeRobot cannot hold.
    """
    require_exportable(path, dataset)
    fps = _frames_per_second(info.get("control_period_s"))
    features, camera = _features(dataset.columns, info)
    task = str(info.get("task") or "unnamed task")
    with committed_directory(path) as folder:
        with closing(_Writer(folder, fps, features, camera, dataset, task)) as writer:
            for index in range(len(dataset)):
                writer.append(dataset.episode(index))
        writer.write_meta(info)
        for entry in folder.rglob("*"):
            fsync(entry)


def _frames_per_second(control_period_s: Any) -> int:
    if not isinstance(control_period_s, int | float) or not 0 < control_period_s < math.inf:
        raise DatasetError(
            f"control_period_s={control_period_s!r} in the dataset's info; LeRobot needs the seconds from "
            "one step to the next, above 0: add them to 'info' in dataset.json"
        )
    return max(1, round(1 / control_period_s))


def _features(columns: Columns, info: dict[str, Any]) -> tuple[dict[str, Feature], str | None]:
    """The features of frames by name, and the name of the one that is a video."""
    features, camera = {}, None
    for name, column in columns.items():
        if name != "observation.pixels":
            feature = Feature.of(name, column.dtype, column.shape)
            features[layout.FEATURE_NAMES.get(name, name)] = feature
            continue
        if column.shape[0] != 3:
            raise DatasetError(
                f"pixels have {column.shape[0]} channels; a LeRobot video has 3, RGB: record RGB images"
            )
        view = info.get("camera")
        is_plain = isinstance(view, str) and re.fullmatch(r"[A-Za-z0-9_-]+", view) is not None
        camera = f"{layout.CAMERA_PREFIX}{view if is_plain else 'camera'}"
        Feature.of(name, column.dtype, column.shape)
    return features | _FRAME_FEATURES, camera


class _Writer:
    """The files of a dataset as they grow, one episode after the other."""

    def __init__(
        self,
        folder: Path,
        fps: int,
        features: dict[str, Feature],
        camera: str | None,
        dataset: EpisodeDataset,
        task: str,
    ) -> None:
        self.folder, self.fps, self.features, self.camera = folder, fps, features, camera
        self.columns = dataset.columns
        self.task = task
        self._schema = schema_of(features)
        self._statistics = {name: FeatureStatistics(dataset.num_steps) for name in features}
        if camera:
            self._statistics[camera] = FeatureStatistics(len(dataset) * MAX_PIXELS)
        self._data: Any = None
        self._video: VideoWriter | None = None
        self._num_files = 0
        self._data_bytes = 0
        self._num_frames = 0
        self._num_episodes = 0
        self._rows = RowFile(folder / layout.EPISODES_PATH)
        self._own_rows = RowFile(folder / layout.OWN_EPISODES_PATH)

    def append(self, episode: Episode) -> None:
        """Add an episode."""
        number, num_frames = self._num_episodes, episode.num_steps
        frames = self._frames(episode, number)
        table = table_of(frames, self._schema)
        if self._data is None or self._is_full(num_frames):
            self._next_file()
        self._data.write_table(table, row_group_size=num_frames)
        self._data_bytes += table.nbytes
        chunk, file = divmod(self._num_files - 1, FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [self.task],
            "length": num_frames,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + num_frames,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        statistics = {
            name: self._statistics[name].add(rows.reshape(num_frames, *self.features[name].shape))
            for name, rows in frames.items()
        }
        if self._video is not None and self.camera:
            pixels = episode.observation["pixels"][:-1]
            start = self._video.num_frames
            self._video.append(pixels)
            row |= {
                f"videos/{self.camera}/chunk_index": chunk,
                f"videos/{self.camera}/file_index": file,
                f"videos/{self.camera}/from_timestamp": start / self.fps,
                f"videos/{self.camera}/to_timestamp": self._video.num_frames / self.fps,
            }
            statistics[self.camera] = self._statistics[self.camera].add(*image_rows(pixels))
        for name, values in statistics.items():
            row |= {f"stats/{name}/{key}": value for key, value in values.items()}
        self._rows.append(row)
        self._own_rows.append(own_row(episode, number))
        self._num_episodes += 1
        self._num_frames += num_frames

    def close(self) -> None:
        """End the files of frames that are open."""
        try:
            if self._data is not None:
                self._data.close()
        finally:
            if self._video is not None:
                self._video.close()

    def write_meta(self, info: dict[str, Any]) -> None:
        """All that can be told only after the last episode."""
        import pyarrow.parquet as pq

        self._rows.close()
        self._own_rows.close()
        pq.write_table(task_table([self.task]), self.folder / layout.TASKS_PATH)
        self._write_json(layout.STATS_PATH, {name: s.total() for name, s in self._statistics.items()})
        self._write_json(layout.OWN_INFO_PATH, own_info(self.folder, info, self.columns))
        self._write_json(
            layout.INFO_PATH,
            {
                "codebase_version": layout.VERSION,
                "robot_type": None,
                "total_episodes": self._num_episodes,
                "total_frames": self._num_frames,
                "total_tasks": 1,
                "chunks_size": FILES_PER_CHUNK,
                "data_files_size_in_mb": MAX_DATA_BYTES // 2**20,
                "video_files_size_in_mb": MAX_VIDEO_BYTES // 2**20,
                "fps": self.fps,
                "splits": {"train": f"0:{self._num_episodes}"},
                "data_path": layout.DATA_PATH,
                "video_path": layout.VIDEO_PATH if self.camera else None,
                "features": self._features_json(),
            },
        )

    def _frames(self, episode: Episode, number: int) -> dict[str, np.ndarray]:
        """The columns of an episode's frames, by the names of the features."""
        steps = np.arange(episode.num_steps)
        is_last = steps == episode.num_steps - 1
        columns = {
            "action": episode.action,
            "next.reward": episode.reward,
            **{f"extra.{name}": rows for name, rows in episode.extra.items()},
            "next.done": is_last & (episode.terminated or episode.truncated),
            "next.truncated": is_last & episode.truncated,
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full_like(steps, number),
            "index": self._num_frames + steps,
            "task_index": np.zeros_like(steps),
        }
        if "state" in episode.observation:
            columns["observation.state"] = episode.observation["state"][:-1]
        return {name: columns[name] for name in self.features}

    def _is_full(self, num_frames: int) -> bool:
        if self._data_bytes >= MAX_DATA_BYTES:
            return True
        if self._video is None:
            return False
        seconds = (self._video.num_frames + num_frames) / self.fps
        return self._video.num_bytes >= MAX_VIDEO_BYTES or seconds > MAX_VIDEO_S

    def _next_file(self) -> None:
        """Go on in a new data file, and a new video beside it."""
        self.close()
        self._data = self._video = None
        chunk, file = divmod(self._num_files, FILES_PER_CHUNK)
        path = self.folder / layout.DATA_PATH.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._data = writer_of(path, self._schema)
        if self.camera:
            video = layout.VIDEO_PATH.format(video_key=self.camera, chunk_index=chunk, file_index=file)
            _, height, width = self.columns["observation.pixels"].shape
            self._video = VideoWriter(self.folder / video, self.fps, height, width)
        self._num_files += 1
        self._data_bytes = 0

    def _features_json(self) -> dict[str, Any]:
        content = {}
        for name, feature in self.features.items():
            names = None
            if name in ("observation.state", "action"):
                names = [f"{name.rpartition('.')[2]}_{index}" for index in range(feature.shape[0])]
            content[name] = feature.to_json(names)
        if self.camera:
            _, height, width = self.columns["observation.pixels"].shape
            content[self.camera] = Feature("video", (height, width, 3)).to_json(
                ["height", "width", "channels"]
            )
            content[self.camera]["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": CODEC,
                "video.pix_fmt": PIXEL_FORMAT,
                "video.is_depth_map": False,
                "video.fps": self.fps,
                "video.channels": 3,
                "has_audio": False,
            }
        return content

    def _write_json(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content, indent=2) + "\n")
