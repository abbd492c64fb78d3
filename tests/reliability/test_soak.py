"""`serve`, `view` and `control` for `RELIABILITY_MINUTES`: their memory stays where it was."""

import json
import os
import sys

import pytest
from soak import growth_per_hour, soak

MINUTES = float(os.environ.get("RELIABILITY_MINUTES", "10"))


def test_growth_is_the_slope_after_the_warm_up():
    def row(seconds: float) -> dict[str, float]:
        rss_mb = 100 + 10 * seconds / 3600 if seconds >= 900 else 7.0
        return {"seconds": seconds, "rss_mb": rss_mb, "threads": 3, "files": 9 - seconds / 3600}

    grown = growth_per_hour([row(float(seconds)) for seconds in range(0, 3601, 60)])
    assert grown == {
        "rss_mb": pytest.approx(10.0), "threads": pytest.approx(0.0, abs=1e-9), "files": pytest.approx(-1.0)
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_memory_stays_where_it_was(tmp_path):
    growth = soak(MINUTES, tmp_path)
    told = json.loads((tmp_path / "soak.json").read_text())
    assert told["failures"] == []
    assert all(count > 0 for name, count in told["visits"].items())
    for name, grown in growth.items():
        # A few MB of a heap that settles; what leaks with each of thousands of plans is far more.
        assert grown["rss_mb"] * MINUTES / 60 < 8, (name, grown)
        assert grown["threads"] * MINUTES / 60 < 1, (name, grown)
        assert grown["files"] * MINUTES / 60 < 2, (name, grown)
