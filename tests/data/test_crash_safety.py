"""Writers that are killed, and several at once."""

import multiprocessing
import os
import random
import signal
import time
from functools import partial

import pytest
from made_episodes import assert_same_episode, made_episode
from sudden_death import survives

from worldmodel.data import EpisodeDataset

# A fork has torch imported already; it only writes files.
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
NUMBER_BYTES = 8


def episode_of(number):
    return made_episode(number, 1 + number % 50, terminated=number % 3 == 0, pixels=True, plan=True)


def append_forever(path, first, acknowledged):
    dataset = EpisodeDataset(path, mode="a", capacity=50)
    for number in range(first, first + 10_000):
        dataset.append(episode_of(number))
        os.write(acknowledged, number.to_bytes(NUMBER_BYTES, "little"))


def start_writer(path, first):
    """A writing process, and the reading end of the pipe on which it acknowledges episodes."""
    reading, writing = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=append_forever, args=(path, first, writing))
    process.start()
    os.close(writing)
    return process, reading


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def first_acknowledged_by(reading):
    """Wait for the first number in the pipe."""
    return int.from_bytes(os.read(reading, NUMBER_BYTES), "little")


def acknowledged_by(reading):
    """All numbers in the pipe; the writer must be dead."""
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    return [
        int.from_bytes(content[start : start + NUMBER_BYTES], "little")
        for start in range(0, len(content), NUMBER_BYTES)
    ]


def assert_complete(path, acknowledged):
    found = {episode.info["number"]: episode for episode in EpisodeDataset.open(path)}
    assert set(acknowledged) <= found.keys()
    for number, episode in found.items():  # Not only the acknowledged ones: what shows is whole.
        assert_same_episode(episode, episode_of(number))


def test_no_acknowledged_episode_is_lost_to_kill_9(tmp_path):
    chance = random.Random(0)
    acknowledged = []
    for attempt in range(8):
        process, reading = start_writer(tmp_path / "walk", 1000 * attempt)
        if attempt % 4:  # Every fourth is killed while it opens the dataset.
            acknowledged.append(first_acknowledged_by(reading))
        time.sleep(chance.uniform(0, 0.1))
        kill(process)
        acknowledged += acknowledged_by(reading)
    assert len(acknowledged) >= 6
    assert_complete(tmp_path / "walk", acknowledged)


def test_a_writer_killed_at_any_step_of_the_commit_leaves_all_or_nothing(tmp_path):
    path = tmp_path / "walk"
    EpisodeDataset(path, mode="a").append(episode_of(0))
    survivors = []
    for number in range(1, 14):
        append = partial(lambda number: EpisodeDataset(path, mode="a").append(episode_of(number)), number)
        survivors.append(survives(append, fatal_call=number))
        assert_complete(path, [0])
    # 6 columns, episodes.json, shard.json, the directory, the rename, the parent directory.
    assert survivors == [False] * 11 + [True] * 2
    numbers = {episode.info["number"] for episode in EpisodeDataset.open(path)}
    assert numbers == {0, 11, 12, 13}  # Killed after the rename: whole, though never acknowledged.


def test_two_writers_and_a_reader_at_once(tmp_path):
    path = tmp_path / "walk"
    writers = [start_writer(path, first) for first in (0, 5000)]
    firsts = [first_acknowledged_by(reading) for _, reading in writers]
    assert firsts == [0, 5000]
    reader = EpisodeDataset.open(path)
    deadline = time.monotonic() + 20
    while len(reader) < 12 and time.monotonic() < deadline:
        reader.refresh()
    for process, _ in writers:
        kill(process)
    reader.refresh()
    acknowledged = [
        [first, *acknowledged_by(reading)] for first, (_, reading) in zip(firsts, writers, strict=True)
    ]
    together = acknowledged[0] + acknowledged[1]
    assert_complete(path, together)
    assert {episode.info["number"] for episode in reader} >= set(together)
    for numbers in acknowledged:  # Each writer's episodes keep their order.
        read = [episode.info["number"] for episode in EpisodeDataset.open(path)]
        assert [number for number in read if number in numbers] == numbers
