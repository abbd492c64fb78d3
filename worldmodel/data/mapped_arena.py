"""Many episodes on disk, looked at through memory maps: for datasets larger than memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from worldmodel.data.arena import bounds_of
from worldmodel.data.columns import Columns, num_rows
from worldmodel.data.compressed import CompressedRows
from worldmodel.data.shard import MERGED_SUFFIX, ShardHeader, map_column, read_header
from worldmodel.errors import DatasetError

_MAX_NUM_MAPS = 8192


@dataclass(frozen=True)
class _Shard:
    path: Path
    counts: tuple[int, ...]  # steps of each episode
    origin: str  # as what the first was recorded, by which they are found again when the shard is merged
    # Steps of other episodes in the same files.
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class MappedArena:
    """As `EpisodeArena`, with the numbers left on the disk.

    An episode takes 0.6 to 1.5 kB of memory, its facts and its shard's name included, however long it is.

    Rows are numbered as there: T + 1 for an episode of T steps in every column, the last of which is padding
    where a column has no value (on disk it has no row).
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._shards: list[_Shard] = []
        self._maps: OrderedDict[tuple[int, str], np.ndarray | CompressedRows] = OrderedDict()
        self._max_num_maps = min(_MAX_NUM_MAPS, _max_num_files() // 2)  # each takes an open file
        # Of each episode: its last row, the number of the first step after it, its shard, whether terminated.
        self._last_rows = np.empty(0, np.int64)
        self._step_ends = np.empty(0, np.int64)
        self._shard_of = np.empty(0, np.int64)
        self._terminated = np.empty(0, np.bool_)
        # Of each shard.
        self._first_rows = np.empty(0, np.int64)
        self._first_episodes = np.empty(0, np.int64)
        # Of each episode that was added since: its steps, its shard, whether terminated.
        self._added: list[tuple[int, int, bool]] = []

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
        """Bytes of the arrays that tell where steps are; the names and lengths in shards take more."""
        arrays = (self._last_rows, self._step_ends, self._shard_of, self._terminated)
        return sum(array.nbytes for array in (*arrays, self._first_rows, self._first_episodes))

    def add(self, header: ShardHeader, is_new: list[bool]) -> None:
        """Add those episodes of a shard that are new, to be looked at after `settle`; numbers stay on disk.

        Episodes of one origin are all new, or none of them.
        """
        counts, origins, end = tuple(header.lengths), header.each_origin, 0
        for new, run in groupby(is_new):
            first, end = end, end + len(list(run))
            if new:
                facts, shard = header.facts[first:end], len(self._shards)
                self._added += [(fact["num_steps"], shard, fact["terminated"]) for fact in facts]
                before, after = counts[:first], counts[end:]
                self._shards.append(_Shard(header.path, counts[first:end], origins[first], before, after))

    def settle(self) -> None:
        """Let what was added be looked at: once for many shards, as it copies what tells where steps are."""
        if not self._added:
            return
        counts, shards, terminated = (np.array(values) for values in zip(*self._added, strict=True))
        self._added = []
        num_rows_before = int(self._last_rows[-1]) + 1 if self.num_episodes else 0
        ends = np.cumsum(counts, dtype=np.int64)
        last_rows = num_rows_before + ends + np.arange(len(ends))
        self._step_ends = np.concatenate([self._step_ends, self.num_steps + ends])
        self._last_rows = np.concatenate([self._last_rows, last_rows])
        self._shard_of = np.concatenate([self._shard_of, shards])
        self._terminated = np.concatenate([self._terminated, terminated])
        self._first_episodes = np.searchsorted(self._shard_of, np.arange(len(self._shards)))
        self._first_rows = np.concatenate([[0], self._last_rows[self._first_episodes[1:] - 1] + 1])

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

    def bounds_of(
        self, steps: Int64[np.ndarray, " some"]
    ) -> tuple[Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]]:
        """As `EpisodeArena.bounds_of`."""
        return bounds_of(self._step_ends, steps)

    def take(self, name: str, rows: Int64[np.ndarray, "batch row"]) -> np.ndarray:
        """Copies of the rows of one column; those of one line belong to one episode."""
        episodes = np.searchsorted(self._last_rows, rows[:, 0])
        shards = self._shard_of[episodes]
        local = rows - self._first_rows[shards][:, None]
        is_padding = None
        if num_rows(name, 1) == 1:  # no row on disk for the last one of each episode
            is_padding = rows == self._last_rows[episodes][:, None]
            local -= (episodes - self._first_episodes[shards])[:, None] + is_padding
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
        if len(self._maps) > self._max_num_maps:
            self._maps.popitem(last=False)
        return self._maps[key]

    def _heir(self, gone: _Shard) -> _Shard:
        """Where the episodes of a shard that was merged meanwhile are now."""
        for path in sorted(gone.path.parent.glob(f"[!.]*{MERGED_SUFFIX}")):
            header = read_header(path)
            if gone.origin in header.origins:
                counts, first = header.lengths, header.each_origin.index(gone.origin)
                end = first + len(gone.counts)
                if tuple(counts[first:end]) == gone.counts:
                    before, after = tuple(counts[:first]), tuple(counts[end:])
                    return replace(gone, path=path, before=before, after=after)
        raise DatasetError(f"{gone.path} is not there any more: open the dataset again to go on without it")


def _max_num_files() -> int:
    """How many files this process may have open; the soft limit is raised first, as far as that may be."""
    try:
        import resource
    except ImportError:  # Windows
        return 2 * _MAX_NUM_MAPS
    wanted = 2 * _MAX_NUM_MAPS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        # As Go's runtime does: the usual soft limit of 1024 is kept for programs that call select().
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):
        return soft
    return raised
