"""Progress where nobody watches: a line now and then, in words that can be read later."""

import pytest

from worldmodel.apps import progress
from worldmodel.apps.progress import ProgressDisplay


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_each_half_minute_with_rate_and_time_left(clock, capsys):
    with ProgressDisplay("learn", 100, "steps", done=10) as display:
        display.update(20, {"return": "7"})
        assert capsys.readouterr().out == ""
        clock.now = 40.0
        display.update(50)
        # 40 steps in 40 s since it began at 10: 1 step/s, 50 s for the 50 that are left.
        assert capsys.readouterr().out == "learn: 50/100 steps, ETA 50 s, return 7, 1/s\n"
        clock.now = 60.0
        display.update(60)
        assert capsys.readouterr().out == ""


def test_without_numbers_there_is_no_gap(clock, capsys):
    with ProgressDisplay("act", 4, "episodes") as display:
        clock.now = 50.0
        display.update(1)
    assert capsys.readouterr().out == "act: 1/4 episodes, ETA 150 s, 0.02/s\n"


def test_notes_are_printed_as_they_are_however_long(capsys):
    line = "/a/path [with] brackets/" + 30 * "and more/"
    with ProgressDisplay("act", 4, "episodes") as display:
        display.note(line)
    assert capsys.readouterr().out == line + "\n"
