"""What reading and writing LeRobot v3.0 share: names, the columns of frames, and paths that stay inside."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from worldmodel.errors import DatasetError

VERSION = "v3.0"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# What LeRobot has no place for. It looks at nothing else in meta/ than the files above.
OWN_INFO_PATH = "meta/worldmodel.json"
OWN_EPISODES_PATH = "meta/worldmodel.parquet"

CAMERA_PREFIX = "observation.images."
# Our name of a column, and LeRobot's; extra columns keep theirs, and cameras have names of their own.
FEATURE_NAMES = {"observation.state": "observation.state", "action": "action", "reward": "next.reward"}
# Frames say these too, but an episode of ours holds them in another form.
BOOKKEEPING = (
    "timestamp",
    "frame_index",
    "episode_index",
    "index",
    "task_index",
    "next.done",
    "next.truncated",
)

MAX_AXES = 5  # of a row: what the Hugging Face library, which LeRobot reads with, has types for


@dataclass(frozen=True)
class Feature:
    """A column of frames: `shape` is that of a row, where a single number has the shape (1,)."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, dtype: str, shape: tuple[int, ...]) -> Feature:
        """The feature for rows of `shape`. Errors: `DatasetError` for what LeRobot cannot hold."""
        if len(shape) > MAX_AXES or math.prod(shape) == 0:
            raise DatasetError(
                f"{name} has rows of the shape {list(shape)}; LeRobot holds at least 1 number in at most "
                f"{MAX_AXES} axes: reshape the column, or leave it out"
            )
        return cls(dtype, shape or (1,))

    def to_json(self, names: list[str] | None) -> dict[str, Any]:
        """The feature as it stands in info.json; `names` of the numbers of a vector."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}

    def hub_type(self) -> dict[str, Any]:
        """The feature as the Hugging Face library describes it in a parquet file."""
        number = {"dtype": self.dtype, "_type": "Value"}
        if self.shape == (1,):
            return number
        if len(self.shape) == 1:
            return {"feature": number, "length": self.shape[0], "_type": "List"}
        return {"dtype": self.dtype, "shape": list(self.shape), "_type": f"Array{len(self.shape)}D"}


def image_size(name: str, feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a camera's images, as info.json has them. Errors: `DatasetError` if it has none."""
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise DatasetError(f"{INFO_PATH} has the shape {shape!r} for {name}; it is height, width, channels")
    # Some say (channels, height, width), as LeRobot's own reader allows.
    channels_first = isinstance(names, list) and str(names[:1]).startswith("['channel")
    return (shape[1], shape[2]) if channels_first else (shape[0], shape[1])


def inside(root: Path, template: Any, values: dict[str, int | str]) -> Path:
    """The file that a path template of info.json names, such as `data/file-{file_index:03d}.parquet`.

    Errors: `DatasetError` for one that leads out of `root`, or that holds anything but these values: the
    templates are other people's, so `str.format`, which runs whatever stands in braces, is not for them.
    """

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match["name"])
        if value is None or (match["width"] is not None and isinstance(value, str)):
            return match[0]
        return str(value).zfill(int(match["width"] or 0))

    if not isinstance(template, str):
        raise DatasetError(f"{INFO_PATH} has the path {template!r}; it is a string such as {DATA_PATH!r}")
    name = re.sub(r"\{(?P<name>\w+)(?::0(?P<width>\d)d)?\}", value_of, template)
    # A Windows path understands both kinds of separators, and drives.
    path = PureWindowsPath(name)
    if re.search(r"[{}\\:\0]", name) or path.anchor or ".." in path.parts or not path.parts:
        raise DatasetError(
            f"{INFO_PATH} names the file {name!r}; it must lie inside of the dataset and name "
            f"{', '.join(values)} only, as {DATA_PATH!r} does: mend it there"
        )
    return root / name
