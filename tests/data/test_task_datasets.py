"""Batches of several tasks: equal shares, padded with zeros, the same whoever draws which part."""

import numpy as np
import pytest
import torch
from made_linear import two_tasks

from worldmodel.errors import DatasetError


def test_a_batch_has_as_many_windows_of_each_task_padded_with_zeros():
    batch = two_tasks().sample(10, 3, np.random.default_rng(0))
    task = batch.observation["task"]
    assert task.shape == (10, 4)
    assert task[:, 0].tolist() == [0, 1] * 5
    assert (task == task[:, :1]).all()
    assert batch.observation["state"].shape == (10, 4, 3)
    assert batch.action.shape == (10, 3, 2)
    small = batch.observation["state"][1::2], batch.action[1::2]
    for padded in small:
        assert (padded[..., 1:] == 0).all()
        assert (padded[..., 0] != 0).any()
    assert (batch.observation["state"][::2][..., 1:] != 0).any()
    assert (batch.reward[1::2] <= 0).all()


def test_windows_are_those_that_each_dataset_gives_alone():
    tasks = two_tasks()
    together = tasks.sample(8, 3, np.random.default_rng(3))
    chance = np.random.default_rng(3)
    for index, dataset in enumerate(tasks.datasets):
        alone = dataset.sample(4, 3, chance)
        rows = slice(index, None, 2)
        state_dim, action_dim = alone.observation["state"].shape[-1], alone.action.shape[-1]
        assert torch.equal(together.observation["state"][rows][..., :state_dim], alone.observation["state"])
        assert torch.equal(together.action[rows][..., :action_dim], alone.action)
        for name in ("reward", "terminated", "valid"):
            assert torch.equal(getattr(together, name)[rows], getattr(alone, name))


def test_the_parts_of_several_processes_make_the_whole_batch():
    tasks = two_tasks()
    whole = tasks.sample(8, 3, np.random.default_rng(5))
    parts = [tasks.sample(8, 3, np.random.default_rng(5), part=part) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole.action, torch.cat([part.action for part in parts]))
    for key, value in whole.observation.items():
        assert torch.equal(value, torch.cat([part.observation[key] for part in parts]))


@pytest.mark.parametrize(("size", "part"), [(7, slice(None)), (8, slice(0, 3)), (8, slice(1, 5))])
def test_uneven_shares_are_refused(size, part):
    with pytest.raises(DatasetError, match="no equal shares of 2 tasks"):
        two_tasks().sample(size, 3, np.random.default_rng(0), part=part)


def test_it_counts_and_lists_all_episodes():
    tasks = two_tasks(3, num_steps=4)
    assert (len(tasks), tasks.num_steps) == (6, 24)
    assert [episode.action.shape[1] for episode in tasks] == [2, 2, 2, 1, 1, 1]
