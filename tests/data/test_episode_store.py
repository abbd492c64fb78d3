import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from made_episodes import assert_same_episode, made_episode, write

from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.shard import write_shard
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "walk"


def shards(path):
    return sorted((path / "shards").iterdir())


def test_episodes_come_back_to_the_bit(path):
    episodes = [
        made_episode(number, number, terminated=number % 2 == 0, pixels=True, plan=True)
        for number in range(1, 6)
    ]
    dataset = EpisodeDataset(path, mode="a", info={"task": "walker-walk", "control_period_s": 0.025})
    for episode in episodes:
        dataset.append(episode)
    for found in (dataset, EpisodeDataset.open(path)):
        assert (len(found), found.num_steps) == (5, 15)
        assert found.info == {"task": "walker-walk", "control_period_s": 0.025}
        assert found.columns["observation.pixels"].shape == (3, 4, 4)
        for left, right in zip(found, episodes, strict=True):
            assert_same_episode(left, right)


def test_floats_keep_every_bit(path):
    values = np.array([[1e-45, -0.0], [3.4e38, 1 / 3]], np.float32)
    episode = Episode(
        observation={"state": values},
        action=values[:1],
        reward=values[0, :1],
        terminated=True,
        truncated=True,
    )
    EpisodeDataset(path, mode="a").append(episode)
    assert_same_episode(EpisodeDataset.open(path).episode(0), episode)


def test_appending_goes_on_where_an_earlier_session_stopped(path):
    write(path, [1, 2])
    dataset = write(path, [3])
    assert [episode.info["number"] for episode in dataset] == [1, 2, 3]


def test_order_survives_a_clock_that_is_set_back(path, monkeypatch):
    write(path, [1])
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    write(path, [2, 3])
    assert [episode.info["number"] for episode in EpisodeDataset.open(path)] == [1, 2, 3]


def test_what_a_writer_adds_comes_after_all_it_has_read(path):
    writer = write(path, [1])
    in_an_hour = f"{time.time_ns() + 3600 * 10**9:020d}-1-00000000"  # by another's clock
    write_shard(path / "shards", in_an_hour, [made_episode(2, 5)])
    writer.refresh()
    writer.append(made_episode(3, 6))
    for dataset in (writer, EpisodeDataset.open(path)):
        assert [episode.info["number"] for episode in dataset] == [1, 2, 3]
    store = EpisodeStore(path, create=True)
    store.write([made_episode(4, 7)])
    assert [episode.info["number"] for episode in EpisodeDataset.open(path)] == [1, 2, 3, 4]


def test_a_listing_that_misses_a_shard_is_no_answer(path, monkeypatch):
    write(path, [1, 2, 3])
    store, scandir = EpisodeStore(path), os.scandir
    expected = [shard.name for shard in shards(path)]

    def misses_one(folder):  # as a listing may that is under way while shards come and go
        monkeypatch.undo()
        return [entry for entry in scandir(folder) if entry.name != expected[1]]

    monkeypatch.setattr(os, "scandir", misses_one)
    assert store.all_names() == expected


def test_each_file_is_looked_at_once_however_a_dataset_is_opened(path, monkeypatch):
    write(path, [1, 2, 3])
    looked_at, read_bytes = [], Path.read_bytes

    def noted(file):
        looked_at.append(file)
        return read_bytes(file)

    monkeypatch.setattr(Path, "read_bytes", noted)
    for options in ({}, {"in_memory": True}, {"in_memory": False}, {"capacity": 7}):
        looked_at.clear()
        EpisodeDataset.open(path, **options)
        assert len(looked_at) == len(set(looked_at)) == 1 + 2 * 3


def test_a_shard_may_hold_several_episodes(path):
    write(path, [1], terminated=True, plan=True)
    more = [made_episode(number, number, plan=True) for number in (2, 3, 4)]
    write_shard(path / "shards", "99999999999999999999-several", more)
    found = EpisodeDataset.open(path)
    assert len(found) == 4
    for left, right in zip(list(found)[1:], more, strict=True):
        assert_same_episode(left, right)


def test_a_dataset_without_episodes_can_be_opened(path):
    EpisodeDataset(path, mode="a", info={"task": "walker-walk"})
    dataset = EpisodeDataset.open(path)
    assert (len(dataset), dataset.num_steps, dataset.columns, list(dataset)) == (0, 0, {}, [])
    with pytest.raises(IndexError):
        dataset.episode(0)


def test_opening_nothing_says_so(path):
    with pytest.raises(DatasetError, match="there is no dataset at"):
        EpisodeDataset.open(path)


def test_reading_only_means_no_appending(path):
    write(path, [1])
    with pytest.raises(DatasetError, match="mode='a'"):
        EpisodeDataset.open(path).append(made_episode(2, 3))


def test_refresh_shows_what_another_has_committed_since(path):
    writer = EpisodeDataset(path, mode="a")
    reader, other_writer = EpisodeDataset.open(path), EpisodeDataset(path, mode="a")
    for number in (1, 2, 3):
        writer.append(made_episode(number, number))
        assert len(reader) == number - 1
        assert reader.refresh() == 1
        assert_same_episode(reader.episode(-1), made_episode(number, number))
    assert reader.refresh() == 0
    other_writer.append(made_episode(4, 4))
    assert (other_writer.refresh(), writer.refresh(), reader.refresh()) == (3, 1, 1)
    assert sorted(episode.info["number"] for episode in other_writer) == [1, 2, 3, 4]


@pytest.mark.parametrize("on_disk", [True, False])
def test_an_episode_of_other_columns_is_refused(path, on_disk):
    dataset = EpisodeDataset(path if on_disk else None, mode="a")
    dataset.append(made_episode(1, 3))
    with pytest.raises(DatasetError, match=r"extra.plan_mean is float32\[5, 3\] instead of absent"):
        dataset.append(made_episode(2, 3, plan=True))
    with pytest.raises(DatasetError, match=r"observation.pixels is uint8"):
        dataset.append(made_episode(2, 3, pixels=True))
    assert len(dataset) == 1
    if on_disk:
        assert len(EpisodeDataset.open(path)) == 1


def test_a_shard_that_was_deleted_is_no_matter(path):
    dataset = write(path, [1, 2])
    for file in shards(path)[0].iterdir():
        file.unlink()
    shards(path)[0].rmdir()
    assert len(dataset) == 2
    assert [episode.info["number"] for episode in EpisodeDataset.open(path)] == [2]


@pytest.mark.parametrize("failing_call", range(1, 8))  # files, folder, and what it lies in
def test_full_disk_loses_only_the_new_episode(path, monkeypatch, failing_call):
    dataset = write(path, [1, 2])
    calls = 0
    fsync = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"is full .*all earlier ones are safe") as caught:
        dataset.append(made_episode(3, 4))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert len(dataset) == len(shards(path)) == 2  # And no .tmp-* left.
    dataset.append(made_episode(3, 4))
    assert [episode.info["number"] for episode in EpisodeDataset.open(path)] == [1, 2, 3]


def test_remains_of_dead_writers_go_after_an_hour(path):
    write(path, [1])
    old, young = path / "shards" / ".tmp-old", path / "shards" / ".tmp-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "action.npy").write_bytes(b"half")
    beside = path / ".tmp-old-dataset.json"
    beside.write_text("{")
    two_hours_ago = time.time() - 7200
    for entry in (old / "action.npy", old, beside):
        os.utime(entry, (two_hours_ago, two_hours_ago))
    assert len(EpisodeDataset.open(path)) == 1
    assert old.exists()  # Reading never writes.
    assert len(EpisodeDataset(path, mode="a")) == 1
    assert (old.exists(), beside.exists(), young.exists()) == (False, False, True)
