"""A dataset on disk: `dataset.json` and a directory of immutable shards, that many may write at once.

    DIR/dataset.json              schema version, columns, info
    DIR/shards/<name>/            one shard (see shard.py); names sort by the time they were made
    DIR/shards/<name>-merged/     one that holds the episodes of several others, which readers then ignore
    DIR/shards/.tmp-<name>/       a shard that is being written, or whose writer died; readers ignore it

Writers never touch each other's shards and need no lock. Merging takes one, and so does what changes
dataset.json, such as the first episode, which sets the columns.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.columns import Columns, columns_of, num_rows
from worldmodel.data.description import Description
from worldmodel.data.episode import Episode
from worldmodel.data.shard import (
    ShardHeader,
    episode_arrays,
    is_merged,
    read_header,
    read_manifest,
    read_shard,
    write_failure,
    write_shard,
)
from worldmodel.errors import DatasetError
from worldmodel.files import TEMPORARY_PREFIX, make_directory, remove_stale


class EpisodeStore:
    """The dataset directory at `path`; with `create`, made if there is none, and open for writing."""

    def __init__(self, path: Path, *, create: bool = False, info: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.description = Description(path)
        self._shards = path / "shards"
        self._last_number = 0  # The highest that was listed or given to a shard.
        self._ignores: dict[str, list[str]] = {}  # Of merged shards, which never change.
        if create:
            self.description.read_for_writing(info or {})
            self._make_folder()
            self._remove_stale()
            self._listed()
        else:
            self.description.read()

    @property
    def columns(self) -> Columns:
        """The columns, as they were last read; empty until the first episode sets them."""
        return self.description.columns

    @property
    def info(self) -> dict[str, Any]:
        """What is known of the whole dataset."""
        return self.description.info

    def shard_names(self) -> list[str]:
        """Names of the committed shards, oldest first."""
        names = self.all_names()
        ignored = {old for name in names for old in self.ignored_by(name)}
        return [name for name in names if name not in ignored]

    def ignored_by(self, name: str) -> list[str]:
        """The shards that a merged one stands for; none if it is damaged, which is told when it is read."""
        if is_merged(name) and name not in self._ignores:
            with suppress(DatasetError):
                self._ignores[name] = read_manifest(self._shards / name)["ignores"]
        return self._ignores.get(name, [])

    def all_names(self) -> list[str]:
        """Names of the committed shards, those whose episodes a merged one holds included."""
        # A listing is no snapshot: it may miss a shard that is merged meanwhile, and its heir too.
        names = self._listed()
        while True:
            again = self._listed()
            if again == names:
                return names
            names = again

    def _listed(self) -> list[str]:
        try:
            entries = [entry for entry in os.scandir(self._shards) if entry.is_dir()]
        except FileNotFoundError:
            return []
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        numbers = [int(number) for name in names if (number := name.split("-")[0]).isdecimal()]
        self._last_number = max([self._last_number, *numbers])
        return names

    def header(self, name: str) -> ShardHeader:
        """What a shard tells without its numbers; DatasetError if it is damaged."""
        return read_header(self._shards / name)

    def episode_infos(self) -> Iterator[dict[str, Any]]:
        """The `info` of each episode, without its numbers; `DatasetError` for a damaged shard."""
        seen: set[str] = set()
        has_vanished = True
        while has_vanished:  # merged meanwhile: what took its place is listed now
            has_vanished = False
            for name in self.shard_names():
                if name in seen:
                    continue
                try:
                    header = self.header(name)
                except DatasetError:
                    if self.holds(name):
                        raise
                    has_vanished = True
                    continue
                facts = iter(header.facts)
                for origin, number in header.origins.items():
                    part = list(islice(facts, number))
                    if origin not in seen:
                        yield from (fact["info"] for fact in part)
                seen |= {name, *header.origins}

    def shard_path(self, name: str) -> Path:
        """The directory of a shard."""
        return self._shards / name

    def num_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self._shards.glob("[!.]*/*.*"))

    def num_raw_bytes(self, header: ShardHeader) -> int:
        """Bytes of a shard's numbers, once they are in memory."""
        total = 0
        for name, column in self.columns_of_episodes().items():
            num_bytes = math.prod(column.shape) * np.dtype(column.dtype).itemsize
            total += num_bytes * sum(num_rows(name, count) for count in header.lengths)
        return total

    def read(self, header: ShardHeader) -> list[Episode]:
        """The episodes of a shard; DatasetError if it is damaged."""
        return read_shard(header, self.columns_of_episodes())

    def columns_of_episodes(self) -> Columns:
        """The columns, once there are episodes."""
        if not self.columns:
            self.description.read()  # Another process has written the first episode since.
        return self.columns

    def holds(self, name: str) -> bool:
        """Whether the shard is (still) there: people may delete one while others read."""
        return (self._shards / name).is_dir()

    def write(self, episodes: Sequence[Episode], *, compresses_pixels: bool = False) -> str:
        """Commit the episodes as one new shard and return its name; DatasetError if that is impossible."""
        for episode in episodes:
            self.description.require_columns(columns_of(episode_arrays(episode)))
        name = self._new_name()
        write_shard(self._shards, name, episodes, compresses_pixels=compresses_pixels)
        return name

    def _make_folder(self) -> None:
        try:
            make_directory(self._shards)
        except OSError as error:
            raise DatasetError(write_failure(self.path, error)) from error

    def _new_name(self) -> str:
        # The clock orders the shards of several writers; the maximum keeps order if the clock is set back.
        self._last_number = max(self._last_number + 1, time.time_ns())
        return f"{self._last_number:020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def _remove_stale(self) -> None:
        """Delete what writers that died have left behind."""
        for folder in (self.path, self._shards):
            remove_stale(folder.glob(f"{TEMPORARY_PREFIX}*"))
