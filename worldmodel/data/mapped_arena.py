"""Many episodes on disk, looked at through memory maps: for datasets larger than memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from worldmodel.data.columns import Columns, num_rows
from worldmodel.data.compressed import CompressedRows
from worldmodel.data.shard import map_column
from worldmodel.errors import DatasetError

_MAX_NUM_MAPS = 512  # each takes a file descriptor, of which a process has 1024


@dataclass(frozen=True)
class _Shard:
    path: Path
    counts: tuple[int, ...]  # steps of each episode


class MappedArena:
    """As `EpisodeArena`, without the numbers in memory: an episode takes a few dozen bytes.

    Rows are numbered as there: T + 1 for an episode of T steps in every column, the last of which is padding
    where a column has no value (on disk it has no row).
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._shards: list[_Shard] = []
        self._maps: OrderedDict[tuple[int, str], np.ndarray | CompressedRows] = OrderedDict()
        # Of each episode: its last row, the number of the first step after it, its shard, whether terminated.
        self._last_rows = np.empty(0, np.int64)
        self._step_ends = np.empty(0, np.int64)
        self._shard_of = np.empty(0, np.int64)
        self._terminated = np.empty(0, np.bool_)
        # Of each shard: its first row and its first episode.
        self._first_rows: list[int] = []
        self._first_episodes: list[int] = []

    @property
    def num_episodes(self) -> int:
        """Episodes that can be looked at."""
        return len(self._last_rows)

    @property
    def num_steps(self) -> int:
        """Steps of all episodes."""
        return int(self._step_ends[-1]) if self.num_episodes else 0

    @property
    def memory_bytes(self) -> int:
        """Bytes held: what tells where episodes are."""
        arrays = (self._last_rows, self._step_ends, self._shard_of, self._terminated)
        return sum(array.nbytes for array in arrays)

    def add(self, path: Path, counts: list[int], terminated: list[bool]) -> None:
        """Add the episodes of a shard; their numbers stay on the disk."""
        num_rows_before = int(self._last_rows[-1]) + 1 if self.num_episodes else 0
        self._first_rows.append(num_rows_before)
        self._first_episodes.append(self.num_episodes)
        ends = np.cumsum(counts, dtype=np.int64)
        self._step_ends = np.concatenate([self._step_ends, self.num_steps + ends])
        last_rows = num_rows_before + ends + np.arange(len(counts))
        self._last_rows = np.concatenate([self._last_rows, last_rows])
        self._shard_of = np.concatenate([self._shard_of, np.full(len(counts), len(self._shards))])
        self._terminated = np.concatenate([self._terminated, np.array(terminated, np.bool_)])
        self._shards.append(_Shard(path, tuple(counts)))

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Copies of the columns of one episode."""
        shard = int(self._shard_of[index])
        within = index - self._first_episodes[shard]
        counts = self._shards[shard].counts
        arrays = {}
        for name in self.columns:
            start = sum(num_rows(name, count) for count in counts[:within])
            rows = np.arange(start, start + num_rows(name, counts[within]))
            arrays[name] = self._map(shard, name)[rows]
        return arrays

    def rows_of(
        self, steps: Int64[np.ndarray, " batch"], horizon: int
    ) -> tuple[Int64[np.ndarray, "batch row"], Bool[np.ndarray, "batch horizon"]]:
        """As `EpisodeArena.rows_of`."""
        episodes = np.searchsorted(self._step_ends, steps, side="right")
        rows = (steps + episodes)[:, None] + np.arange(horizon + 1)
        last = self._last_rows[episodes][:, None]
        return np.minimum(rows, last), rows[:, :-1] < last

    def take(self, name: str, rows: Int64[np.ndarray, "batch row"]) -> np.ndarray:
        """Copies of the rows of one column; those of one line belong to one episode."""
        episodes = np.searchsorted(self._last_rows, rows[:, 0])
        shards = self._shard_of[episodes]
        local = rows - np.take(self._first_rows, shards)[:, None]
        is_padding = None
        if num_rows(name, 1) == 1:  # no row on disk for the last one of each episode
            is_padding = rows == self._last_rows[episodes][:, None]
            local -= (episodes - np.take(self._first_episodes, shards))[:, None] + is_padding
        column = self.columns[name]
        taken = np.empty((*rows.shape, *column.shape), column.dtype)
        order = np.argsort(shards, kind="stable")
        ordered = shards[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        for lines in np.split(order, starts[1:]):
            shard = int(shards[lines[0]])
            source = self._map(shard, name)
            if len(starts) == 1 and isinstance(source, np.ndarray):
                np.take(source, local, axis=0, out=taken, mode="clip")  # the only mode without a buffer
                continue
            try:
                taken[lines] = source[local[lines]]
            except ValueError as error:  # of compressed rows
                raise DatasetError(
                    f"cannot read {name} of {self._shards[shard].path}: {error}; `worldmodel data validate` "
                    "names all damage"
                ) from error
        if is_padding is not None:
            taken[is_padding] = 0
        return taken

    def take_terminated(self, rows: Int64[np.ndarray, "batch row"]) -> Bool[np.ndarray, "batch row"]:
        """Whether each row is the last step of an episode that terminated."""
        episodes = np.searchsorted(self._last_rows, rows[:, 0])
        is_last_step = rows == self._last_rows[episodes][:, None] - 1
        return is_last_step & self._terminated[episodes][:, None]

    def _map(self, shard: int, name: str) -> np.ndarray | CompressedRows:
        key = (shard, name)
        if key in self._maps:
            self._maps.move_to_end(key)
        else:
            self._maps[key] = map_column(
                self._shards[shard].path, name, self.columns[name], self._shards[shard].counts
            )
            if len(self._maps) > _MAX_NUM_MAPS:
                self._maps.popitem(last=False)
        return self._maps[key]
