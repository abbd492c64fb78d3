"""The last steps of a session, as columns of numbers to plot."""

from __future__ import annotations

from collections import deque

import numpy as np

from worldmodel.apps.cockpit.errors import FAR_STEPS
from worldmodel.apps.cockpit.moment import Moment

NUM_STEPS = 300  # that are kept

COLUMNS = (
    "step", "return", "reward", "elite_best", "elite_mean", "elite_worst", "plan_std",
    "decision_ms", "period_ms", "error_1", "error_far", "surprise", "alarm",
)  # fmt: skip


class History:
    """Numbers of the last steps; `step` counts on from episode to episode."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, ...]] = deque(maxlen=NUM_STEPS)
        self._count = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, moment: Moment, period_s: float | None) -> None:
        """One moment more."""
        returns = moment.plan.elite_returns[0]
        returns = returns[returns.isfinite()]
        best, mean, worst = (
            (float(returns.max()), float(returns.mean()), float(returns.min()))
            if len(returns)
            else (0.0,) * 3
        )
        self._rows.append(
            (
                float(self._count),
                moment.episode_return,
                moment.reward,
                best,
                mean,
                worst,
                float(moment.plan.std.mean()),
                moment.decision_s * 1e3,
                0.0 if period_s is None else period_s * 1e3,
                moment.errors.get(1, 0.0),
                moment.errors.get(FAR_STEPS, 0.0),
                0.0 if moment.level is None else moment.level,
                1.0,
            )
        )
        self._count += 1

    def column(self, name: str) -> np.ndarray:
        """The numbers of one column, oldest first."""
        index = COLUMNS.index(name)
        return np.array([row[index] for row in list(self._rows)], np.float64)
