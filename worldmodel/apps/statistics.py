"""Numbers that say how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its 95 % interval, over `count` independent values.

    A single value has no interval: `low` and `high` are then the mean, an empty band in a plot, and
    neither text nor JSON shows them.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def has_interval(self) -> bool:
        """Whether there is more than one value."""
        return self.count > 1

    def to_json(self) -> dict[str, float | int | None]:
        """For a file: `low` and `high` are null where there is no interval."""
        interval = (self.low, self.high) if self.has_interval else (None, None)
        return {"mean": self.mean, "low": interval[0], "high": interval[1], "count": self.count}

    def __str__(self) -> str:
        if not self.has_interval:
            return f"{self.mean:.0f}"
        return f"{self.mean:.0f} [{self.low:.0f}, {self.high:.0f}]"

    def precise(self) -> str:
        """Four digits, and what is in the brackets: `37.92 (95 % interval -41.2 to 116.9)`."""
        if not self.has_interval:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} (95 % interval {self.low:.4g} to {self.high:.4g})"


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval, which a single value has not."""
    array = np.asarray(values, dtype=np.float64)
    mean, count = float(array.mean()), len(array)
    half = 0.0
    if count > 1:
        half = float(stats.t.ppf(0.975, count - 1) * array.std(ddof=1) / np.sqrt(count))
    return Mean(mean=mean, low=mean - half, high=mean + half, count=count)


def success_interval(num_solved: int, count: int) -> Mean:
    """A share with its 95 % interval (Wilson 1927), which is sound near 0 and 1 too."""
    interval = stats.binomtest(num_solved, count).proportion_ci(method="wilson")
    return Mean(mean=num_solved / count, low=float(interval.low), high=float(interval.high), count=count)


def iqm_interval(groups: Sequence[Sequence[float]], *, seed: int = 0) -> Mean:
    """Interquartile mean over all values of all groups, with its 95 % bootstrap interval.

    Values are drawn again within each group (a task's seeds), as Agarwal et al. 2021, "Deep Reinforcement
    Learning at the Edge of the Statistical Precipice", do. With a single value in each group there is no
    interval.
    """

    def iqm(*samples: np.ndarray) -> float:
        return float(stats.trim_mean(np.concatenate(samples), 0.25))

    arrays = [np.asarray(group, np.float64) for group in groups]
    count, center = min(len(array) for array in arrays), iqm(*arrays)
    low = high = center
    if count > 1 and any(np.ptp(array) > 0 for array in arrays):
        found = stats.bootstrap(
            arrays, iqm, vectorized=False, n_resamples=2000, method="percentile",
            rng=np.random.default_rng(seed),
        )  # fmt: skip
        low, high = map(float, found.confidence_interval)
    return Mean(mean=center, low=low, high=high, count=count)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of decision times in milliseconds, against the control period."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    control_period_ms: float | None
    fraction_in_time: float | None

    def percentiles(self) -> dict[str, float]:
        """`p50_ms`, `p95_ms`, `p99_ms` and `max_ms`."""
        return {name: getattr(self, name) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")}

    def __str__(self) -> str:
        text = f"p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
        if self.control_period_ms is None:
            return text
        return f"{text} (control period {self.control_period_ms:.0f} ms; {self.fraction_in_time:.1%} in time)"


def latency(seconds: Sequence[float], control_period_s: float | None) -> Latency:
    """Summarise decision times."""
    array = np.asarray(seconds)
    p50, p95, p99 = np.percentile(array, [50, 95, 99]) * 1e3
    return Latency(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        max_ms=float(array.max() * 1e3),
        control_period_ms=None if control_period_s is None else control_period_s * 1e3,
        fraction_in_time=None if control_period_s is None else float((array <= control_period_s).mean()),
    )
