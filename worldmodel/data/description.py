"""dataset.json: the schema's version, the columns, and what is known of the whole dataset."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.data.columns import Columns, columns_to_json
from worldmodel.errors import DatasetError
from worldmodel.files import TEMPORARY_PREFIX, fsync, write_json

SCHEMA_VERSION = 2  # 1: no checksums, nothing merged


def description(columns: Columns, info: dict[str, Any]) -> dict[str, Any]:
    """The content of the file."""
    return {"schema_version": SCHEMA_VERSION, "columns": columns_to_json(columns), "info": info}


def create_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file unless there is one: what another writer has just put there must not be lost."""
    if path.exists():
        return
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        write_json(temporary, content)
        os.link(temporary, path)
        fsync(path.parent)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSYS):
            raise
        write_json(path, content)  # A file system without hard links, such as exFAT.
    finally:
        temporary.unlink(missing_ok=True)


def plain_json(info: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `info` as JSON has it. Errors: `DatasetError` for what is none."""
    try:
        return json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"the info of a dataset is plain JSON, but {error}: give strings, finite numbers, bools, "
            "lists and dicts"
        ) from error


def require_same_info(path: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """What is given must not contradict what is stored. Errors: `DatasetError`."""
    # Scalars say what the data are (task, control period): with another value some episodes would be wrong.
    # Nested values say how the data came about (package versions): the first ones stay.
    for name, value in given.items():
        if name in stored and not isinstance(value, dict | list) and stored[name] != value:
            raise DatasetError(
                f"the dataset {path} has {name}={stored[name]!r}, not {value!r}: use the same settings, "
                "or another directory"
            )
