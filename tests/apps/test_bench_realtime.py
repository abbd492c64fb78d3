"""bench realtime: every loop and period is lived through and written down."""

import csv

import pytest
import toy_tasks

from worldmodel.apps.cli import main


def test_each_loop_has_a_row_for_each_period(point_run, tmp_path):
    arguments = [f"checkpoint={point_run}", f"task={toy_tasks.POINT}", "episodes=1"]
    arguments += ["periods_ms=[60,40]", "loops=[synchronous,deadline]", "background=thread"]
    assert main(["bench", "realtime", *arguments, f"output={tmp_path}"]) == 0
    with (tmp_path / "realtime.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["loop"], row["period_ms"]) for row in rows] == [
        ("synchronous", ""),
        ("deadline", "60"),
        ("deadline", "40"),
    ]
    assert all(row["episodes"] == "1" and float(row["latency_p50_ms"]) > 0 for row in rows)
    page = (tmp_path / "realtime.md").read_text()
    assert "the robot does not wait" in page
    assert (tmp_path / "realtime.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("loops=[eventually]", "there is no loop"),
        ("periods_ms=[0]", "at least 1"),
        ("stall_ms=-1", "stall_ms"),
    ],
)
def test_a_mistake_is_told_before_anything_moves(given, said, point_run, refused):
    base = [f"checkpoint={point_run}", f"task={toy_tasks.POINT}"]
    assert said in refused("bench", "realtime", *base, given)
