"""Small shards put together into large ones, in place, while others read and record."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator

from filelock import FileLock, Timeout

from worldmodel.data.compressed import is_compressed
from worldmodel.data.shard import MERGED_SUFFIX, write_shard
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError
from worldmodel.files import TEMPORARY_PREFIX


def merge_shards(store: EpisodeStore, max_bytes: int) -> int:
    """Put neighbouring shards together into some of up to `max_bytes`; returns how many fewer there are.

    Whenever this is killed, each episode is there once. Errors: `DatasetError` if a shard is damaged, or
    another process merges.
    """
    try:
        with FileLock(store.path / ".merge.lock").acquire(timeout=0):
            store.description.upgrade()
            _remove_replaced(store)
            num_fewer = 0
            for group in _groups(store, max_bytes):
                _merge(store, group)
                _remove_replaced(store)
                num_fewer += len(group) - 1
            return num_fewer
    except Timeout as error:
        raise DatasetError(f"another process merges {store.path}: wait for it") from error


def _groups(store: EpisodeStore, max_bytes: int) -> Iterator[list[str]]:
    """Neighbouring shards that make one together, at least two."""
    group: list[str] = []
    size = 0
    for name in [*store.shard_names(), None]:
        more = 0 if name is None else sum(file.stat().st_size for file in store.shard_path(name).iterdir())
        if group and (name is None or size + more > max_bytes):
            if len(group) > 1:
                yield group
            group, size = [], 0
        if name is not None:
            group.append(name)
            size += more


def _merge(store: EpisodeStore, names: list[str]) -> None:
    compresses = any(is_compressed(store.shard_path(name), "observation.pixels") for name in names)
    episodes = {name: store.read(name) for name in names}
    together = [episode for part in episodes.values() for episode in part]
    number = names[0].split("-")[0]  # it takes the first one's place in the order
    name = f"{number}-{os.getpid()}-{uuid.uuid4().hex[:8]}{MERGED_SUFFIX}"
    origins = {origin: count for old in names for origin, count in store.origins(old).items()}
    write_shard(
        store.shard_path(name).parent,
        name,
        together,
        replaces=origins,
        ignores=names,
        compresses_pixels=compresses,
    )


def _remove_replaced(store: EpisodeStore) -> None:
    names = store.all_names()
    for old in {old for name in names for old in store.ignored_by(name)} & set(names):
        # Out of sight in one step: half a shard would look damaged.
        path = store.shard_path(old)
        gone = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{old}")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
