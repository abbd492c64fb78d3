"""Mean, std and range of many rows, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped


@dataclass
class Moments:
    """Of each entry of the rows taken in so far, in float64; the arrays have the shape of a row."""

    count: int = 0
    mean: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    _squares: Any = 0.0  # of the distances from the mean, summed

    @classmethod
    def of(cls, rows: Shaped[np.ndarray, "row ..."]) -> Moments:
        """Those of these rows, at least one."""
        rows = rows.astype(np.float64)
        mean = rows.mean(0)
        return cls(len(rows), mean, rows.min(0), rows.max(0), np.square(rows - mean).sum(0))

    def add(self, rows: Shaped[np.ndarray, "row ..."]) -> Moments:
        """Take rows in; returns the moments of these alone."""
        new = Moments.of(rows)
        # Chan, Golub and LeVeque (1979): two sums of squares around different means make one.
        fraction = new.count / (self.count + new.count)
        difference = new.mean - self.mean
        self._squares = self._squares + new._squares + np.square(difference) * (self.count * fraction)
        self.mean = self.mean + difference * fraction
        self.low, self.high = np.minimum(self.low, new.low), np.maximum(self.high, new.high)
        self.count += new.count
        return new

    @property
    def std(self) -> Any:
        """Of a whole population: the mean square, not one with count - 1."""
        return np.sqrt(self._squares / self.count)
