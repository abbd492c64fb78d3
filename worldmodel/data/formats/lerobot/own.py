"""What LeRobot has no place for, in two files beside its own: the last observations, and what is known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from worldmodel.data.columns import Columns, columns_from_json, columns_to_json
from worldmodel.data.episode import Episode
from worldmodel.data.formats.lerobot.layout import OWN_EPISODES_PATH, OWN_INFO_PATH
from worldmodel.data.formats.lerobot.tables import FrameFile, reading
from worldmodel.data.formats.lerobot.video import png, read_image
from worldmodel.errors import DatasetError


def own_row(episode: Episode, number: int) -> dict[str, Any]:
    """What its frames do not hold of an episode."""
    last = {name: rows[-1] for name, rows in episode.observation.items()}
    return {
        "episode_index": number,
        "length": episode.num_steps,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "info": json.dumps(episode.info),
        "final_state": last["state"].tolist() if "state" in last else None,
        "final_pixels": png(last["pixels"]) if "pixels" in last else None,
    }


def own_info(root: Path, info: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """What is known of the dataset as a whole, ready for JSON; its videos are written."""
    videos = {path.relative_to(root).as_posix(): _contents(path) for path in root.glob("videos/*/*/*.mp4")}
    return {"info": info, "columns": columns_to_json(columns), "videos": videos}


def _contents(path: Path) -> dict[str, int]:
    """What tells a file from another, or from a damaged one."""
    checksum = 0
    with open(path, "rb") as file:
        while part := file.read(2**20):
            checksum = crc32(part, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}


@dataclass(frozen=True, kw_only=True)
class OwnEpisode:
    """What lies beside the frames of one episode."""

    terminated: bool
    truncated: bool
    info: dict[str, Any]
    final_observation: dict[str, np.ndarray]

    def extended(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The observations `rows`, and the last one. Errors: `DatasetError` if it is of another shape."""
        last = self.final_observation.get(name)
        if last is None or last.shape != rows.shape[1:]:
            shape = None if last is None else list(last.shape)
            raise DatasetError(
                f"the final {name} in {OWN_EPISODES_PATH} has the shape {shape}, that of frames is "
                f"{list(rows.shape[1:])}: delete {OWN_INFO_PATH} to do without final observations"
            )
        return np.concatenate([rows, last[None]])


class OwnFiles:
    """Both files, of a dataset that we wrote. Errors: `DatasetError` for damaged ones."""

    def __init__(self, root: Path, *, max_rows: int) -> None:
        path = root / OWN_INFO_PATH
        try:
            content = json.loads(path.read_bytes())
            self.info: dict[str, Any] = dict(content["info"])
            self.columns: Columns = columns_from_json(content["columns"])
            # Exports of before had none.
            self._videos = {name: dict(file) for name, file in content.get("videos", {}).items()}
        except (OSError, KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
            raise DatasetError(
                f"{path} is damaged ({error}): copy the dataset again, or delete the file to do without it"
            ) from error
        self._root, self._checked = root, set[Path]()
        self._episodes = FrameFile(root / OWN_EPISODES_PATH, max_rows=max_rows)

    def episode(self, number: int, length: int) -> OwnEpisode | None:
        """What lies beside episode `number`; None if it is not the one that we wrote."""
        with reading(self._episodes.path):
            rows = self._episodes.frames(number, None).to_pylist()
        if not rows or rows[0].get("length") != length:
            return None
        try:
            state, image = rows[0]["final_state"], rows[0]["final_pixels"]
            return OwnEpisode(
                terminated=bool(rows[0]["terminated"]),
                truncated=bool(rows[0]["truncated"]),
                info=dict(json.loads(rows[0]["info"])),
                final_observation={
                    **({} if state is None else {"state": np.asarray(state, dtype=np.float32)}),
                    **({} if image is None else {"pixels": read_image(image, self._image_size())}),
                },
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DatasetError(
                f"{self._episodes.path} is damaged ({error}): copy the dataset again"
            ) from error

    def check_video(self, path: Path) -> None:
        """Notice damage, which decoders gloss over. Errors: `DatasetError`; nothing is said of a new video.

        LeRobot may have added episodes to a file of ours: it has another size by then.
        """
        name = path.relative_to(self._root).as_posix()
        if path in self._checked or name not in self._videos or not path.is_file():
            return
        written, found = self._videos[name], _contents(path)
        if found["bytes"] == written.get("bytes") and found != written:
            raise DatasetError(
                f"{path} is damaged: its bytes are not those that were written (checksum): copy it again"
            )
        self._checked.add(path)

    def _image_size(self) -> tuple[int, int]:
        """Height and width."""
        _, height, width = self.columns["observation.pixels"].shape
        return height, width
