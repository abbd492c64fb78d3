"""Compressed images come back to the bit, a window at a time, and damage is noticed."""

import tracemalloc
import zlib

import numpy as np
import pytest
from made_episodes import assert_same_episode, assert_window, made_episode, starts_of

from worldmodel.data import EpisodeDataset
from worldmodel.data.array_file import write_array
from worldmodel.data.compressed import CompressedRows
from worldmodel.data.merging import merge_shards
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


@pytest.fixture
def episodes():
    return [made_episode(number, length, pixels=True) for number, length in enumerate((3, 1, 6), start=1)]


@pytest.fixture
def path(tmp_path, episodes):
    """One shard of two compressed episodes, and one of one that is not."""
    path = tmp_path / "images"
    store = EpisodeStore(path, create=True)
    store.write(episodes[:2], compresses_pixels=True)
    store.write(episodes[2:])
    return path


def compressed_shard(path):
    return next(path.glob("shards/*/observation.pixels.zlib")).parent


@pytest.mark.parametrize("in_memory", [True, False])
def test_episodes_and_windows_are_those_that_were_written(path, episodes, in_memory):
    dataset = EpisodeDataset.open(path, in_memory=in_memory)
    for found, expected in zip(dataset, episodes, strict=True):
        assert_same_episode(found, expected)
    starts = starts_of(episodes)
    batch = dataset.gather(np.arange(len(starts)), 4)
    for row, (episode, start) in enumerate(starts):
        assert_window(batch, row, episode, start)
    assert_window(dataset.gather(np.array([1]), 4), 0, *starts[1])  # of one shard alone


def test_images_with_patterns_get_smaller(tmp_path):
    sizes = []
    for compresses in (False, True):
        store = EpisodeStore(tmp_path / str(compresses), create=True)
        episode = made_episode(1, 50, pixels=True)
        wide = {"pixels": np.repeat(episode.observation["pixels"], 100, axis=3)}
        store.write(
            [
                type(episode)(
                    observation=wide,
                    action=episode.action,
                    reward=episode.reward,
                    terminated=False,
                    truncated=True,
                )
            ],
            compresses_pixels=compresses,
        )
        sizes.append(store.num_bytes())
        (name,) = store.shard_names()
        assert store.num_raw_bytes(store.header(name)) == 51 * 3 * 4 * 400 + 50 * 4 * 4
    assert sizes[1] < 0.2 * sizes[0]


def test_merged_shards_stay_compressed(path, episodes):
    store = EpisodeStore(path)
    assert merge_shards(store, 10**9) == 1
    assert compressed_shard(path).name.endswith("-merged")
    for found, expected in zip(EpisodeDataset.open(path), episodes, strict=True):
        assert_same_episode(found, expected)


@pytest.mark.parametrize("name", ["observation.pixels.zlib", "observation.pixels.offsets"])
def test_a_flipped_bit_is_noticed(path, name):
    file = compressed_shard(path) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"cannot read .*observation\.pixels\.zlib"):
        EpisodeDataset.open(path)


def broken_rows(shard, rows):
    """Compressed rows as they should not be, with offsets that fit them; without checksums."""
    contents = [zlib.compress(row) if isinstance(row, bytes) else row[0] for row in rows]
    (shard / "observation.pixels.zlib").write_bytes(b"".join(contents))
    (shard / "observation.pixels.offsets").unlink()
    ends = np.cumsum([0, *map(len, contents)]).astype(np.int64)
    write_array(shard / "observation.pixels.offsets", [ends])
    (shard / "shard.json").unlink()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"\0" * 47, "row 2 does not hold 48 bytes"),
        (b"\0" * 10_000_000, "row 2 does not hold 48 bytes"),  # a bomb, which is not blown up
        ([b"nonsense"], "row 2 cannot be decompressed"),
        ([zlib.compress(b"\0" * 48)[:-3]], "row 2 does not hold 48 bytes"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_that_are_wrong_are_refused(path, row, expected, in_memory):
    good = b"\0" * 48
    broken_rows(compressed_shard(path), [good, good, row, good, good, good])
    with pytest.raises(DatasetError, match=expected):
        EpisodeDataset.open(path, in_memory=in_memory).gather(np.array([0]), 4)


def test_a_bomb_is_not_blown_up(path):
    shard = compressed_shard(path)
    good, bomb = b"\0" * 48, b"\0" * 10_000_000
    broken_rows(shard, [bomb, good, good, good, good, good])
    rows = CompressedRows(shard, "observation.pixels", np.dtype(np.uint8), (6, 3, 4, 4))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="row 0 does not hold 48 bytes"):
            rows[np.array([0])]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_offsets_must_rise_to_the_end_of_the_file(path):
    shard = compressed_shard(path)
    (shard / "shard.json").unlink()
    with (shard / "observation.pixels.zlib").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match="its offsets do not fit"):
        EpisodeDataset.open(path)
