""".npy files (version 1.0) whose dtype and shape are known before they are opened; nothing is unpickled."""

from __future__ import annotations

import math
import mmap
import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np


class _Checked:
    """A file that knows the CRC-32 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.checksum = file, 0

    def write(self, content: bytes | memoryview) -> None:
        self.checksum = zlib.crc32(content, self.checksum)
        self._file.write(content)


def write_array(path: Path, parts: list[np.ndarray]) -> int:
    """Write the parts, one after the other, as one new array; returns the CRC-32 of the file."""
    # Not np.save: on a full disk its ndarray.tofile raises an OSError without an errno.
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    header = {"descr": parts[0].dtype.str, "fortran_order": False, "shape": shape}
    with open(path, "xb") as file:
        checked = _Checked(file)
        np.lib.format.write_array_header_1_0(checked, header)  # type: ignore[arg-type]
        for part in parts:
            checked.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return checked.checksum


def read_array(path: Path, dtype: np.dtype, shape: tuple[int, ...], checksum: int | None) -> np.ndarray:
    """The whole array, in memory; `checksum`, if known, is the CRC-32 of the file.

    Errors: `ValueError` (or another of numpy's) if it is damaged, or not of this kind.
    """
    with open(path, "rb") as file:
        _check_header(file, dtype, shape)
        num_header_bytes = file.tell()
        array = np.empty(shape, dtype)
        content = array.reshape(-1).view(np.uint8).data
        if file.readinto(content) != array.nbytes:  # type: ignore[attr-defined]
            raise ValueError("it ends early")
        if checksum is not None:
            file.seek(0)
            if zlib.crc32(content, zlib.crc32(file.read(num_header_bytes))) != checksum:
                raise ValueError("its bytes are not those that were written (checksum)")
        return array


def map_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array as a view of the file, read where it is looked at. Errors: as `read_array`."""
    with open(path, "rb") as file:
        _check_header(file, dtype, shape)
        start = file.tell()
    return map_bytes(path)[start:].view(dtype).reshape(shape)


def map_bytes(path: Path) -> np.ndarray:
    """A file's bytes as a view of it, read where it is looked at."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, np.uint8)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        # Windows lie anywhere: reading ahead would fetch what nobody asked for.
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, np.uint8)


def _check_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Leaves the file where the numbers begin."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"its .npy version is {version}, not (1, 0)")
    found_shape, fortran_order, found_dtype = np.lib.format.read_array_header_1_0(file)
    if found_dtype != dtype or found_shape != shape or fortran_order:
        raise ValueError(
            f"it holds {found_dtype}{list(found_shape)}{' in Fortran order' if fortran_order else ''} "
            f"instead of {dtype}{list(shape)}"
        )
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise ValueError(f"it has {size} bytes instead of {expected}")
