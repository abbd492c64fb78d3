"""Datasets that are merged while somebody looks at them."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

_Result = TypeVar("_Result")


def again_if_merged(dataset: str, look: Callable[[], _Result]) -> _Result:
    """What `look` returns; where it fails because `data compact` ran, and shards vanished, it looks again."""
    store = EpisodeStore(Path(dataset))
    names = store.all_names()
    try:
        return look()
    except (DatasetError, FileNotFoundError):
        if all(store.holds(name) for name in names):
            raise
        return look()
