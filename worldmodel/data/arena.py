"""Many episodes end to end in memory, laid out so that any window is one gather per column."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from worldmodel.data.columns import Columns, num_rows
from worldmodel.data.sliding_array import SlidingArray


class EpisodeArena:
    """The steps of many episodes; remembers the newest, forgets the oldest.

    Every column has T + 1 rows for an episode of T steps, so that one index serves all columns. The last row
    holds the last observation, and zeros in the columns that have no value there: it is also what a window is
    padded with, so padding needs no code of its own.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._arrays = {
            name: SlidingArray(np.dtype(column.dtype), column.shape) for name, column in columns.items()
        }
        self._terminated = SlidingArray(np.dtype(bool), ())
        # Rows, steps and episodes are numbered from the first one ever appended.
        self._last_rows = SlidingArray(np.dtype(np.int64), ())  # Of each episode.
        self._step_ends = SlidingArray(np.dtype(np.int64), ())  # Number of the first step after each episode.

    @property
    def num_steps(self) -> int:
        """Steps of all episodes remembered."""
        return len(self._terminated) - len(self._last_rows)

    def append(self, arrays: dict[str, np.ndarray], terminated: bool) -> None:
        """Add a copy of one episode, given by column."""
        num_steps = len(arrays["action"])
        for name, array in self._arrays.items():
            array.append(arrays[name])
            if num_rows(name, num_steps) == num_steps:
                array.append(np.zeros((1, *self.columns[name].shape), self.columns[name].dtype))
        flags = np.zeros(num_steps + 1, dtype=bool)
        flags[num_steps - 1] = terminated
        self._terminated.append(flags)
        self._step_ends.append(np.array([self._terminated.stop - 1 - self._last_rows.stop]))
        self._last_rows.append(np.array([self._terminated.stop - 1]))

    def forget_oldest(self) -> None:
        """Forget the oldest episode."""
        first_row = int(self._last_rows.held[0]) + 1
        for array in (*self._arrays.values(), self._terminated):
            array.forget_before(first_row)
        self._step_ends.forget_before(self._step_ends.start + 1)
        self._last_rows.forget_before(self._last_rows.start + 1)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Copies of the columns of one episode; 0 is the oldest one remembered."""
        last_rows = self._last_rows.held
        start = int(last_rows[index - 1]) + 1 if index else self._terminated.start
        num_steps = int(last_rows[index]) - start
        return {
            name: array.copy(start, start + num_rows(name, num_steps)) for name, array in self._arrays.items()
        }

    def rows_of(
        self, steps: Int64[np.ndarray, " batch"], horizon: int
    ) -> tuple[Int64[np.ndarray, "batch row"], Bool[np.ndarray, "batch horizon"]]:
        """Row numbers (B, H + 1) of the windows that start at these steps, and which of their steps are real.

        Steps are counted from 0 over all episodes remembered. Rows past an episode's end are its last row.
        """
        steps = steps + (self._terminated.start - self._last_rows.start)
        episodes = np.searchsorted(self._step_ends.held, steps, side="right") + self._last_rows.start
        # Every episode before takes one row more than it has steps.
        rows = (steps + episodes)[:, None] + np.arange(horizon + 1)
        last = self._last_rows.take(episodes)[:, None]
        return np.minimum(rows, last), rows[:, :-1] < last

    def bounds_of(
        self, steps: Int64[np.ndarray, " some"]
    ) -> tuple[Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]]:
        """Of the episodes that these steps are in: the first step, and the one after the last."""
        return bounds_of(self._step_ends.held - (self._terminated.start - self._last_rows.start), steps)

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Copies of the rows of one column."""
        return self._arrays[name].take(rows)

    def take_terminated(self, rows: np.ndarray) -> np.ndarray:
        """Whether each row is the last step of an episode that terminated."""
        return self._terminated.take(rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes held, room for growth included."""
        return sum(array.memory_bytes for array in self._arrays.values())


def bounds_of(
    ends: Int64[np.ndarray, " episode"], steps: Int64[np.ndarray, " some"]
) -> tuple[Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]]:
    """First steps, and those after the last, of the episodes of these steps; `ends` are those of all."""
    episodes = np.searchsorted(ends, steps, side="right")
    return np.where(episodes > 0, ends[episodes - 1], 0), ends[episodes]
