"""Means with intervals, and latency percentiles, against numbers worked out by hand."""

import pytest

from worldmodel.apps import plots
from worldmodel.apps.statistics import latency, mean_interval


def test_the_interval_is_students():
    # n = 3: mean 2, sample std 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138.
    result = mean_interval([1.0, 2.0, 3.0])
    assert result.count == 3
    assert (result.mean, result.low, result.high) == pytest.approx((2.0, -0.484138, 4.484138), abs=1e-6)


def test_ten_values():
    # Five 0s and five 1s: std = sqrt(2.5 / 9) = 0.527046, t(0.975, 9) = 2.262157, half width 0.377026.
    result = mean_interval([0.0, 1.0] * 5)
    assert (result.low, result.high) == pytest.approx((0.122974, 0.877026), abs=1e-6)


def test_one_value_has_no_interval():
    result = mean_interval([5.0])
    assert not result.has_interval
    assert str(result) == "5"
    assert result.to_json() == {"mean": 5.0, "low": None, "high": None, "count": 1}


def test_an_interval_is_written_where_there_is_one():
    result = mean_interval([0.0, 1.0] * 5)
    assert result.has_interval
    assert result.to_json() == {"mean": 0.5, "low": result.low, "high": result.high, "count": 10}


def test_a_curve_of_single_values_is_drawn():
    records = [{"env_steps": step, "eval/return": 1.0 * step} for step in (0, 100)]
    axes = plots.learning_curve(records, "task").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.0, 100.0]]
    plots.plt.close("all")


def test_how_it_reads():
    assert str(mean_interval([700.0, 800.0])) == "750 [115, 1385]"


def test_latency_percentiles_by_hand():
    # 0, 1, ..., 100 ms: percentile p is p ms. 21 of 101 take at most the period of 20 ms.
    result = latency([step / 1000 for step in reversed(range(101))], 0.020)
    assert (result.p50_ms, result.p95_ms, result.p99_ms) == pytest.approx((50, 95, 99))
    assert (result.max_ms, result.control_period_ms) == pytest.approx((100, 20))
    assert result.fraction_in_time == pytest.approx(21 / 101)
    assert "control period 20 ms; 20.8% in time" in str(result)


def test_latency_without_a_clock_to_keep():
    result = latency([0.004], None)
    assert (result.control_period_ms, result.fraction_in_time) == (None, None)
    assert str(result) == "p50 4.0 ms, p95 4.0 ms, p99 4.0 ms"
