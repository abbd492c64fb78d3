"""Statistics of features, for episodes and for whole datasets, as LeRobot normalises with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from worldmodel.data.statistics import Moments

Statistics = dict[str, Any]  # nested lists of numbers, ready for JSON

MAX_QUANTILE_ROWS = 200_000  # of a whole dataset
MAX_IMAGES = 32  # of an episode
MAX_PIXELS = 50_000  # of an episode
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


class FeatureStatistics:
    """The statistics of one feature: `add` gives those of an episode, `total` those of all added so far.

    num_rows: about how many rows there will be. Quantiles of all are those of every n-th row, so that they
        take little memory however large a dataset is; everything else counts every row.
    """

    def __init__(self, num_rows: int) -> None:
        self._stride = math.ceil(num_rows / MAX_QUANTILE_ROWS) or 1
        self._next = 0  # where the next n-th row is, counted from the rows added last
        self._sample: list[np.ndarray] = []
        self._moments = Moments()
        self._count = 0

    def add(self, rows: Shaped[np.ndarray, "row ..."], count: int | None = None) -> Statistics:
        """Take these rows in, and return their own statistics; `count` says how many frames they are of."""
        rows = rows.astype(np.float64)
        count = len(rows) if count is None else count
        self._sample.append(rows[self._next :: self._stride])
        self._next = (self._next - len(rows)) % self._stride
        self._count += count
        return _statistics(self._moments.add(rows), count, rows)

    def total(self) -> Statistics:
        """The statistics of all rows added."""
        return _statistics(self._moments, self._count, np.concatenate(self._sample))


def image_rows(pixels: UInt8[np.ndarray, "frame channel height width"]) -> tuple[np.ndarray, int]:
    """Some pixels of some frames, in 0..1, as rows of shape (channel, 1, 1); and of how many frames."""
    frames = np.unique(np.linspace(0, len(pixels) - 1, MAX_IMAGES).round().astype(np.int64))
    step = math.ceil(math.sqrt(len(frames) * pixels.shape[2] * pixels.shape[3] / MAX_PIXELS))
    some = pixels[frames][:, :, ::step, ::step] / 255.0
    return some.transpose(0, 2, 3, 1).reshape(-1, pixels.shape[1], 1, 1), len(frames)


def _statistics(moments: Moments, count: int, rows: np.ndarray) -> Statistics:
    """`rows`: those that quantiles are of."""
    quantiles = np.quantile(rows, list(_QUANTILES.values()), axis=0)
    return {
        "min": moments.low.tolist(),
        "max": moments.high.tolist(),
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "count": [count],
        **{name: values.tolist() for name, values in zip(_QUANTILES, quantiles, strict=True)},
    }
