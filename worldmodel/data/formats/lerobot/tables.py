"""Numpy arrays as parquet columns in LeRobot's types, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.formats.lerobot.layout import Feature
from worldmodel.data.memory import require_memory
from worldmodel.errors import DatasetError

_PYTHON_BYTES = 64  # of an entry of a table as a Python object
ROWS_AT_ONCE = 100  # of a table of episodes, which one could hardly hold in memory as Python objects


def schema_of(features: Mapping[str, Feature]) -> Any:
    """The arrow schema of frames, with the description that the Hugging Face library looks for."""
    import pyarrow as pa

    described = {name: feature.hub_type() for name, feature in features.items()}
    return pa.schema(
        [(name, _arrow_type(feature)) for name, feature in features.items()],
        metadata={"huggingface": json.dumps({"info": {"features": described}})},
    )


def table_of(frames: Mapping[str, np.ndarray], schema: Any) -> Any:
    """An arrow table of these columns, rows first."""
    import pyarrow as pa

    arrays = [_array_of(frames[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def task_table(tasks: list[str]) -> Any:
    """The table of tasks: to pandas, a frame whose index is the task."""
    import pyarrow as pa

    def described(name: str | None, pandas_type: str, numpy_type: str, metadata: Any) -> dict[str, Any]:
        types = {"pandas_type": pandas_type, "numpy_type": numpy_type}
        return {"name": name, "field_name": name, **types, "metadata": metadata}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [described(None, "unicode", "object", {"encoding": "UTF-8"})],
        "columns": [
            described("task_index", "int64", "int64", None),
            described("task", "unicode", "object", None),
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(pandas)}
    )
    return pa.Table.from_pydict({"task_index": list(range(len(tasks))), "task": tasks}, schema=schema)


def rows_of(name: str, column: Any) -> np.ndarray:
    """The rows of a column, numbers or lists of them, as one array.

    Errors: `DatasetError` for gaps, and for rows of different lengths.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            raise DatasetError(f"{name} has {array.null_count} gaps: every frame has every feature")
        if not isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            break
        lengths = pc.min_max(pc.list_value_length(array)).as_py()
        if lengths["min"] != lengths["max"]:
            raise DatasetError(
                f"{name} has rows of {lengths['min']} to {lengths['max']} numbers: all must be alike"
            )
        shape.append(lengths["max"] or 0)
        array = array.flatten()
    numbers = np.asarray(array.to_numpy(zero_copy_only=False))
    if numbers.dtype.kind not in "biuf":
        raise DatasetError(f"{name} holds {array.type}, not the numbers that meta/info.json speaks of")
    return numbers.reshape(shape)


def writer_of(path: Path, schema: Any) -> Any:
    """What writes tables to a parquet file, with checksums."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema, compression="snappy", write_page_checksum=True)


def file_of(path: Path) -> Any:
    """A parquet file to be read; checksums are looked at, where it has any."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with reading this file, as a `DatasetError`."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: copy the dataset again, whole") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"{path} is damaged ({reason}): copy the dataset again") from error


def read_episode_rows(path: Path) -> list[dict[str, Any]]:
    """A table of episodes, without the statistics that make up most of it. Errors: `DatasetError`."""
    with reading(path), file_of(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        require_memory(f"{path}", file.metadata.num_rows * len(names) * _PYTHON_BYTES)
        rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
        return rows


class RowFile:
    """Writes a parquet file of rows: dicts with the same keys, of the types that the first ones have."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the rest, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._writer and self._writer.schema)
            self._writer = self._writer or writer_of(self._path, table.schema)
            self._writer.write_table(table)
            self._rows.clear()


class FrameFile:
    """One file of frames, or of what else has the column episode_index, read one episode at a time.

    max_rows: how many it can have. A file of a few bytes may claim any number of equal rows.
    """

    def __init__(self, path: Path, *, max_rows: int) -> None:
        self.path = path
        with reading(path):
            self._file = file_of(path)
            if (found := self._file.metadata.num_rows) > max_rows:
                raise DatasetError(
                    f"{path} has {found} rows, and all episodes of meta/episodes together {max_rows} frames: "
                    "copy the dataset again, whole"
                )
            if "episode_index" not in self._file.schema_arrow.names:
                raise DatasetError(f"{path} has no column episode_index: it is no file of LeRobot frames")
            require_memory(f"{path}", 8.0 * found)
            self._episodes = rows_of("episode_index", self._file.read(["episode_index"])["episode_index"])
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        # Others write many episodes into one row group: do not read it again for each of them.
        self._read: tuple[tuple[int, int], Any] | None = None

    def frames(self, episode_index: int, columns: list[str] | None) -> Any:
        """The frames of an episode, with these columns or all; none if it is not there.

        Errors: `DatasetError` if they are damaged, or a column is missing.
        """
        rows = np.flatnonzero(self._episodes == episode_index)
        if not len(rows):
            return self._file.schema_arrow.empty_table()
        first, stop = int(rows[0]), int(rows[-1]) + 1
        if stop - first != len(rows):
            raise DatasetError(f"{self.path}: the frames of episode {episode_index} do not follow each other")
        low = int(np.searchsorted(self._group_starts, first, side="right")) - 1
        high = int(np.searchsorted(self._group_starts, stop, side="left"))
        if self._read is None or self._read[0] != (low, high):
            missing = [name for name in columns or [] if name not in self._file.schema_arrow.names]
            if missing:
                raise DatasetError(f"{self.path} has no column {missing[0]!r}, which meta/info.json lists")
            with reading(self.path):
                require_memory(f"{self.path}", 8.0 * self._num_values(low, high))
                self._read = ((low, high), self._file.read_row_groups(range(low, high), columns=columns))
        start = first - int(self._group_starts[low])
        return self._read[1].slice(start, len(rows))

    def _num_values(self, low: int, high: int) -> int:
        """Numbers of these row groups, as they are counted before they are read."""
        groups = [self._file.metadata.row_group(index) for index in range(low, high)]
        return sum(group.column(column).num_values for group in groups for column in range(group.num_columns))


def _arrow_type(feature: Feature) -> Any:
    import pyarrow as pa

    number = pa.bool_() if feature.dtype == "bool" else pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return number
    if len(feature.shape) == 1:
        return pa.list_(number, feature.shape[0])
    for _ in feature.shape:
        number = pa.list_(number)
    return number


def _array_of(rows: np.ndarray, arrow_type: Any) -> Any:
    import pyarrow as pa

    if not isinstance(arrow_type, pa.ListType | pa.FixedSizeListType):
        return pa.array(np.ascontiguousarray(rows).reshape(-1), type=arrow_type)
    size = rows.shape[1]
    values = _array_of(rows.reshape(-1, *rows.shape[2:]), arrow_type.value_type)
    if isinstance(arrow_type, pa.FixedSizeListType):
        return pa.FixedSizeListArray.from_arrays(values, size)
    offsets = np.arange(0, (len(rows) + 1) * size, size, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, values)
