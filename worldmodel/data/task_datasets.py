"""Datasets of several tasks, learned from together: equal shares of each, padded to one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldmodel.data.dataset import EpisodeDataset
from worldmodel.data.episode import Episode
from worldmodel.data.windows import Batch
from worldmodel.errors import DatasetError


@dataclass(frozen=True)
class TaskDatasets:
    """One dataset for each task, in the order of the tasks.

    Window i of a batch is of task i modulo their number, which `observation["task"]` (B, H + 1) says; states
    and actions that are smaller than the largest end in zeros. Further columns are left out.
    """

    datasets: Sequence[EpisodeDataset]

    def __len__(self) -> int:
        """Episodes of all."""
        return sum(len(dataset) for dataset in self.datasets)

    def __iter__(self) -> Iterator[Episode]:
        """The episodes, one task after the other."""
        for dataset in self.datasets:
            yield from dataset

    @property
    def num_steps(self) -> int:
        """Steps of all."""
        return sum(dataset.num_steps for dataset in self.datasets)

    def sample(
        self,
        batch_size: int,
        horizon: int,
        generator: np.random.Generator,
        *,
        num_episodes: int = 0,
        part: slice = slice(None),
    ) -> Batch:
        """As `EpisodeDataset.sample`, with equal shares of all tasks; of `num_episodes` of each.

        `part` begins and ends between two rounds of all tasks. Errors: `DatasetError` for uneven shares.
        """
        count = len(self.datasets)
        first, end, _ = part.indices(batch_size)
        if batch_size % count or first % count or end % count:
            raise DatasetError(f"{end - first} of {batch_size} windows are no equal shares of {count} tasks")
        share = slice(first // count, end // count)
        batches = [
            dataset.sample(batch_size // count, horizon, generator, num_episodes=num_episodes, part=share)
            for dataset in self.datasets
        ]
        tasks = torch.arange(count).expand(share.stop - share.start, count)
        return Batch(
            observation={
                "state": _interleaved([batch.observation["state"] for batch in batches]),
                "task": tasks.reshape(-1, 1).repeat(1, horizon + 1),
            },
            action=_interleaved([batch.action for batch in batches]),
            reward=_interleaved([batch.reward[..., None] for batch in batches])[..., 0],
            terminated=_interleaved([batch.terminated[..., None] for batch in batches])[..., 0],
            valid=_interleaved([batch.valid[..., None] for batch in batches])[..., 0],
            extra={},
        )


def _interleaved(tensors: Sequence[Tensor]) -> Tensor:
    """The rows (B, H, D) of several by turns, padded with zeros to the largest D."""
    dim = max(tensor.shape[-1] for tensor in tensors)
    padded = [F.pad(tensor, (0, dim - tensor.shape[-1])) for tensor in tensors]
    return torch.stack(padded, dim=1).flatten(0, 1)
