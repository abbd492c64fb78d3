import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import assert_window, code, made_episode, starts_of

from worldmodel.data import EpisodeDataset
from worldmodel.errors import DatasetError

HORIZON = 3
LENGTHS = [1, 2, HORIZON, HORIZON + 1, 1, 7]


def dataset_of(episodes, capacity=None):
    dataset = EpisodeDataset(capacity=capacity)
    for episode in episodes:
        dataset.append(episode)
    return dataset


@pytest.mark.parametrize("horizon", [1, HORIZON, 10])
@pytest.mark.parametrize("terminated", [True, False])
def test_every_window_is_what_the_rule_says(horizon, terminated):
    episodes = [
        made_episode(number, length, terminated=terminated, pixels=True, plan=True)
        for number, length in enumerate(LENGTHS, start=1)
    ]
    dataset = dataset_of(episodes)
    starts = starts_of(episodes)
    assert dataset.num_steps == len(starts) == sum(LENGTHS)
    batch = dataset.gather(np.arange(len(starts)), horizon)
    for row, (episode, start) in enumerate(starts):
        assert_window(batch, row, episode, start)


def test_last_window_of_an_episode_written_out():
    dataset = dataset_of([made_episode(1, 2, terminated=True), made_episode(2, 4)])
    batch = dataset.gather(np.array([1]), 3)
    assert batch.observation["state"][0, :, 0].tolist() == [code(1, 1), code(1, 2), code(1, 2), code(1, 2)]
    assert batch.reward[0].tolist() == [code(1, 1) + 0.5, 0, 0]
    assert batch.action[0, :, 0].tolist() == [code(1, 1) + 0.25, 0, 0]
    assert batch.valid[0].tolist() == [True, False, False]
    assert batch.terminated[0].tolist() == [True, False, False]


def test_terminated_shows_only_where_its_step_is_in_the_window():
    dataset = dataset_of([made_episode(1, 4, terminated=True)])
    batch = dataset.gather(np.arange(4), 2)
    assert batch.terminated.tolist() == [[False, False], [False, False], [False, True], [True, False]]


def test_batch_has_the_documented_shapes_and_dtypes():
    batch = dataset_of([made_episode(1, 9, pixels=True, plan=True)]).sample(5, 4, np.random.default_rng(0))
    assert (batch.batch_size, batch.horizon) == (5, 4)
    assert batch.observation["state"].shape == (5, 5, 2)
    assert batch.observation["pixels"].shape == (5, 5, 3, 4, 4)
    assert batch.action.shape == (5, 4, 3)
    assert batch.extra["plan_mean"].shape == (5, 4, 5, 3)
    assert batch.extra["num_iterations"].shape == (5, 4)
    assert batch.observation["state"].dtype == batch.action.dtype == batch.reward.dtype == torch.float32
    assert batch.observation["pixels"].dtype == torch.uint8
    assert batch.terminated.dtype == batch.valid.dtype == torch.bool


def test_writing_to_a_batch_leaves_the_dataset_alone():
    dataset = dataset_of([made_episode(1, 5)])
    first = dataset.gather(np.arange(5), 2)
    for tensor in (first.observation["state"], first.action, first.reward, first.valid, first.terminated):
        tensor.zero_()
    assert_window(dataset.gather(np.array([2]), 2), 0, made_episode(1, 5), 2)


def test_batch_moves_to_a_device_whole():
    batch = dataset_of([made_episode(1, 5, pixels=True, plan=True)]).gather(np.arange(5), 2).to("meta")
    tensors = [*batch.observation.values(), *batch.extra.values(), batch.action, batch.reward]
    assert all(tensor.is_meta for tensor in [*tensors, batch.terminated, batch.valid])


def test_windows_gives_every_window_once_in_order():
    episodes = [made_episode(number, length) for number, length in enumerate(LENGTHS, start=1)]
    batches = list(dataset_of(episodes).windows(2, batch_size=4))
    assert [batch.batch_size for batch in batches] == [4, 4, 4, 4, 2]
    rewards = torch.cat([batch.reward[:, 0] for batch in batches])
    assert rewards.tolist() == [episode.reward[step] for episode, step in starts_of(episodes)]


def test_the_same_generator_gives_the_same_batches():
    dataset = dataset_of([made_episode(1, 50), made_episode(2, 30)])
    left, right = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(3):
        a, b = dataset.sample(16, 3, left), dataset.sample(16, 3, right)
        assert torch.equal(a.observation["state"], b.observation["state"])
    assert not torch.equal(dataset.sample(16, 3, left).reward, a.reward)


def test_every_step_is_as_likely_a_start_as_any_other():
    episodes = [made_episode(number, length) for number, length in enumerate([1, 2, 5, 40, 1, 11], start=1)]
    dataset = dataset_of(episodes)
    num_draws = 60_000
    rewards = dataset.sample(num_draws, 2, np.random.default_rng(0)).reward[:, 0].numpy()
    _, counts = np.unique(rewards, return_counts=True)
    assert len(counts) == dataset.num_steps == 60
    chi_square = ((counts - num_draws / 60) ** 2 / (num_draws / 60)).sum()
    assert chi_square < 98  # The 99.9 % point of 59 degrees of freedom.


def test_bad_requests_say_what_to_give():
    generator = np.random.default_rng(0)
    with pytest.raises(DatasetError, match="append an episode first"):
        EpisodeDataset().sample(4, 2, generator)
    dataset = dataset_of([made_episode(1, 5)])
    with pytest.raises(DatasetError, match="horizon is 0"):
        dataset.sample(4, 0, generator)
    with pytest.raises(DatasetError, match="batch_size is 0"):
        dataset.sample(0, 2, generator)
    for step in (-1, 5):
        with pytest.raises(DatasetError, match="from 0 up to 5"):
            dataset.gather(np.array([step]), 2)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    spare=st.none() | st.integers(0, 20),
    horizon=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_history_of_appends_gives_true_windows_of_the_episodes_remembered(lengths, spare, horizon, seed):
    generator = np.random.default_rng(seed)
    capacity = None if spare is None else max(lengths) + spare
    dataset = EpisodeDataset(capacity=capacity)
    remembered = []
    for number, length in enumerate(lengths, start=1):
        episode = made_episode(number, length, terminated=bool(generator.integers(2)))
        dataset.append(episode)
        remembered.append(episode)
        while capacity is not None and sum(kept.num_steps for kept in remembered) > capacity:
            remembered.pop(0)
        starts = starts_of(remembered)
        assert (len(dataset), dataset.num_steps) == (len(remembered), len(starts))
        steps = generator.integers(len(starts), size=4)
        batch = dataset.gather(steps, horizon)
        for row, step in enumerate(steps):
            assert_window(batch, row, *starts[step])


@pytest.mark.parametrize("capacity", [None, 12])
def test_a_batch_can_be_of_few_episodes(capacity):
    dataset = dataset_of([made_episode(number, 4) for number in range(1, 8)], capacity)
    generator, seen = np.random.default_rng(0), set()
    for _ in range(40):
        state = dataset.sample(32, 2, generator, num_episodes=2).observation["state"][:, 0, 0]
        episodes = {int(number) for number in np.floor_divide(state.numpy(), code(1, 0))}
        assert len(episodes) <= 2
        seen |= episodes
    kept = 7 if capacity is None else 3
    assert len(seen) == kept


def test_steps_of_few_episodes_are_drawn_as_often_as_the_others():
    dataset = dataset_of([made_episode(1, 2), made_episode(2, 6)])
    generator = np.random.default_rng(0)
    states = [
        dataset.sample(1, 1, generator, num_episodes=1).observation["state"][0, 0, 0] for _ in range(800)
    ]
    counts = np.unique(states, return_counts=True)[1]
    assert len(counts) == 8
    assert counts.min() > 60
