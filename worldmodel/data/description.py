"""dataset.json: the schema's version, the columns, and what is known of the whole dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from worldmodel.data.columns import Columns, columns_from_json, columns_to_json, require_same_columns
from worldmodel.data.shard import write_failure
from worldmodel.errors import DatasetError
from worldmodel.files import make_directory, write_json

SCHEMA_VERSION = 2  # 1: no checksums, nothing merged
LOCK_FILE = ".description.lock"
_LOCK_TIMEOUT_S = 60.0  # it is held for milliseconds


class Description:
    """The `dataset.json` in `folder`, as it was when it was last read.

    It is written a few times only: when it is made, when info is added before the first episode, when that
    sets the columns, and when an older schema is upgraded. Each decides under a lock, by what it reads there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "dataset.json"
        self._schema_version = SCHEMA_VERSION
        self.columns: Columns = {}  # Empty until the first episode sets them.
        self.info: dict[str, Any] = {}

    def read(self) -> None:
        """Read the file (again). Errors: `DatasetError` if it is missing or damaged."""
        path = self._path
        try:
            content = json.loads(path.read_bytes())
            version = content["schema_version"]
            if type(version) is int and version > SCHEMA_VERSION:
                raise DatasetError(
                    f"{path} has schema version {version}; this release of worldmodel reads up to "
                    f"{SCHEMA_VERSION}: install a newer one"
                )
            if type(version) is not int or version < 1:
                raise ValueError(f"its schema version is {version!r}, no whole number from 1 on")
            if not isinstance(content["info"], dict):
                raise ValueError("'info' is not an object")
            columns = columns_from_json(content["columns"])
        except FileNotFoundError as error:
            raise DatasetError(
                f"there is no dataset at {self._folder} ({path} is missing): check the path, or record one "
                "first"
            ) from error
        except DatasetError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(
                f"cannot read {path}: {error!r}. It describes the shards beside it: restore it from a "
                "copy, or from another dataset recorded with the same settings"
            ) from error
        self._schema_version, self.columns, self.info = version, columns, content["info"]

    def read_for_writing(self, info: Mapping[str, Any]) -> None:
        """Read the file, or make it, so that episodes of which `info` holds can be written.

        Errors: `DatasetError` if what is given contradicts what is stored.
        """
        given = _plain_json(info)
        if not self._path.exists():
            with self._locked():
                # Another may have made it since, and set the columns too.
                if not self._path.exists():
                    self._write({}, given)
        self.read()
        self._require_same(given)
        if not self.columns and given.keys() - self.info.keys():
            with self._locked():
                self.read()
                self._require_same(given)
                if not self.columns:
                    self._write({}, given | self.info)
        # Of a dataset that has episodes nobody knows whether it holds for them.
        missing = [name for name in given.keys() - self.info.keys() if _is_scalar(given[name])]
        if self.columns and missing:
            name = min(missing)
            raise DatasetError(
                f"the dataset {self._folder} has episodes, and does not say their {name}: if it is "
                f"{given[name]!r}, add {json.dumps(name)}: {json.dumps(given[name])} to 'info' in "
                f"{self._path}; if not, use another directory"
            )
        self.upgrade()

    def upgrade(self) -> None:
        """Say that this release writes here: an older one must not read what is written now."""
        if self._schema_version < SCHEMA_VERSION:
            with self._locked():
                self.read()
                self._write(self.columns, self.info)

    def require_columns(self, columns: Columns) -> None:
        """The first episode of a dataset sets its columns, the others must have the same ones."""
        if not self.columns:
            with self._locked():
                self.read()  # Of two that write the first episode at once, one is first.
                if not self.columns:
                    self._write(columns, self.info)
        require_same_columns(columns, self.columns, what="the episode", where=f"the dataset {self._folder}")

    def _require_same(self, given: dict[str, Any]) -> None:
        # Scalars say what the data are (task, control period): with another value some episodes would be
        # wrong. Nested values say how the data came about (package versions): the first ones stay.
        for name, value in given.items():
            if name in self.info and _is_scalar(value) and self.info[name] != value:
                raise DatasetError(
                    f"the dataset {self._folder} has {name}={self.info[name]!r}, not {value!r}: use the same "
                    "settings, or another directory"
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else writes the file meanwhile. Errors: `DatasetError`, also where writing fails."""
        try:
            make_directory(self._folder)
            with FileLock(self._folder / LOCK_FILE).acquire(timeout=_LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise DatasetError(f"another process holds {self._folder / LOCK_FILE}: wait for it") from error
        except OSError as error:
            raise DatasetError(write_failure(self._folder, error)) from error

    def _write(self, columns: Columns, info: dict[str, Any]) -> None:
        content = {"schema_version": SCHEMA_VERSION, "columns": columns_to_json(columns), "info": info}
        write_json(self._path, content)
        self._schema_version, self.columns, self.info = SCHEMA_VERSION, columns, info


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _plain_json(info: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `info` as JSON has it. Errors: `DatasetError` for what is none."""
    try:
        return json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"the info of a dataset is plain JSON, but {error}: give strings, finite numbers, bools, "
            "lists and dicts"
        ) from error
