"""Other people's datasets, written and read: one module for each format.

A module has two functions, and imports the packages that its format needs only inside them:

- `write(path, dataset, info)`: a new file or folder from `dataset` (episodes, in order); `info` is what is
  known of the whole dataset.
- `read(path)`: what is known of the dataset, and its episodes, one after the other.

It may have `how_to_find(path)`, a line on how its own package finds what was written. All raise
`DatasetError` for what they cannot write or read, and for packages that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.episode import Episode
from worldmodel.errors import DatasetError

# What each needs beside our own dependencies: `pip install 'worldmodel[NAME]'`.
FORMATS = {
    "minari": ("h5py",),
    "lerobot": ("pyarrow", "av"),
    "stable-worldmodel": ("h5py",),
}


@runtime_checkable
class Format(Protocol):
    """What a module of this folder is."""

    def write(self, path: Path, dataset: EpisodeDataset, info: dict[str, Any]) -> None:
        """A new file or folder."""

    def read(self, path: Path, **choices: Any) -> tuple[dict[str, Any], Iterator[Episode]]:
        """What is known of the dataset, and its episodes; a format may offer choices, such as a camera."""


def dataset_format(name: str) -> Format:
    """The module of a format, with its packages at hand. Errors: `DatasetError` where one is missing."""
    missing = [package for package in FORMATS[name] if not _is_installed(package)]
    if missing:
        raise DatasetError(f"{name} needs {' and '.join(missing)}: pip install 'worldmodel[{name}]'")
    module: ModuleType = import_module(f"{__name__}.{name.replace('-', '_')}")
    return module


def require_exportable(path: Path, dataset: EpisodeDataset) -> None:
    """Raise `DatasetError` unless there are episodes, and nothing at `path`: how every `write` begins."""
    if path.exists():
        raise DatasetError(f"{path} exists: choose another name, or delete it")
    if not len(dataset):
        raise DatasetError(f"the dataset for {path} holds no episode: record one first")


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
