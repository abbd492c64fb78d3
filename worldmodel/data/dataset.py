"""A dataset of episodes, on disk or in memory only; with a capacity it is the replay buffer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer

from worldmodel.data.arena import EpisodeArena
from worldmodel.data.columns import Columns, columns_of, require_same_columns
from worldmodel.data.episode import Episode
from worldmodel.data.mapped_arena import MappedArena
from worldmodel.data.memory import available_memory_bytes
from worldmodel.data.shard import ShardHeader, episode_arrays, episode_facts, episode_from
from worldmodel.data.store import EpisodeStore
from worldmodel.data.windows import Batch, draw_starts, gather_windows, returns_of
from worldmodel.errors import DatasetError

_MAX_MEMORY_FRACTION = 0.5  # of what is free, for a dataset that is read into memory


class EpisodeDataset:
    """Episodes in memory, kept on disk too if there is a `path`.

    path: the directory; None keeps everything in memory
    capacity: steps to remember at most. The oldest whole episodes are forgotten to make room: from memory and
        from sampling, never from the disk, which stays the full record (delete shards by hand to save space).
        Opening reads only the newest episodes that fit.
    info: plain JSON about the whole dataset, such as the task. Added until there is an episode; a scalar
        that is stored with another value, or that a dataset with episodes lacks, is an error.
    mode: "r" reads; "a" also appends, and creates the dataset if there is none. Several processes may append
        to one dataset at the same time. A dataset in memory can always be appended to.
    strict: whether a damaged shard is an error, rather than skipped with a warning
    in_memory: whether to hold all numbers in memory, which is the fastest, or to look at them through memory
        maps; None decides by how much there is. Only what is read can be mapped: what is appended to, or has
        a capacity, is in memory.

    Order: as recorded (by the clocks of the writers) when opened, in the order of arrival afterwards.
    Not for several threads at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        capacity: int | None = None,
        info: Mapping[str, Any] | None = None,
        mode: Literal["r", "a"] = "r",
        strict: bool = True,
        in_memory: bool | None = None,
    ) -> None:
        if mode not in ("r", "a"):
            raise DatasetError(f"the mode of a dataset is 'r' (read) or 'a' (append too), not {mode!r}")
        if capacity is not None and capacity < 1:
            raise DatasetError(f"capacity is {capacity} steps; it is at least 1, or None for no limit")
        if mode == "r" and path is not None and info is not None:
            raise DatasetError("info can only be given to a dataset that is written: use mode='a'")
        self.capacity = capacity
        self._strict = strict
        self._writable = path is None or mode == "a"
        self._store = None if path is None else EpisodeStore(Path(path), create=mode == "a", info=info)
        self._headers: dict[str, ShardHeader] = {}  # Read already, for `refresh`, which forgets them.
        self._info = dict(info or {})
        must_be_in_memory = self._writable or capacity is not None
        if must_be_in_memory and in_memory is False:
            raise DatasetError("what is appended to or has a capacity is in memory: leave out in_memory")
        if in_memory is None:
            in_memory = must_be_in_memory or self._store is None or self._fits_memory(self._store)
        self.in_memory = in_memory
        self._arena: EpisodeArena | MappedArena | None = None
        self._facts: list[dict[str, Any]] = []  # Of each episode, as `episode_facts` gives them.
        self._seen: set[str] = set()
        self._num_forgotten = 0
        self.refresh()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        capacity: int | None = None,
        strict: bool = True,
        in_memory: bool | None = None,
    ) -> EpisodeDataset:
        """Open an existing dataset for reading; DatasetError if there is none."""
        return cls(path, capacity=capacity, strict=strict, in_memory=in_memory)

    def __len__(self) -> int:
        """Episodes remembered."""
        return len(self._facts)

    def __iter__(self) -> Iterator[Episode]:
        """The episodes remembered, oldest first."""
        for index in range(len(self)):
            yield self.episode(index)

    def __repr__(self) -> str:
        where = "in memory" if self._store is None else f"at {self._store.path}"
        return f"EpisodeDataset({where}: {len(self)} episodes, {self.num_steps} steps)"

    @property
    def num_steps(self) -> int:
        """Steps of all episodes remembered."""
        return self._arena.num_steps if self._arena else 0

    @property
    def num_recorded(self) -> int:
        """Episodes remembered and forgotten."""
        return len(self) + self._num_forgotten

    @property
    def columns(self) -> Columns:
        """The dtype and row shape of every column, by name; empty before the first episode."""
        if self._arena:
            return dict(self._arena.columns)
        return dict(self._store.columns) if self._store else {}

    @property
    def info(self) -> dict[str, Any]:
        """What is known about the whole dataset."""
        return dict(self._info if self._store is None else self._store.info)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the steps take, room for growth included; facts of episodes take some more."""
        return self._arena.memory_bytes if self._arena else 0

    def append(self, episode: Episode) -> None:
        """Add an episode. When this returns it is on the disk, if the dataset is.

        DatasetError, and nothing is added, if its columns are not those of the dataset, if it has more steps
        than the capacity, if the dataset is open for reading only, or if the disk is full.
        """
        if not self._writable:
            raise DatasetError(f"{self!r} is open for reading only: open it with mode='a' to append")
        self._require_room(episode.num_steps)
        if self._arena:
            columns = columns_of(episode_arrays(episode))
            require_same_columns(columns, self._arena.columns, what="the episode", where="this dataset")
        if self._store:
            self._seen.add(self._store.write([episode]))
        self._remember(episode)

    def episode(self, index: int) -> Episode:
        """A copy of one episode; 0 is the oldest one remembered, -1 the newest."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no episode {index}: the dataset remembers {len(self)}")
        assert self._arena is not None
        index %= len(self)
        return episode_from(self._arena.episode(index), self._facts[index])

    def refresh(self) -> int:
        """Read what other processes have committed since, and return the number of new episodes.

        Errors: `DatasetError` if `strict`, for a damaged shard or an episode that has more steps than the
        capacity; those before it are there.
        """
        if self._store is None:
            return 0
        take_up = self._read if self.in_memory else self._map
        num_new, has_vanished = 0, True
        try:
            while has_vanished:  # merged meanwhile, or deleted: what took its place is listed now
                has_vanished = False
                names = [name for name in self._store.shard_names() if name not in self._seen]
                if self.capacity is not None:
                    names = self._newest_that_fit(self._store, names)
                for name in names:
                    try:
                        header = self._header(self._store, name)
                        num_new += take_up(self._store, header)
                        self._seen.update(header.origins)
                    except DatasetError as error:
                        if not self._store.holds(name):
                            has_vanished = True
                            continue
                        if self._strict:
                            raise
                        warnings.warn(f"skipped a damaged shard: {error}", stacklevel=2)
                    self._seen.add(name)
        finally:
            self._headers.clear()
            if isinstance(self._arena, MappedArena):
                self._arena.settle()
        return num_new

    def sample(
        self,
        batch_size: int,
        horizon: int,
        generator: np.random.Generator,
        *,
        num_episodes: int = 0,
        part: slice = slice(None),
    ) -> Batch:
        """Windows of `horizon` steps, as `draw_starts` draws them; the same chance gives the same batch.

        `part`: of the windows that are drawn, only these.
        """
        starts = draw_starts(self._arena, batch_size, num_episodes, generator)
        return self.gather(starts[part], horizon)

    def gather(self, steps: Integer[np.ndarray, " batch"], horizon: int) -> Batch:
        """The windows that start at these steps, counted from 0 over all episodes remembered, in order."""
        return gather_windows(self._arena, np.asarray(steps, dtype=np.int64), horizon)

    def windows(self, horizon: int, batch_size: int = 256) -> Iterator[Batch]:
        """Every window once, in order; the last batch may be smaller."""
        if batch_size < 1:
            raise DatasetError(f"batch_size is {batch_size}; a batch has at least 1 window")
        for first in range(0, self.num_steps, batch_size):
            yield self.gather(np.arange(first, min(first + batch_size, self.num_steps)), horizon)

    def _fits_memory(self, store: EpisodeStore) -> bool:
        needed = 0
        for name in store.shard_names():
            with suppress(DatasetError):  # told when it is read
                needed += store.num_raw_bytes(self._header(store, name))
        return needed <= _MAX_MEMORY_FRACTION * available_memory_bytes()

    def _header(self, store: EpisodeStore, name: str) -> ShardHeader:
        if name not in self._headers:
            self._headers[name] = store.header(name)
        return self._headers[name]

    def _read(self, store: EpisodeStore, header: ShardHeader) -> int:
        """Take a shard's episodes into memory; returns how many."""
        is_new = self._is_new(header)
        if not any(is_new):
            return 0
        episodes = list(compress(store.read(header), is_new))
        for episode in episodes:
            self._require_room(episode.num_steps)
        for episode in episodes:
            self._remember(episode)
        return len(episodes)

    def _map(self, store: EpisodeStore, header: ShardHeader) -> int:
        """Take up where a shard's episodes lie; returns how many."""
        if self._arena is None:
            self._arena = MappedArena(store.columns_of_episodes())
        assert isinstance(self._arena, MappedArena)
        is_new = self._is_new(header)
        self._arena.add(header, is_new)
        self._facts += compress(header.facts, is_new)
        return sum(is_new)

    def _is_new(self, header: ShardHeader) -> list[bool]:
        """Of each episode, whether it was not read already, before it was merged."""
        return [origin not in self._seen for origin in header.each_origin]

    def _remember(self, episode: Episode) -> None:
        arrays = episode_arrays(episode)
        if self._arena is None:
            self._arena = EpisodeArena(columns_of(arrays))
        assert isinstance(self._arena, EpisodeArena)
        while self.capacity is not None and self.num_steps + episode.num_steps > self.capacity:
            self._arena.forget_oldest()
            del self._facts[0]
            self._num_forgotten += 1
        self._arena.append(arrays, episode.terminated)
        self._facts.append(episode_facts(episode))

    def _require_room(self, num_steps: int) -> None:
        if self.capacity is not None and num_steps > self.capacity:
            raise DatasetError(
                f"an episode of {num_steps} steps does not fit the capacity of {self.capacity} steps: "
                f"use a capacity of at least {num_steps}"
            )

    def _newest_that_fit(self, store: EpisodeStore, names: list[str]) -> list[str]:
        """Pass over, unread, the shards that would be forgotten at once."""
        num_steps = 0
        for index in reversed(range(len(names))):
            if num_steps >= (self.capacity or 0):
                for name in names[: index + 1]:
                    with suppress(DatasetError):
                        header = self._header(store, name)
                        self._num_forgotten += sum(self._is_new(header))
                        self._seen.update(header.origins)
                    self._seen.add(name)
                return names[index + 1 :]
            with suppress(DatasetError):  # told when it is read
                header = self._header(store, names[index])
                num_steps += sum(compress(header.lengths, self._is_new(header)))
        return names

    def returns(self) -> list[float]:
        """The return of each episode remembered, from the rewards alone: images may be larger than memory."""
        return returns_of(self._arena) if self._arena else []
