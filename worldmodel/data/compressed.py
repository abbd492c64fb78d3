"""A column whose rows are compressed one by one (zlib), so that a window reads just its own.

NAME.zlib       the compressed rows, end to end
NAME.offsets    where each begins, and where the last ends: int64 (rows + 1,), a .npy file
"""

from __future__ import annotations

import copy
import math
import zlib
from pathlib import Path
from typing import overload

import numpy as np

from worldmodel.data.array_file import map_bytes, read_array, write_array
from worldmodel.data.memory import require_memory

LEVEL = 1  # of 9: the higher ones take many times longer for a few percent


def is_compressed(shard: Path, name: str) -> bool:
    """Whether a shard has this column compressed."""
    return (shard / f"{name}.zlib").exists()


def write_rows(shard: Path, name: str, parts: list[np.ndarray]) -> dict[str, int]:
    """Write the parts, one after the other, as one new column; returns the CRC-32 of each file, by name."""
    offsets, checksum = [0], 0
    with open(shard / f"{name}.zlib", "xb") as file:
        for part in parts:
            for row in np.ascontiguousarray(part):
                content = zlib.compress(row.tobytes(), LEVEL)
                file.write(content)
                checksum = zlib.crc32(content, checksum)
                offsets.append(offsets[-1] + len(content))
    return {
        f"{name}.zlib": checksum,
        f"{name}.offsets": write_array(shard / f"{name}.offsets", [np.array(offsets, np.int64)]),
    }


class CompressedRows:
    """The rows of a compressed column, read and decompressed where they are looked at.

    Errors: `ValueError`, when made or when indexed, for a damaged file; `DatasetError` for rows that memory
    cannot hold.
    """

    def __init__(
        self,
        shard: Path,
        name: str,
        dtype: np.dtype,
        shape: tuple[int, ...],
        checksums: dict[str, int] | None = None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        offsets_file, file = shard / f"{name}.offsets", shard / f"{name}.zlib"
        checksum = (checksums or {}).get(offsets_file.name)
        self._offsets = read_array(offsets_file, np.dtype(np.int64), (shape[0] + 1,), checksum)
        size = file.stat().st_size
        if self._offsets[0] != 0 or self._offsets[-1] != size or (np.diff(self._offsets) <= 0).any():
            raise ValueError(f"its offsets do not fit its {size} bytes")
        self._bytes = map_bytes(file)
        expected = (checksums or {}).get(file.name)
        if expected is not None and zlib.crc32(self._bytes.data) != expected:
            raise ValueError("its bytes are not those that were written (checksum)")

    @overload
    def __getitem__(self, rows: slice) -> CompressedRows: ...
    @overload
    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...
    def __getitem__(self, rows: slice | np.ndarray) -> CompressedRows | np.ndarray:
        """Copies of these rows (any shape of numbers); a slice of neighbours is a view."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            part = copy.copy(self)
            part.shape = (stop - start, *self.shape[1:])
            part._offsets = self._offsets[start : stop + 1]
            return part
        require_memory("it", rows.size * self._row_bytes)
        flat = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows.reshape(-1).tolist()):
            flat[place] = self._row(row)
        return flat.reshape(*rows.shape, *self.shape[1:])

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def _row(self, row: int) -> np.ndarray:
        start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
        num_bytes = self._row_bytes
        decompressor = zlib.decompressobj()
        try:
            # One byte more than there should be: a bomb stops there.
            content = decompressor.decompress(self._bytes[start:stop].data, num_bytes + 1)
        except zlib.error as error:
            raise ValueError(f"row {row} cannot be decompressed ({error})") from error
        if len(content) != num_bytes or not decompressor.eof:
            raise ValueError(f"row {row} does not hold {num_bytes} bytes")
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])
