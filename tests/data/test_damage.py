"""Shards that are damaged: named, and passed over where that is asked for."""

import json
import os

import numpy as np
import pytest
from made_episodes import made_episode, write

from worldmodel.data import EpisodeDataset
from worldmodel.errors import DatasetError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "walk"


def shards(path):
    return sorted((path / "shards").iterdir())


def truncate(file):
    file.write_bytes(file.read_bytes()[:-5])


def lengthen(file):
    file.write_bytes(file.read_bytes() + b"\0")


def garble_header(file):
    content = bytearray(file.read_bytes())
    content[20:40] = b"\xff" * 20
    file.write_bytes(content)


def save_other_shape(file):
    np.save(file, np.zeros((3, 7), np.float32))


def save_pickle(file):
    np.save(file, np.array([{"evil": 1}], dtype=object), allow_pickle=True)


def save_npz(file):
    with open(file, "wb") as stream:
        np.savez(stream, action=np.zeros(3))


def zero_out(file):
    file.write_bytes(b"\0" * file.stat().st_size)


@pytest.mark.parametrize("column", ["action", "reward", "observation.state", "extra.plan_mean"])
@pytest.mark.parametrize(
    "damage",
    [truncate, lengthen, garble_header, save_other_shape, save_pickle, save_npz, zero_out, os.unlink],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_column_is_named_and_can_be_passed_over(path, column, damage):
    write(path, [1, 2, 3], plan=True)
    damaged = shards(path)[1]
    damage(damaged / f"{column}.npy")
    with pytest.raises(DatasetError, match=rf"{column}\.npy.*Delete the directory .*{damaged.name}"):
        EpisodeDataset.open(path)
    with pytest.warns(UserWarning, match="skipped a damaged shard"):
        dataset = EpisodeDataset.open(path, strict=False)
    assert [episode.info["number"] for episode in dataset] == [1, 3]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '[{"num_steps": 5}]', '[{"num_steps": -5}]'])
def test_a_damaged_list_of_episodes_is_named(path, text, in_memory):
    write(path, [1])
    (shards(path)[0] / "episodes.json").write_text(text)
    (shards(path)[0] / "shard.json").unlink()  # which has the checksum
    with pytest.raises(DatasetError, match=r"episodes\.json.*Delete the directory"):
        EpisodeDataset.open(path, in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 2**70}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"terminated": "no"}, "'terminated' of an episode is neither true nor false"),
        ({"truncated": 1}, "'truncated' of an episode is neither true nor false"),
        ({"info": []}, "'info' of an episode is no object"),
    ],
)
def test_facts_that_cannot_be_are_refused(path, change, message, in_memory):
    write(path, [1])
    file = shards(path)[0] / "episodes.json"
    file.write_text(json.dumps([json.loads(file.read_text())[0] | change]))
    (shards(path)[0] / "shard.json").unlink()
    with pytest.raises(DatasetError, match=rf"episodes\.json.*{message}"):
        EpisodeDataset.open(path, in_memory=in_memory)


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@pytest.mark.parametrize("in_memory", [True, False])
def test_any_flipped_byte_of_a_header_is_noticed(path, in_memory):
    write(path, [1])
    (shards(path)[0] / "shard.json").unlink()  # Its checksum would notice it first.
    file = shards(path)[0] / "reward.npy"
    content = file.read_bytes()
    header_bytes = len(content) - made_episode(1, 4).reward.nbytes
    for position in range(header_bytes):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x15]) + content[position + 1 :])
        with pytest.raises(DatasetError, match=r"reward\.npy"):
            list(EpisodeDataset.open(path, in_memory=in_memory))


def test_nan_in_a_shard_is_refused(path):
    write(path, [1])
    np.save(shards(path)[0] / "reward.npy", np.full(4, np.nan, np.float32))
    (shards(path)[0] / "shard.json").unlink()  # which has the checksum
    with pytest.raises(DatasetError, match=r"reward is nan.*Delete the directory"):
        EpisodeDataset.open(path)
