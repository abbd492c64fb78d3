"""Shards that are merged: every episode stays, once, whoever reads or is killed meanwhile."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from filelock import FileLock
from made_episodes import assert_same_episode, made_episode
from sudden_death import survives

from worldmodel.data import EpisodeDataset
from worldmodel.data.merging import merge_shards
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

ALL = 10**9


def numbers_of(dataset):
    return [episode.info["number"] for episode in dataset]


@pytest.fixture
def path(tmp_path):
    """Six episodes in shards of their own."""
    path = tmp_path / "walk"
    dataset = EpisodeDataset(path, mode="a", info={"task": "walker-walk"})
    for number in range(1, 7):
        dataset.append(made_episode(number, number, terminated=number % 2 == 0, plan=True))
    return path


def test_merged_episodes_come_back_to_the_bit_and_in_order(path):
    before = list(EpisodeDataset.open(path))
    store = EpisodeStore(path)
    assert merge_shards(store, ALL) == 5
    assert len(store.shard_names()) == 1
    for in_memory in (True, False):
        after = list(EpisodeDataset.open(path, in_memory=in_memory))
        for found, expected in zip(after, before, strict=True):
            assert_same_episode(found, expected)
    assert merge_shards(store, ALL) == 0


def test_what_is_recorded_afterwards_comes_after(path):
    merge_shards(EpisodeStore(path), ALL)
    EpisodeDataset(path, mode="a").append(made_episode(7, 2, plan=True))
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6, 7]
    assert merge_shards(EpisodeStore(path), ALL) == 1  # what is merged can be merged again
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6, 7]


def test_shards_grow_no_larger_than_asked(path):
    store = EpisodeStore(path)
    sizes = [store.num_raw_bytes(store.header(name)) for name in store.shard_names()]
    assert merge_shards(store, sizes[0] + sizes[1]) > 0
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]
    assert 1 < len(store.shard_names()) < 6


def test_what_is_merged_at_once_fits_memory_however_well_it_is_compressed(tmp_path):
    store = EpisodeStore(tmp_path / "images", create=True)
    for number in range(1, 7):
        store.write([made_episode(number, 200, pixels=True)], compresses_pixels=True)
    raw = store.num_raw_bytes(store.header(store.shard_names()[0]))
    assert raw > 201 * 3 * 4 * 4
    assert store.num_bytes() < 5 * raw
    assert merge_shards(store, 2 * raw) == 3
    headers = [store.header(name) for name in store.shard_names()]
    assert [store.num_raw_bytes(header) for header in headers] == [2 * raw] * 3


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_reader_that_was_there_before_reads_nothing_twice(path, in_memory):
    expected = list(EpisodeDataset.open(path))
    reader = EpisodeDataset.open(path, in_memory=in_memory)
    merge_shards(EpisodeStore(path), ALL)
    assert reader.refresh() == 0
    for found, episode in zip(reader, expected, strict=True):  # whose shards are gone
        assert_same_episode(found, episode)


def test_what_is_known_is_not_read_again_because_it_was_merged(path, monkeypatch):
    reader = EpisodeDataset.open(path, in_memory=True)
    merge_shards(EpisodeStore(path), ALL)
    monkeypatch.setattr(EpisodeStore, "read", None)
    assert reader.refresh() == 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_however_often_is_merged_between_two_looks(path, in_memory):
    """A reader that saw single shards, then one that saw merged ones, then some of each."""
    readers = [EpisodeDataset.open(path, in_memory=in_memory)]
    writer = EpisodeDataset(path, mode="a")
    for number in (7, 8, 9):
        merge_shards(EpisodeStore(path), ALL)
        readers.append(EpisodeDataset.open(path, in_memory=in_memory))
        writer.append(made_episode(number, number, terminated=number % 2 == 0, plan=True))
        readers.append(EpisodeDataset.open(path, in_memory=in_memory))
    merge_shards(EpisodeStore(path), ALL)
    expected = list(EpisodeDataset.open(path))
    assert len(expected) == 9
    for reader in readers:
        reader.refresh()
        for found, episode in zip(reader, expected, strict=True):
            assert_same_episode(found, episode)
        batch = reader.gather(np.arange(reader.num_steps), 2)
        assert batch.reward.equal(EpisodeDataset.open(path).gather(np.arange(reader.num_steps), 2).reward)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_merged_between_listing_and_reading_is_read(path, monkeypatch, in_memory):
    listing = EpisodeStore.shard_names

    def merged_just_after(store):
        names = listing(store)
        monkeypatch.setattr(EpisodeStore, "shard_names", listing)
        merge_shards(EpisodeStore(path), ALL)
        return names

    monkeypatch.setattr(EpisodeStore, "shard_names", merged_just_after)
    assert numbers_of(EpisodeDataset.open(path, in_memory=in_memory)) == [1, 2, 3, 4, 5, 6]


def test_a_mapped_shard_that_was_deleted_is_told(path):
    reader = EpisodeDataset.open(path, in_memory=False)
    shutil.rmtree(EpisodeStore(path).shard_path(EpisodeStore(path).shard_names()[0]))
    with pytest.raises(DatasetError, match="is not there any more: open the dataset again"):
        reader.episode(0)


def test_a_merged_shard_without_its_manifest_costs_no_other_episode(path):
    merge_shards(EpisodeStore(path), ALL)
    EpisodeDataset(path, mode="a").append(made_episode(7, 3, plan=True))
    (next(path.glob("shards/*-merged")) / "shard.json").write_text("{")
    with pytest.warns(UserWarning, match="skipped a damaged shard"):
        assert numbers_of(EpisodeDataset(path, strict=False)) == [7]


@pytest.mark.parametrize("count", [5, 10**11, -1])
def test_a_manifest_that_counts_wrong_is_refused(path, count):
    merge_shards(EpisodeStore(path), ALL)
    manifest = next(path.glob("shards/*-merged")) / "shard.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"replaces": {"other": count}}))
    with pytest.raises(DatasetError, match=r"shard\.json"):
        EpisodeDataset.open(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
def test_whenever_merging_is_killed_each_episode_is_there_once(path):
    for fatal_call in range(1, 40):
        survived = survives(lambda: merge_shards(EpisodeStore(path), ALL), fatal_call)
        assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]
        if survived:
            break
    assert survived
    assert fatal_call > 5
    assert len(list((path / "shards").glob("[!.]*"))) == 1


@pytest.mark.parametrize("failing_call", [1, 3, 6])
def test_a_full_disk_stops_it_and_nothing_is_lost(path, monkeypatch, failing_call):
    num_calls, fsync = 0, os.fsync

    def full(descriptor):
        nonlocal num_calls
        num_calls += 1
        if num_calls >= failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match="is full"):
        merge_shards(EpisodeStore(path), ALL)
    monkeypatch.undo()
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]
    merge_shards(EpisodeStore(path), ALL)
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]


def test_only_one_merges(path):
    with FileLock(path / ".merge.lock"), pytest.raises(DatasetError, match="another process merges"):
        merge_shards(EpisodeStore(path), ALL)


def test_a_damaged_shard_stops_it_and_nothing_is_lost(path):
    store = EpisodeStore(path)
    damaged = store.shard_path(store.shard_names()[2]) / "action.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"cannot read .*action\.npy"):
        merge_shards(store, ALL)
    with pytest.warns(UserWarning, match="skipped a damaged shard"):
        left = EpisodeDataset(path, strict=False)
    assert numbers_of(left) == [1, 2, 4, 5, 6]


@pytest.mark.parametrize("before", ["header", "read"])
def test_a_shard_that_is_deleted_meanwhile_is_told(path, monkeypatch, before):
    victim, real = next((path / "shards").iterdir()), getattr(EpisodeStore, before)

    def late(store, of):
        shutil.rmtree(victim, ignore_errors=True)
        return real(store, of)

    monkeypatch.setattr(EpisodeStore, before, late)
    with pytest.raises(DatasetError, match=f"{victim.name} was deleted meanwhile: compact again"):
        merge_shards(EpisodeStore(path), ALL)
    assert merge_shards(EpisodeStore(path), ALL) == 4
    assert len(EpisodeDataset.open(path)) == 5


def test_what_is_replaced_may_be_deleted_meanwhile(path, monkeypatch):
    ignored_by = EpisodeStore.ignored_by

    def deletes_one(store, name):
        ignored = ignored_by(store, name)
        if ignored:
            shutil.rmtree(store.shard_path(ignored[0]), ignore_errors=True)
        return ignored

    monkeypatch.setattr(EpisodeStore, "ignored_by", deletes_one)
    assert merge_shards(EpisodeStore(path), ALL) == 5
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]
    assert len(list((path / "shards").iterdir())) == 1


@pytest.mark.parametrize("name", ["observation.state.npy", "reward.npy", "episodes.json"])
@pytest.mark.parametrize("place", [20, -3])
def test_a_flipped_bit_is_noticed(path, name, place):
    shard = EpisodeStore(path).shard_path(EpisodeStore(path).shard_names()[1])
    content = bytearray((shard / name).read_bytes())
    content[place] ^= 1
    (shard / name).write_bytes(content)
    with pytest.raises(DatasetError, match=f"cannot read .*{name}"):
        EpisodeDataset.open(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"checksums": 3, "replaces": {}}',
        '{"replaces": {"a": "b"}}',
        '{"checksums": {}, "replaces": {}}',
    ],
)
def test_a_damaged_manifest_is_named(path, content):
    shard = EpisodeStore(path).shard_path(EpisodeStore(path).shard_names()[0])
    (shard / "shard.json").write_text(content)
    with pytest.raises(DatasetError, match=r"cannot read .*shard\.json"):
        EpisodeDataset.open(path)


def test_the_first_schema_is_read_and_goes_on_as_the_second(path):
    description = json.loads((path / "dataset.json").read_text()) | {"schema_version": 1}
    (path / "dataset.json").write_text(json.dumps(description))
    for manifest in path.glob("shards/*/shard.json"):
        manifest.unlink()
    assert numbers_of(EpisodeDataset.open(path)) == [1, 2, 3, 4, 5, 6]
    EpisodeDataset(path, mode="a").append(made_episode(7, 2, plan=True))
    assert json.loads((path / "dataset.json").read_text())["schema_version"] == 2
    assert merge_shards(EpisodeStore(path), ALL) == 6
    found = EpisodeDataset.open(path)
    assert numbers_of(found) == [1, 2, 3, 4, 5, 6, 7]
    assert np.isfinite(found.episode(3).reward).all()
