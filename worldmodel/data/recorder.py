"""Records what a batch of environments does, all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldmodel.data.episode import Episode
from worldmodel.errors import DatasetError

_FIRST_CAPACITY = 64  # steps


class BatchRecorder:
    """One episode under way for each of B environments.

    Copies all that it is given; states, actions and rewards become float32. A step costs a few array
    operations, however many environments there are.
    """

    def __init__(self, observation: Mapping[str, np.ndarray]) -> None:
        self._size = len(next(iter(observation.values())))
        self._rows = np.arange(self._size)
        self._num_steps = np.zeros(self._size, np.int64)
        self._capacity = _FIRST_CAPACITY
        # (B, capacity + 1, ...): one row more than steps, which only observations use.
        self._columns: dict[str, np.ndarray] = {}
        self._extra: set[str] | None = None
        self.start(np.ones(self._size, np.bool_), observation)

    @property
    def num_steps(self) -> np.ndarray:
        """Of each environment's episode so far, (B,)."""
        return self._num_steps

    def start(self, is_new: np.ndarray, observation: Mapping[str, np.ndarray]) -> None:
        """Begin episodes of the environments where `is_new` (B,) with what these observe (B, ...)."""
        self._num_steps[is_new] = 0
        for name, values in observation.items():
            self._column(f"observation.{name}", values, name == "state")[is_new, 0] = values[is_new]

    def append(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: Mapping[str, np.ndarray],
        extra: Mapping[str, np.ndarray],
    ) -> None:
        """Add a step of every environment: action (B, A), reward (B,), the observations after it, extras."""
        if self._extra is None:
            self._extra = set(extra)
        if set(extra) != self._extra:
            raise DatasetError(
                f"a step has the extra columns {sorted(extra)}, and those before it {sorted(self._extra)}: "
                "give the same ones on every step"
            )
        at = self._num_steps
        if int(at.max()) == self._capacity:
            self._grow()
        self._column("action", action, True)[self._rows, at] = action
        self._column("reward", reward, True)[self._rows, at] = reward
        for name, values in extra.items():
            self._column(f"extra.{name}", values, False)[self._rows, at] = values
        for name, values in next_observation.items():
            self._column(f"observation.{name}", values, name == "state")[self._rows, at + 1] = values
        self._num_steps = at + 1

    def build(self, index: int, *, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> Episode:
        """The episode of one environment. Errors: `DatasetError` if it breaks a rule, such as a NaN."""
        num_steps = int(self._num_steps[index])

        def group(prefix: str, num_rows: int) -> dict[str, np.ndarray]:
            return {
                name.removeprefix(prefix): rows[index, :num_rows].copy()
                for name, rows in self._columns.items()
                if name.startswith(prefix)
            }

        def column(name: str) -> np.ndarray:
            return self._columns[name][index, :num_steps].copy()

        return Episode(
            observation=group("observation.", num_steps + 1),
            extra=group("extra.", num_steps),
            terminated=terminated,
            truncated=truncated,
            info=dict(info),
            action=column("action"),
            reward=column("reward"),
        )

    def _column(self, name: str, values: np.ndarray, is_float32: bool) -> np.ndarray:
        if name not in self._columns:
            dtype = np.dtype(np.float32) if is_float32 else values.dtype
            self._columns[name] = np.empty((self._size, self._capacity + 1, *values.shape[1:]), dtype)
        return self._columns[name]

    def _grow(self) -> None:
        self._capacity *= 2
        for name, column in self._columns.items():
            larger = np.empty((self._size, self._capacity + 1, *column.shape[2:]), column.dtype)
            larger[:, : column.shape[1]] = column
            self._columns[name] = larger
