"""Recorded experience: episodes, datasets of them, and windows drawn for training."""

from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.episode import Episode, EpisodeBuilder
from worldmodel.data.task_datasets import TaskDatasets
from worldmodel.data.windows import Batch

__all__ = ["Batch", "Episode", "EpisodeBuilder", "EpisodeDataset", "TaskDatasets"]
