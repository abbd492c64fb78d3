"""What the tests of every format in HDF5 need."""

from dataclasses import replace

import pytest
from made_episodes import made_episode

from worldmodel.data import EpisodeDataset
from worldmodel.errors import DatasetError

INFO = {"task": "walker-walk", "control_period_s": 0.025, "made_with": {"packages": {"mujoco": "3.11.0"}}}


def dataset_of(episodes):
    dataset = EpisodeDataset(info=INFO)
    for episode in episodes:
        dataset.append(episode)
    return dataset


def some_episodes(**options):
    """One that was cut short, one that ended, one of a single step that did neither."""
    return [
        made_episode(1, 5, **options),
        made_episode(2, 3, terminated=True, **options),
        replace(made_episode(3, 1, **options), truncated=False),
    ]


def export_as(found, path, episodes):
    """Write a dataset in a format; returns where it is."""
    found.write(path, dataset_of(episodes), INFO)
    return path


def read_all_of(found, path):
    info, episodes = found.read(path)
    return info, list(episodes)


def assert_refused_by(found, path, match):
    """One line that names the file and the reason."""
    with pytest.raises(DatasetError, match=match) as caught:
        read_all_of(found, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
