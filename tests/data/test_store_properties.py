"""A dataset on disk against a list in memory: any order of writing, merging, reading and deleting."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from made_episodes import assert_same_episode, assert_window, made_episode, starts_of

from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.columns import COLUMN_DTYPES
from worldmodel.data.merging import merge_shards
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


class StoreMachine(RuleBasedStateMachine):
    """What a dataset holds is what was written and not deleted, in order, however it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "data"
        self.expected: list[Episode] = []
        self.number = 0
        self.watching: EpisodeDataset | None = None
        self.seen: list[Episode] = []

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def _new(self, length: int, terminated: bool) -> Episode:
        self.number += 1
        return made_episode(self.number, length, terminated=terminated, pixels=True)

    @rule(
        lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        terminated=st.booleans(),
        packs=st.booleans(),
    )
    def write_shard(self, lengths, terminated, packs):
        episodes = [self._new(length, terminated) for length in lengths]
        EpisodeStore(self.path, create=True).write(episodes, compresses_pixels=packs)
        self.expected += episodes

    @rule(length=st.integers(1, 5))
    def append(self, length):
        dataset = EpisodeDataset(self.path, mode="a")
        assert len(dataset) == len(self.expected)
        episode = self._new(length, True)
        dataset.append(episode)
        self.expected.append(episode)

    @precondition(lambda self: self.expected)
    @rule(max_bytes=st.sampled_from([1, 400, 2000, 10**6]))
    def merge(self, max_bytes):
        merge_shards(EpisodeStore(self.path), max_bytes)

    @precondition(lambda self: self.expected)
    @rule(in_memory=st.booleans())
    def open_and_watch(self, in_memory):
        self.watching = EpisodeDataset.open(self.path, in_memory=in_memory)
        self.seen = list(self.expected)

    @precondition(lambda self: self.watching is not None)
    @rule()
    def refresh(self):
        assert self.watching is not None
        assert self.watching.refresh() == len(self.expected) - len(self.seen)
        self.seen = list(self.expected)

    @precondition(lambda self: self.watching is not None and self.seen)
    @rule(seed=st.integers(0, 99), horizon=st.integers(1, 4))
    def look_at_windows(self, seed, horizon):
        assert self.watching is not None
        starts = starts_of(self.seen)
        steps = np.random.default_rng(seed).integers(len(starts), size=3)
        batch = self.watching.gather(steps, horizon)
        for row, step in enumerate(steps):
            assert_window(batch, row, *starts[step])

    @precondition(lambda self: self.expected)
    @rule(capacity=st.integers(5, 30))
    def remember_the_newest(self, capacity):
        dataset = EpisodeDataset.open(self.path, capacity=capacity)
        kept = list(self.expected)
        while sum(episode.num_steps for episode in kept) > capacity:
            kept.pop(0)
        assert [episode.info["number"] for episode in dataset] == [episode.info["number"] for episode in kept]
        assert dataset.num_recorded == len(self.expected)

    @invariant()
    def all_of_it_is_there(self):
        if self.expected:
            infos = [info["number"] for info in EpisodeStore(self.path).episode_infos()]
            assert infos == [episode.info["number"] for episode in self.expected]
            for found, episode in zip(EpisodeDataset.open(self.path), self.expected, strict=True):
                assert_same_episode(found, episode)


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=8, deadline=None)
TestStore = StoreMachine.TestCase


def arrays(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
    return hnp.arrays(dtype, shape, elements=finite)


@st.composite
def any_episodes(draw) -> list[Episode]:
    """Episodes of the same columns, with any numbers in any dtype and facts of any kind."""
    state_dim, action_dim = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    has_pixels = draw(st.booleans())
    names = st.text("abcXYZ_0", min_size=1, max_size=8).map(lambda text: f"c{text}")
    kinds = st.tuples(st.sampled_from(COLUMN_DTYPES), hnp.array_shapes(max_dims=2, max_side=2))
    extras = draw(st.dictionaries(names, kinds, max_size=2))
    facts = (
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8) | st.floats(-1e9, 1e9)
    )
    made = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 4))
        observation = {"state": draw(arrays("float32", (length + 1, state_dim)))}
        if has_pixels:
            observation["pixels"] = draw(arrays("uint8", (length + 1, 3, 2, 2)))
        made.append(
            Episode(
                observation=observation,
                action=draw(arrays("float32", (length, action_dim))),
                reward=draw(arrays("float32", (length,))),
                extra={
                    name: draw(arrays(dtype, (length, *shape))) for name, (dtype, shape) in extras.items()
                },
                terminated=draw(st.booleans()),
                truncated=draw(st.booleans()),
                info=draw(st.dictionaries(st.text(max_size=5), facts, max_size=3)),
            )
        )
    return made


@settings(max_examples=25, deadline=None)
@given(episodes=any_episodes(), packs=st.booleans(), in_memory=st.booleans())
def test_any_episodes_come_back_to_the_bit(episodes, packs, in_memory):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        store = EpisodeStore(path, create=True)
        store.write(episodes[:1], compresses_pixels=packs)
        if episodes[1:]:
            store.write(episodes[1:])
        for found, episode in zip(EpisodeDataset.open(path, in_memory=in_memory), episodes, strict=True):
            assert_same_episode(found, episode)
        merge_shards(EpisodeStore(path), 10**6)
        for found, episode in zip(EpisodeDataset.open(path, in_memory=in_memory), episodes, strict=True):
            assert_same_episode(found, episode)


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255), in_memory=st.just(True))
def test_any_changed_byte_of_a_shard_is_noticed(place, change, in_memory):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        EpisodeStore(path, create=True).write([made_episode(1, 3, pixels=True)])
        files = sorted(file for file in path.glob("shards/*/*") if file.name != "shard.json")
        sizes = np.cumsum([file.stat().st_size for file in files])
        place %= int(sizes[-1])
        index = int(np.searchsorted(sizes, place, side="right"))
        content = bytearray(files[index].read_bytes())
        content[place - (int(sizes[index - 1]) if index else 0)] ^= change
        files[index].write_bytes(bytes(content))
        with pytest.raises(DatasetError, match="Delete the directory"):
            EpisodeDataset.open(path, in_memory=in_memory)
