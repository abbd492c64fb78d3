"""Videos: the right frames at the right speed, written as they come, and never half a file."""

import resource
import tracemalloc
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from worldmodel.apps.video import ControlVideo, VideoFile, caption, watchable_fps
from worldmodel.errors import RunError


def film(path: Path, num_steps: int, *, size: int = 64, control_period_s: float | None = 0.02) -> int:
    """A video of noise; returns how many frames were wanted."""
    chance, num_wanted = np.random.default_rng(0), 0
    with ControlVideo(path, "title", control_period_s) as video:
        for step in range(num_steps):
            num_wanted += video.wants_frame
            frame = chance.integers(255, size=(size, size, 3), dtype=np.uint8) if video.wants_frame else None
            video.add(frame, float(step), 0.001)
    return num_wanted


def interrupted_film(path: Path) -> None:
    with ControlVideo(path, "title", 0.02) as video:
        video.add(np.zeros((64, 64, 3), np.uint8), 1.0, 0.001)
        raise KeyboardInterrupt


def test_a_video_skips_frames_of_a_fast_robot_and_keeps_its_speed(tmp_path):
    path = tmp_path / "fast.mp4"
    num_wanted = film(path, 200, control_period_s=0.005)  # 200 decisions a second
    assert len(iio.imread(path)) == num_wanted == 50
    assert iio.immeta(path)["fps"] == pytest.approx(50)  # one second, as it was


def test_what_is_drawn_into_a_video_differs_by_latency(tmp_path):
    def drawn(latency_s: float) -> np.ndarray:
        with ControlVideo(tmp_path / "one.mp4", "title", 0.02) as video:
            video.add(np.zeros((240, 240, 3), np.uint8), 1.0, latency_s)
        return iio.imread(tmp_path / "one.mp4")[0].astype(int)

    in_time, late = drawn(0.010), drawn(0.030)
    colour = (in_time - late).sum((0, 1))
    assert colour[0] < 0 < colour[1]  # green where it is in time, red where it is late


def test_an_alarm_is_red_now_and_along_the_return(tmp_path):
    def drawn(*levels: float) -> np.ndarray:
        with ControlVideo(tmp_path / "one.mp4", "title", 0.02) as video:
            for step, level in enumerate(levels):
                video.add(np.zeros((240, 240, 3), np.uint8), float(step), 0.01, level)
        return iio.imread(tmp_path / "one.mp4")[-1].astype(int)

    calm, now, before = drawn(0.5, 0.5, 0.5, 0.5), drawn(0.5, 0.5, 0.5, 1.5), drawn(0.5, 1.5, 0.5, 0.5)
    above, below = slice(0, 120), slice(210, 240)
    assert (now - calm)[above].sum((0, 1))[1] < 0  # the line is red, not green, while it is on
    assert np.abs((before - calm)[above]).max() < 60
    assert (before - calm)[below, 70:90].mean((0, 1))[0] > 20  # a mark where it was
    assert np.abs((before - calm)[below, 120:200]).max() < 60


def test_the_time_is_shown_where_it_is_known():
    texts = [text for text, _ in caption("title", 50, 3.0, 0.030, 0.02)]
    assert texts == ["title", "time  1.00 s   return     3.0", "decision  30.0 ms of 20 ms"]


def test_no_time_is_invented():
    assert caption("title", 50, 3.0, 0.030, None) == [
        ("title", "white"),
        ("return     3.0", "white"),
        ("decision  30.0 ms", "#80ff80"),
    ]


def test_a_video_without_a_control_period_has_every_frame(tmp_path):
    assert film(tmp_path / "a.mp4", 12, control_period_s=None) == len(iio.imread(tmp_path / "a.mp4")) == 12


def test_frames_are_not_kept_in_memory(tmp_path):
    tracemalloc.start()
    film(tmp_path / "long.mp4", 60, size=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 200 * 200 * 3


def test_frames_to_compare_come_no_faster_than_eyes_follow(tmp_path):
    assert watchable_fps(0.2) == pytest.approx(5)
    assert watchable_fps(0.02) == watchable_fps(None) == 12
    with VideoFile(tmp_path / "a.mp4", 12.0) as video:
        for _ in range(7):
            video.append(np.zeros((64, 64, 3), np.uint8))
    assert len(iio.imread(tmp_path / "a.mp4")) == 7
    assert iio.immeta(tmp_path / "a.mp4")["fps"] == pytest.approx(12)


def test_an_error_while_filming_leaves_the_earlier_video(tmp_path):
    path = tmp_path / "a.mp4"
    film(path, 5)
    earlier = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupted_film(path)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_of_nothing_is_no_file(tmp_path):
    film(tmp_path / "a.mp4", 0)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_a_clear_error(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*a\.mp4: .*video=false needs none"):
        film(tmp_path / "gone" / "a.mp4", 5)


@pytest.mark.parametrize("num_steps", [5, 300])  # the encoder fails at the end, or in between
def test_a_full_disk_is_a_clear_error(tmp_path, num_steps):
    """The limit on a file's size stands in for the disk's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match=r"cannot write .*a\.mp4: .*video=false needs none"):
            film(tmp_path / "a.mp4", num_steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
