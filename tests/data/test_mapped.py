"""A dataset that is looked at through memory maps gives what one in memory gives, in little memory."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from made_episodes import assert_same_episode, assert_window, made_episode, starts_of

from worldmodel.data import EpisodeDataset, mapped_arena
from worldmodel.data import dataset as dataset_module
from worldmodel.data.shard import write_shard
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

LENGTHS = [1, 2, 3, 4, 1, 7]


@pytest.fixture
def episodes():
    return [
        made_episode(number, length, terminated=number % 2 == 0, pixels=True, plan=True)
        for number, length in enumerate(LENGTHS, start=1)
    ]


@pytest.fixture
def path(tmp_path, episodes):
    """Shards of 1, 1, 3 and 1 episodes."""
    path = tmp_path / "walk"
    dataset = EpisodeDataset(path, mode="a")
    for episode in episodes[:2]:
        dataset.append(episode)
    for name, part in (("9" * 20 + "-a", episodes[2:5]), ("9" * 20 + "-b", episodes[5:])):
        write_shard(path / "shards", name, part)
    return path


@pytest.mark.parametrize("horizon", [1, 3, 10])
@pytest.mark.parametrize("max_num_maps", [1, 500])
def test_every_window_is_what_the_rule_says(path, episodes, horizon, max_num_maps, monkeypatch):
    monkeypatch.setattr(mapped_arena, "_MAX_NUM_MAPS", max_num_maps)
    dataset = EpisodeDataset.open(path, in_memory=False)
    starts = starts_of(episodes)
    assert (len(dataset), dataset.num_steps) == (len(episodes), len(starts))
    order = np.random.default_rng(0).permutation(len(starts))  # shards in turns, not one after the other
    batch = dataset.gather(order, horizon)
    for row, index in enumerate(order):
        assert_window(batch, row, *starts[index])
    for start in range(len(starts)):  # and out of one shard at a time
        assert_window(dataset.gather(np.array([start]), horizon), 0, *starts[start])


@pytest.mark.parametrize("num_episodes", [0, 2])
def test_the_same_chance_gives_the_same_batch_as_in_memory(path, num_episodes):
    batches = [
        EpisodeDataset.open(path, in_memory=in_memory).sample(
            32, 3, np.random.default_rng(1), num_episodes=num_episodes
        )
        for in_memory in (True, False)
    ]
    for name in ("state", "pixels"):
        assert batches[0].observation[name].equal(batches[1].observation[name])
    assert batches[0].action.equal(batches[1].action)


def test_episodes_come_back_to_the_bit(path, episodes):
    for found, expected in zip(EpisodeDataset.open(path, in_memory=False), episodes, strict=True):
        assert_same_episode(found, expected)


@pytest.mark.parametrize("options", [{"in_memory": True}, {"in_memory": False}, {"capacity": 9}])
def test_returns_are_those_of_the_episodes(path, episodes, options):
    dataset = EpisodeDataset.open(path, **options)
    expected = [episode.total_reward for episode in episodes]
    assert dataset.returns() == expected[-len(dataset) :]
    assert (len(dataset) < len(episodes)) == ("capacity" in options)
    if dataset.in_memory is False:
        for column in path.glob("shards/*/observation.pixels.npy"):
            column.unlink()  # not looked at
        assert EpisodeDataset.open(path, in_memory=False).returns() == expected


def test_no_episode_has_no_return():
    assert EpisodeDataset().returns() == []


def test_what_others_record_since_is_taken_up(path):
    dataset = EpisodeDataset.open(path, in_memory=False)
    write_shard(path / "shards", "9" * 20 + "-c", [made_episode(9, 3, pixels=True, plan=True)])
    assert dataset.refresh() == 1
    assert dataset.episode(-1).info["number"] == 9
    assert dataset.gather(np.array([dataset.num_steps - 3]), 2).reward[0].tolist() == [9000.5, 9001.5]


def test_a_truncated_file_is_named_when_it_is_looked_at(path):
    shard = sorted((path / "shards").iterdir())[2]
    file = shard / "action.npy"
    file.write_bytes(file.read_bytes()[:-1])
    dataset = EpisodeDataset.open(path, in_memory=False)
    dataset.episode(0)
    with pytest.raises(DatasetError, match=r"cannot read .*action\.npy: it has \d+ bytes instead of"):
        dataset.episode(2)


def test_the_map_that_was_used_longest_ago_is_closed(path, monkeypatch):
    monkeypatch.setattr(mapped_arena, "_MAX_NUM_MAPS", 2)
    opened, real = [], mapped_arena.map_column

    def noted(shard, *arguments):
        opened.append(shard)
        return real(shard, *arguments)

    monkeypatch.setattr(mapped_arena, "map_column", noted)
    dataset = EpisodeDataset.open(path, in_memory=False)
    steps = np.array(
        [[0], [1], [0], [3], [0]]
    )  # of the first, second and third shard; rewards alone are mapped
    arena = dataset._arena
    for step in steps:
        arena.take("reward", arena.rows_of(step, 1)[0])
    assert [sorted(path.glob("shards/*")).index(shard) for shard in opened] == [0, 1, 2]


@pytest.mark.parametrize(
    ("soft", "hard", "is_allowed", "num_maps", "raised"),
    [
        (10, 10, True, 5, 10),
        (10, 20, True, 10, 20),
        (10, 10**6, True, 12, 24),
        (10, -1, True, 12, 24),
        (10, 10**6, False, 5, 24),
        (10**6, 10**6, True, 12, None),
        (-1, -1, True, 12, None),
    ],
)
def test_the_limit_of_files_is_raised_and_half_is_left_to_others(
    path, monkeypatch, soft, hard, is_allowed, num_maps, raised
):
    resource = pytest.importorskip("resource")
    assert resource.RLIM_INFINITY == -1
    asked = []

    def set_limit(kind, limits):
        asked.append(limits)
        if not is_allowed:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    monkeypatch.setattr(mapped_arena, "_MAX_NUM_MAPS", 12)
    dataset = EpisodeDataset.open(path, in_memory=False)
    assert len(list(dataset)) == 6  # in 4 shards of 6 columns
    assert len(dataset._arena._maps) == num_maps
    assert asked == ([] if raised is None else [(raised, hard)])


def test_an_heir_with_other_episodes_is_none(path):
    dataset = EpisodeDataset.open(path, in_memory=False)
    gone = min(path.glob("shards/*"))
    shutil.rmtree(gone)
    other = [made_episode(number, 5, pixels=True, plan=True) for number in (8, 9)]
    write_shard(path / "shards", f"{gone.name}-merged", other, replaces={gone.name: 1, "another": 1})
    with pytest.raises(DatasetError, match="is not there any more: open the dataset again"):
        dataset.episode(0)


def test_memory_decides_where_nobody_does(path, monkeypatch):
    assert EpisodeDataset.open(path).in_memory
    store = EpisodeStore(path)
    size = sum(store.num_raw_bytes(store.header(name)) for name in store.shard_names())
    monkeypatch.setattr(dataset_module, "available_memory_bytes", lambda: 2.0 * size - 1)
    assert not EpisodeDataset.open(path).in_memory
    assert EpisodeDataset(path, mode="a").in_memory
    with pytest.raises(DatasetError, match="is in memory: leave out in_memory"):
        EpisodeDataset(path, mode="a", in_memory=False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_dataset_larger_than_the_memory_allowed_can_be_learned_from(tmp_path):
    """60 MB of images, 40 MB of further memory: in memory it fails, mapped it does not."""
    path = tmp_path / "images"
    many = made_episode(1, 5000, pixels=True)
    pixels = np.zeros((5001, 3, 64, 64), np.uint8)
    pixels[:] = (np.arange(5001) % 256).astype(np.uint8)[:, None, None, None]
    EpisodeDataset(path, mode="a").append(
        type(many)(
            observation={"pixels": pixels},
            action=many.action,
            reward=many.reward,
            terminated=False,
            truncated=True,
        )
    )
    code = f"""
import resource, sys
import numpy as np
from worldmodel.data import EpisodeDataset
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 40_000_000,) * 2)
try:
    dataset = EpisodeDataset.open({str(path)!r}, in_memory=sys.argv[1] == "memory")
    chance = np.random.default_rng(0)
    for _ in range(200):
        batch = dataset.sample(16, 4, chance)
    steps = (batch.reward[:, 0].numpy() - 1000.5).astype(int)
    assert (batch.observation["pixels"][:, 0, 0, 0, 0].numpy() == steps % 256).all()
    print("learned")
except MemoryError:
    print("no memory")
"""
    for where, expected in (("memory", "no memory"), ("mapped", "learned")):
        process = subprocess.run(
            [sys.executable, "-c", code, where], capture_output=True, text=True, check=True
        )
        assert process.stdout.strip() == expected, process.stderr
