import numpy as np
import pytest
from made_episodes import assert_same_episode, made_episode, starts_of

from worldmodel.data import EpisodeDataset
from worldmodel.data.merging import merge_shards
from worldmodel.data.shard import write_shard
from worldmodel.data.sliding_array import SlidingArray
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


def test_a_forgotten_step_is_never_sampled_again():
    generator = np.random.default_rng(0)
    dataset = EpisodeDataset(capacity=700)  # Beyond 256 rows, so that the block of memory moves often.
    remembered = []
    for number in range(1, 151):
        episode = made_episode(number, int(generator.integers(1, 60)), plan=True)
        dataset.append(episode)
        remembered.append(episode)
        while sum(kept.num_steps for kept in remembered) > 700:
            remembered.pop(0)
        assert (len(dataset), dataset.num_steps) == (len(remembered), len(starts_of(remembered)))
        rewards = dataset.sample(64, 2, generator).reward[:, 0].tolist()
        assert set(rewards) <= {float(reward) for kept in remembered for reward in kept.reward}
    for found, expected in zip(dataset, remembered, strict=True):
        assert_same_episode(found, expected)


def test_memory_stays_bounded_while_episodes_come_and_go():
    dataset = EpisodeDataset(capacity=1000)
    for number in range(1, 300):
        dataset.append(made_episode(number, 50))
    bytes_per_step = 4 * (2 + 3 + 1)
    assert dataset.memory_bytes < 2.2 * 1000 * bytes_per_step


def test_an_episode_longer_than_the_capacity_is_refused_and_nothing_forgotten():
    dataset = EpisodeDataset(capacity=10)
    dataset.append(made_episode(1, 10))
    with pytest.raises(DatasetError, match="does not fit the capacity of 10 steps"):
        dataset.append(made_episode(2, 11))
    assert_same_episode(dataset.episode(0), made_episode(1, 10))


def test_capacity_is_at_least_one_step():
    with pytest.raises(DatasetError, match="capacity is 0"):
        EpisodeDataset(capacity=0)


def test_forgetting_leaves_the_disk_alone(tmp_path):
    dataset = EpisodeDataset(tmp_path / "walk", capacity=10, mode="a")
    for number in range(1, 6):
        dataset.append(made_episode(number, 4))
    assert [episode.info["number"] for episode in dataset] == [4, 5]
    assert len(EpisodeDataset.open(tmp_path / "walk")) == 5


def test_opening_with_a_capacity_remembers_the_newest(tmp_path):
    writer = EpisodeDataset(tmp_path / "walk", mode="a")
    for number in range(1, 8):
        writer.append(made_episode(number, 4))
    reader = EpisodeDataset.open(tmp_path / "walk", capacity=10)
    assert [episode.info["number"] for episode in reader] == [6, 7]
    assert reader.refresh() == 0
    writer.append(made_episode(8, 4))
    assert reader.refresh() == 1
    assert [episode.info["number"] for episode in reader] == [7, 8]


@pytest.mark.parametrize("max_bytes", [4 * 6 * 4 * 4, 10**9])  # of about four episodes, or of all
def test_each_episode_counts_once_however_it_is_stored(tmp_path, max_bytes):
    writer = EpisodeDataset(tmp_path / "walk", capacity=10, mode="a")
    for number in range(1, 9):
        writer.append(made_episode(number, 4))
    assert EpisodeDataset.open(tmp_path / "walk", capacity=10).num_recorded == 8
    assert merge_shards(EpisodeStore(tmp_path / "walk"), max_bytes) > 0
    assert writer.refresh() == 0
    for dataset in (writer, EpisodeDataset.open(tmp_path / "walk", capacity=10)):
        assert dataset.num_recorded == 8
        assert [episode.info["number"] for episode in dataset] == [7, 8]


def test_of_a_merged_shard_that_is_passed_over_the_unknown_count(tmp_path):
    path = tmp_path / "walk"
    writer = EpisodeDataset(path, mode="a")
    writer.append(made_episode(1, 4))
    reader = EpisodeDataset.open(path, capacity=8)
    writer.append(made_episode(2, 4))
    merge_shards(EpisodeStore(path), 10**9)
    for number in (3, 4):
        writer.append(made_episode(number, 4))
    assert reader.refresh() == 2
    assert ([episode.info["number"] for episode in reader], reader.num_recorded) == ([3, 4], 4)


def test_what_is_known_leaves_room_for_what_is_new(tmp_path):
    path = tmp_path / "walk"
    writer = EpisodeDataset(path, mode="a")
    for number in (1, 2):
        writer.append(made_episode(number, 4))
    reader = EpisodeDataset.open(path, capacity=8)
    merge_shards(EpisodeStore(path), 10**9)
    write_shard(path / "shards", "0" * 20 + "-1-00000000", [made_episode(3, 4)])  # by a clock that is late
    assert reader.refresh() == 1
    assert [episode.info["number"] for episode in reader] == [2, 3]


def test_sliding_array_keeps_row_numbers_whatever_it_forgets():
    array = SlidingArray(np.dtype(np.int64), ())
    generator = np.random.default_rng(1)
    for _ in range(500):
        array.append(np.arange(array.stop, array.stop + int(generator.integers(1, 40))))
        array.forget_before(array.stop - int(generator.integers(0, 600)))
        numbers = np.arange(array.start, array.stop)
        assert np.array_equal(array.held, numbers)
        assert np.array_equal(array.take(numbers), numbers)
