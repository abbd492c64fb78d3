"""An array that grows at its end and forgets at its front, in one block of memory."""

from __future__ import annotations

import numpy as np

_MIN_ROWS = 256
_GROWTH = 1.5
# Full with at least this part forgotten: rows move to the front. Less: the block grows. At 0.2 each row moves
# about four times in its life, and a replay buffer takes at most about twice the memory of its rows.
_MIN_FORGOTTEN = 0.2


class SlidingArray:
    """Rows that keep their number for life: row `n` is the n-th ever appended, whatever was forgotten.

    Appending costs constant time on average. One block rather than a ring, so that a window is never split.
    """

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._block = np.empty((0, *shape), dtype)
        self._base = 0  # Number of the row at index 0 of the block.
        self.start = 0  # Number of the oldest row held.
        self.stop = 0  # Number that the next row will get.

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def held(self) -> np.ndarray:
        """The rows held, as a view that is good until the next `append`."""
        return self._block[self.start - self._base : self.stop - self._base]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the whole block, room for growth included."""
        return self._block.nbytes

    def append(self, rows: np.ndarray) -> None:
        """Add copies of `rows` (their axis first)."""
        end = self.stop - self._base
        if end + len(rows) > len(self._block):
            self._make_room(len(rows))
            end = self.stop - self._base
        self._block[end : end + len(rows)] = rows
        self.stop += len(rows)

    def forget_before(self, number: int) -> None:
        """Forget the rows below this number."""
        self.start = max(self.start, min(number, self.stop))

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Copies of the rows of these numbers (int64, any shape); all must be held."""
        return self._block.take(numbers - self._base, axis=0)

    def copy(self, start: int, stop: int) -> np.ndarray:
        """A copy of the rows from `start` up to `stop`."""
        return self._block[start - self._base : stop - self._base].copy()

    def _make_room(self, num_rows: int) -> None:
        held = self.held
        needed = len(held) + num_rows
        if needed <= (1 - _MIN_FORGOTTEN) * len(self._block):
            gap = self.start - self._base
            # In steps no longer than the gap: numpy would copy overlapping rows through a second block.
            for first in range(0, len(held), gap):
                part = held[first : first + gap]
                self._block[first : first + len(part)] = part
        else:
            block = np.empty((max(_MIN_ROWS, int(_GROWTH * needed)), *held.shape[1:]), held.dtype)
            block[: len(held)] = held
            self._block = block
        self._base = self.start
