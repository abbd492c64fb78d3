"""Columns: the flat, named arrays that an episode is kept as, in memory and on disk.

The names are `observation.state`, `observation.pixels` (T + 1 rows), `action`, `reward` and
`extra.<name>` (T rows). They are file names too, so each part is a plain word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldmodel.errors import DatasetError

OBSERVATION_DTYPES = {"state": "float32", "pixels": "uint8"}
# What both numpy and torch hold, so that a column can become a tensor of a batch.
COLUMN_DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_COLUMN_NAME = re.compile(r"action|reward|observation\.(state|pixels)|extra\.[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Column:
    """What every row of one column looks like: `dtype` as numpy names it, `shape` of one row."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Columns = dict[str, Column]


def is_word(name: object) -> bool:
    """Whether `name` may name an extra column: letters, digits and underscores, a letter first."""
    return isinstance(name, str) and _WORD.fullmatch(name) is not None


def columns_of(arrays: dict[str, np.ndarray]) -> Columns:
    """The columns that these arrays (rows first) are rows of."""
    return {name: Column(array.dtype.name, array.shape[1:]) for name, array in arrays.items()}


def num_rows(name: str, num_steps: int) -> int:
    """Rows that an episode of `num_steps` steps has in this column: observations have one more."""
    return num_steps + 1 if name.startswith("observation.") else num_steps


def require_same_columns(columns: Columns, expected: Columns, *, what: str, where: str) -> None:
    """Raise DatasetError unless `what` has exactly the columns of `where`."""
    if columns == expected:
        return
    differences = [
        f"{name} is {columns.get(name, 'missing')} instead of {expected.get(name, 'absent')}"
        for name in sorted(columns.keys() | expected.keys())
        if columns.get(name) != expected.get(name)
    ]
    raise DatasetError(
        f"{what} does not fit {where}: {'; '.join(differences)}. All episodes of a dataset have the same "
        "columns: keep other ones in a dataset of their own"
    )


def columns_to_json(columns: Columns) -> dict[str, Any]:
    """Columns as they stand in dataset.json."""
    return {name: {"dtype": column.dtype, "shape": list(column.shape)} for name, column in columns.items()}


def columns_from_json(value: Any) -> Columns:
    """Columns from dataset.json; ValueError if they are none (a name is also a path, so it is checked)."""
    if not isinstance(value, dict):
        raise ValueError("'columns' is not an object")
    columns = {}
    for name, entry in value.items():
        if not _COLUMN_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no column name")
        if not isinstance(entry, dict) or entry.get("dtype") not in COLUMN_DTYPES:
            raise ValueError(f"column {name!r} has no known dtype")
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"column {name!r} has no shape")
        columns[name] = Column(entry["dtype"], tuple(shape))
    return columns
