"""Small shards put together into large ones, in place, while others read and record."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from worldmodel.data.compressed import is_compressed
from worldmodel.data.episode import Episode
from worldmodel.data.shard import MERGED_SUFFIX, ShardHeader, write_shard
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError
from worldmodel.files import temporary_beside


def merge_shards(store: EpisodeStore, max_bytes: int) -> int:
    """Put neighbouring shards together into some of up to `max_bytes`; returns how many fewer there are.

    These are bytes of numbers, in memory, where all of such a group are at once; files may be compressed.

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


def _groups(store: EpisodeStore, max_bytes: int) -> Iterator[list[ShardHeader]]:
    """Neighbouring shards that make one together, at least two."""
    group: list[ShardHeader] = []
    size = 0
    for name in store.shard_names():
        with _explained(store, name):
            header = store.header(name)
        more = store.num_raw_bytes(header)
        if group and size + more > max_bytes:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(header)
        size += more
    if len(group) > 1:
        yield group


def _merge(store: EpisodeStore, headers: list[ShardHeader]) -> None:
    compresses = any(is_compressed(header.path, "observation.pixels") for header in headers)
    together: list[Episode] = []
    for header in headers:
        with _explained(store, header.path.name):
            together += store.read(header)
    names = [header.path.name for header in headers]
    number = names[0].split("-")[0]  # it takes the first one's place in the order
    name = f"{number}-{os.getpid()}-{uuid.uuid4().hex[:8]}{MERGED_SUFFIX}"
    write_shard(
        headers[0].path.parent,
        name,
        together,
        replaces={origin: count for header in headers for origin, count in header.origins.items()},
        ignores=names,
        compresses_pixels=compresses,
    )


@contextmanager
def _explained(store: EpisodeStore, name: str) -> Iterator[None]:
    """What is wrong with a shard that cannot be read."""
    try:
        yield
    except DatasetError as error:
        if store.holds(name):
            raise
        raise DatasetError(f"{store.shard_path(name)} was deleted meanwhile: compact again") from error


def _remove_replaced(store: EpisodeStore) -> None:
    names = store.all_names()
    for old in {old for name in names for old in store.ignored_by(name)} & set(names):
        # Out of sight in one step: half a shard would look damaged.
        path = store.shard_path(old)
        gone = temporary_beside(path)
        with suppress(FileNotFoundError):  # deleted meanwhile, which was to be done
            path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
