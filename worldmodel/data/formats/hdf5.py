"""What the formats in HDF5 share: files that are written whole or not at all, and read without trust."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.memory import require_memory
from worldmodel.data.shard import write_failure
from worldmodel.errors import DatasetError, one_line

MARK = "worldmodel"  # the attribute by which we know a file of ours
MARK_VERSION = 1
LIBVER = ("v110", "v110")  # readable since 2016, by single-writer-multiple-reader too; attributes of any size

# Deflate makes at most 1032 bytes of one: a file that claims more would fill the memory with nothing.
_MAX_EXPANSION = 1100
_FREE_BYTES = 2**16


class _Target:
    """A file for HDF5 to write into, which keeps the first error to itself.

    The HDF5 library does not get over a full disk: it drops errors, prints others, and ends the process with
    a segmentation fault. So it is told that all went well, and `check` tells what did not.
    """

    def __init__(self, file: Any) -> None:
        self._file = file  # without a buffer, in which an error could wait
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        try:
            while self.error is None and rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(content)

    def truncate(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error

    def seek(self, *where: int) -> int:
        position: int = self._file.seek(*where)
        return position

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        return content

    def readinto(self, content: Any) -> int:
        count: int = self._file.readinto(content)
        return count

    def flush(self) -> None:
        pass


@contextmanager
def new_file(path: Path, final: Path, **options: Any) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A new HDF5 file to fill, and what to call now and then: it raises what went wrong so far.

    Errors: `DatasetError` if it cannot be written, which names what it is to become: `final`.
    """
    import h5py

    target = None
    try:
        with open(path, "x+b", buffering=0) as raw:
            target = _Target(raw)
            with h5py.File(target, "w", libver=LIBVER, **options) as file:
                yield file, target.check
            target.check()
            os.fsync(raw)
    except Exception as error:
        reason = (target and target.error) or error
        if isinstance(reason, OSError):
            raise DatasetError(write_failure(final, reason)) from error
        raise


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file becomes one `DatasetError` of one line that names `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {path}: check the name") from error
    except DatasetError as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # h5py fails on damaged files in many ways, such as a RuntimeError.
        raise DatasetError(
            f"cannot read {path}: {one_line(error)}. It is damaged or of another format: fetch it again"
        ) from error


@contextmanager
def locating(what: str) -> Iterator[None]:
    """Say of a `DatasetError` which part of the file it is about."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{what}: {error}") from error


def opened(path: Path) -> Any:
    """The file, for reading."""
    import h5py

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # known to h5py once imported: compressions of some published datasets
    return h5py.File(path, "r")


def member(group: Any, name: str) -> Any:
    """What is called `name` in a group; `DatasetError` if there is none, or if it lies elsewhere."""
    import h5py

    where = f"{group.name.rstrip('/')}/{name}"
    link = group.get(name, getlink=True)
    if link is None:
        raise DatasetError(f"it lacks {where}")
    if not isinstance(link, h5py.HardLink):
        raise DatasetError(f"{where} is a link to elsewhere: put the data itself into the file")
    return group[name]


def stored_array(group: Any, name: str, num_rows: int | None = None, *, of_bytes: bool = False) -> Any:
    """An array of numbers of a group, not read yet, of `num_rows` rows; `of_bytes`: or of lists of numbers.

    Errors: `DatasetError` if it lies in another file (which could be any on this machine), or claims to be
    larger than what is stored can be.
    """
    import h5py

    array = member(group, name)
    if not isinstance(array, h5py.Dataset) or array.ndim < 1:
        raise DatasetError(f"{name!r} is no array of rows")
    if array.dtype.kind not in "biuf" and not (of_bytes and h5py.check_vlen_dtype(array.dtype) == np.uint8):
        raise DatasetError(f"{name!r} holds {array.dtype}: only numbers can be imported")
    if array.is_virtual or array.external:
        raise DatasetError(f"the numbers of {name!r} lie in another file: put them into this one")
    filters = array.id.get_create_plist()
    for index in range(filters.get_nfilters()):
        code = filters.get_filter(index)[0]
        if not h5py.h5z.filter_avail(code):
            raise DatasetError(f"{name!r} is compressed with HDF5 filter {code}: pip install hdf5plugin")
    chunk = math.prod(array.chunks or ()) * array.dtype.itemsize  # as a whole even for one row of it
    num_bytes = max(array.nbytes, chunk)
    if num_bytes > _MAX_EXPANSION * array.id.get_storage_size() + _FREE_BYTES:
        raise DatasetError(
            f"{name!r} claims {num_bytes} bytes, of which hardly any are stored: it is damaged"
        )
    require_memory(f"{name!r}", num_bytes)
    if num_rows is not None and len(array) != num_rows:
        raise DatasetError(f"{name!r} has {len(array)} rows; it needs {num_rows}")
    return array


def set_mark(node: Any, **content: Any) -> None:
    """Write into the attribute `worldmodel` of a file or group what the format has no place for."""
    # Not a str: HDF5 keeps those in a heap, and may search a damaged one forever.
    node.attrs[MARK] = np.bytes_(json.dumps({"version": MARK_VERSION, **content}))


def mark_of(node: Any) -> dict[str, Any] | None:
    """What `set_mark` has written, if it has."""
    if MARK not in node.attrs:
        return None
    text = scalar_attribute(node, MARK)
    mark = json.loads(text) if isinstance(text, bytes) else None
    if not isinstance(mark, dict) or not isinstance(mark.get("info"), dict):
        raise DatasetError(f"its attribute {MARK!r} is not what we write: it is damaged")
    return mark


def scalar_attribute(node: Any, name: str) -> Any:
    """A number or bytes; None if there is no such attribute, or it is something else."""
    if name not in node.attrs:
        return None
    kind = node.attrs.get_id(name)
    return node.attrs[name] if kind.shape == () and kind.dtype.kind in "biufS" else None


def native(array: np.ndarray) -> np.ndarray:
    """In the byte order of this machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
