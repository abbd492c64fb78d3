"""Many episodes on disk, looked at through memory maps: for datasets larger than memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from worldmodel.data.columns import Columns, num_rows
from worldmodel.data.compressed import CompressedRows
from worldmodel.data.shard import MERGED_SUFFIX, map_column, read_facts, read_manifest
from worldmodel.errors import DatasetError

_MAX_NUM_MAPS = 512  # each takes a file descriptor, of which a process has 1024


@dataclass(frozen=True)
class _Shard:
    path: Path
    counts: tuple[int, ...]  # steps of each episode
    origin: str  # as what its first episode was recorded
    # Steps of other episodes in the same files.
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


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

    def add(
        self,
        path: Path,
        counts: list[int],
        terminated: list[bool],
        *,
        origin: str,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
    ) -> None:
        """Add neighbouring episodes of a shard; their numbers stay on the disk.

        - `origin`: as what the first was recorded, by which they are found again when the shard is merged.
        - `before`, `after`: steps of the shard's other episodes, which are not added.
        """
        num_rows_before = int(self._last_rows[-1]) + 1 if self.num_episodes else 0
        self._first_rows.append(num_rows_before)
        self._first_episodes.append(self.num_episodes)
        ends = np.cumsum(counts, dtype=np.int64)
        self._step_ends = np.concatenate([self._step_ends, self.num_steps + ends])
        last_rows = num_rows_before + ends + np.arange(len(counts))
        self._last_rows = np.concatenate([self._last_rows, last_rows])
        self._shard_of = np.concatenate([self._shard_of, np.full(len(counts), len(self._shards))])
        self._terminated = np.concatenate([self._terminated, np.array(terminated, np.bool_)])
        self._shards.append(_Shard(path, tuple(counts), origin, tuple(before), tuple(after)))

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Copies of the columns of one episode."""
        shard = int(self._shard_of[index])
        last = int(self._last_rows[index])
        first = int(self._last_rows[index - 1]) + 1 if index else 0
        within = index - self._first_episodes[shard]
        arrays = {}
        for name in self.columns:
            is_observed = num_rows(name, 1) == 2
            rows = np.arange(first, last + is_observed) - self._first_rows[shard]
            arrays[name] = self._rows(shard, name, rows if is_observed else rows - within)
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
            else:
                taken[lines] = self._rows(shard, name, local[lines])
        if is_padding is not None:
            taken[is_padding] = 0
        return taken

    def take_terminated(self, rows: Int64[np.ndarray, "batch row"]) -> Bool[np.ndarray, "batch row"]:
        """Whether each row is the last step of an episode that terminated."""
        episodes = np.searchsorted(self._last_rows, rows[:, 0])
        is_last_step = rows == self._last_rows[episodes][:, None] - 1
        return is_last_step & self._terminated[episodes][:, None]

    def _rows(self, shard: int, name: str, rows: np.ndarray) -> np.ndarray:
        """Copies of some rows of a shard's column. Errors: `DatasetError` that names it."""
        try:
            return self._map(shard, name)[rows]
        except ValueError as error:  # of compressed rows
            raise DatasetError(
                f"cannot read {name} of {self._shards[shard].path}: {error}; `worldmodel data validate` "
                "names all damage"
            ) from error

    def _map(self, shard: int, name: str) -> np.ndarray | CompressedRows:
        key = (shard, name)
        if key in self._maps:
            self._maps.move_to_end(key)
            return self._maps[key]
        held = self._shards[shard]
        if not held.path.is_dir():
            held = self._shards[shard] = self._heir(held)
        counts = held.counts
        mapped = map_column(held.path, name, self.columns[name], (*held.before, *counts, *held.after))
        start = sum(num_rows(name, count) for count in held.before)
        stop = start + sum(num_rows(name, count) for count in counts)
        self._maps[key] = mapped[start:stop]
        if len(self._maps) > _MAX_NUM_MAPS:
            self._maps.popitem(last=False)
        return self._maps[key]

    def _heir(self, gone: _Shard) -> _Shard:
        """Where the episodes of a shard that was merged meanwhile are now."""
        for path in sorted(gone.path.parent.glob(f"[!.]*{MERGED_SUFFIX}")):
            origins = read_manifest(path)["replaces"]
            if gone.origin in origins:
                counts = [fact["num_steps"] for fact in read_facts(path)]
                names = list(origins)
                first = sum(origins[name] for name in names[: names.index(gone.origin)])
                end = first + len(gone.counts)
                if tuple(counts[first:end]) == gone.counts:
                    before, after = tuple(counts[:first]), tuple(counts[end:])
                    return replace(gone, path=path, before=before, after=after)
        raise DatasetError(f"{gone.path} is not there any more: open the dataset again to go on without it")
