"""The clock on the wall jumps, back by an hour or forward by a day, while everything runs."""

import itertools
import os
import time
from pathlib import Path

import numpy as np
import pytest
import toy_tasks
from serving_peers import OpenpiClient, serving
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_full_disk import episode

from worldmodel.apps import progress
from worldmodel.apps.cli import main
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.data import EpisodeDataset
from worldmodel.files import STALE_AFTER_S, committed_directory, committed_file
from worldmodel.remote import Client
from worldmodel.training import MetricLogger, load_checkpoint

HOUR_S, DAY_S = 3600.0, 86400.0
JUMPS_S = (0.0, -HOUR_S, DAY_S, -2 * HOUR_S)
HORIZON = 4


@pytest.fixture
def jumping(monkeypatch):
    """Whoever asks for the time gets another day each time."""
    offsets, time_s, time_ns = itertools.cycle(JUMPS_S), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: time_s() + next(offsets))
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + int(next(offsets) * 1e9))


def test_episodes_keep_their_order_and_their_names(jumping, tmp_path):
    for number in range(24):
        if number % 3 == 0:  # another process, in which the clock may be an hour behind the last
            dataset = EpisodeDataset(tmp_path, mode="a")
        dataset.append(episode(number))
    assert [each.info["number"] for each in EpisodeDataset.open(tmp_path)] == list(range(24))
    assert len(list((tmp_path / "shards").iterdir())) == 24


def trained(run_dir: Path) -> str:
    words = [f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING, "env_steps=120"]
    assert main(["train", *words]) == 0
    return load_checkpoint(run_dir).fingerprint


def test_training_is_the_same_and_its_seconds_make_sense(jumping, monkeypatch, tmp_path):
    jumped = trained(tmp_path / "jumping")
    assert 0 < load_checkpoint(tmp_path / "jumping").info["training_seconds"] < HOUR_S
    monkeypatch.undo()
    assert trained(tmp_path / "whole") == jumped


def collected(path: Path) -> list[bytes]:
    words = [f"task={toy_tasks.POINT}", "episodes=6", "num_envs=2", "policy=random", "env.action_repeat=1"]
    assert main(["collect", *words, f"dataset={path}"]) == 0
    return [each.observation["state"].tobytes() for each in EpisodeDataset.open(path)]


def test_collecting_is_the_same(jumping, monkeypatch, tmp_path):
    jumped = collected(tmp_path / "jumping")
    monkeypatch.undo()
    assert collected(tmp_path / "whole") == jumped


class Still:
    """Plans nothing."""

    def act(self, sessions, observation, deadline=None):
        return np.zeros((len(sessions), HORIZON, 1), np.float32)


def test_a_server_neither_times_out_nor_refuses(jumping):
    with serving(Still(), requests_per_s=1000.0, idle_s=60.0, request_s=60.0) as server:
        with OpenpiClient(server.uri) as robot:
            for _ in range(50):
                assert robot.infer({"state": np.zeros(3, np.float32)})["actions"].shape == (HORIZON, 1)
        with Client(server.uri, timeout_s=60.0, patience_s=60.0) as robot:
            assert robot.act({"state": np.zeros(3, np.float32)}).shape == (HORIZON, 1)


def test_progress_tells_no_time_that_cannot_be(jumping, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)  # every update is a line
    with ProgressDisplay("work", 1000, "steps") as display:
        for done in range(1, 11):
            time.sleep(0.01)
            display.update(done)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for line in lines:
        left_s = float(line.partition("ETA ")[2].split()[0])
        assert 0 < left_s < HOUR_S
        assert "-" not in line


def test_tensorboard_reads_a_run_that_went_on_before_it_began(monkeypatch, tmp_path):
    time_s = time.time
    for run, offset_s in enumerate((DAY_S, 0.0, -HOUR_S)):
        monkeypatch.setattr(time, "time", lambda offset_s=offset_s: time_s() + offset_s)
        with MetricLogger(tmp_path) as metrics:
            metrics.log(10 * run, {"x": float(run)})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("x")] == [(0, 0.0), (10, 1.0), (20, 2.0)]


def test_what_another_is_writing_is_no_debris_because_this_clock_is_ahead(monkeypatch, tmp_path):
    """A machine whose clock is a day ahead looks at a network disk that others write to."""
    time_s = time.time
    with committed_directory(tmp_path / "living") as folder:
        (folder / "half").write_text("x")
        monkeypatch.setattr(time, "time", lambda: time_s() + DAY_S)
        with committed_directory(tmp_path / "living-too"), committed_file(tmp_path / "file") as file:
            file.write_text("y")
        with committed_directory(tmp_path / "living"):
            pass
        assert (folder / "half").exists()
        (tmp_path / "living").rmdir()


def test_what_is_an_hour_old_by_the_clock_of_the_disk_goes(tmp_path):
    debris = tmp_path / ".tmp-1-0123abcd-data"
    debris.mkdir()
    old_s = debris.stat().st_mtime - STALE_AFTER_S - 1
    os.utime(debris, (old_s, old_s))
    with committed_directory(tmp_path / "data"):
        pass
    assert not debris.exists()
