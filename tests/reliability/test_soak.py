"""`serve`, `view` and `control` for `RELIABILITY_MINUTES`: their memory stays where it was."""

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from soak import growth_per_hour, is_flat, soak

RECORDED = Path(__file__).parents[2] / "docs" / "results" / "reliability"
MINUTES = float(os.environ.get("RELIABILITY_MINUTES", "10"))


def test_growth_is_the_slope_after_the_warm_up():
    def row(seconds: float) -> dict[str, float]:
        rss_mb = 100 + 10 * seconds / 3600 if seconds >= 900 else 7.0
        return {"seconds": seconds, "rss_mb": rss_mb, "threads": 3, "files": 9 - seconds / 3600}

    grown = growth_per_hour([row(float(seconds)) for seconds in range(0, 3601, 60)])
    assert grown == {
        "rss_mb": pytest.approx(10.0), "threads": pytest.approx(0.0, abs=1e-9), "files": pytest.approx(-1.0),
        "step_mb": pytest.approx(1 / 6), "rss_mb_without_step": pytest.approx(10.0, abs=0.5),
    }  # fmt: skip


def hour(rss_mb: Callable[[float], float]) -> dict[str, float]:
    """How a subject has grown whose memory was that by the second."""
    looks = [
        {"seconds": second, "rss_mb": rss_mb(second), "threads": 9, "files": 30} for second in range(3601)
    ]
    return growth_per_hour(looks[::15])


def test_one_copy_of_a_model_is_no_leak_and_all_else_that_grows_is():
    assert is_flat(hour(lambda second: 680.0 + 22 * (second > 3000)), 60)
    assert not is_flat(hour(lambda second: 680.0 + 60 * (second > 3000)), 60)
    assert not is_flat(hour(lambda second: 680.0 + 11 * (second > 1800) + 11 * (second > 3000)), 60)
    assert not is_flat(hour(lambda second: 680.0 + 6 * second / 3600), 60)
    assert not is_flat(hour(lambda second: 680.0 + 0.7 * (second // 300)), 60)
    flat = hour(lambda second: 680.0)
    assert not is_flat(flat | {"threads": 1.5}, 60)
    assert not is_flat(flat | {"files": 2.5}, 60)


def test_the_hour_that_was_recorded_was_flat():
    with (RECORDED / "soak.csv").open() as file:
        rows = [{key: number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    told = json.loads((RECORDED / "soak.json").read_text())
    for subject, grown in told["growth_per_hour"].items():
        again = growth_per_hour([row for row in rows if row["subject"] == subject])
        assert again == pytest.approx(grown, abs=0.02)
        assert is_flat(again, told["minutes"]), (subject, again)


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_memory_stays_where_it_was(tmp_path):
    growth = soak(MINUTES, tmp_path)
    told = json.loads((tmp_path / "soak.json").read_text())
    assert told["failures"] == []
    assert all(count > 0 for name, count in told["visits"].items())
    assert [(name, grown) for name, grown in growth.items() if not is_flat(grown, MINUTES)] == []
