"""What makes the updates in every process of a training run."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel.data import Batch, EpisodeDataset, TaskDatasets
from worldmodel.training import Processes, Trainer

LOG_EVERY = 100  # updates


def open_dataset(path: str, processes: Processes) -> EpisodeDataset:
    """The dataset that all learn from. Errors: `DatasetError`."""
    # Processes of one machine share what it keeps of the files; copies of their own would fill its memory.
    return EpisodeDataset.open(path, in_memory=None if processes.num_local == 1 else False)


def is_offline(config: dict[str, Any]) -> bool:
    """Whether a run learns from datasets, rather than from what it does."""
    return config["dataset"] is not None or bool(config["datasets"])


def open_offline(config: dict[str, Any], processes: Processes) -> EpisodeDataset | TaskDatasets:
    """The dataset, or those of several tasks, that a run learns from. Errors: `DatasetError`."""
    if config["datasets"]:
        return TaskDatasets([open_dataset(path, processes) for path in config["datasets"]])
    return open_dataset(config["dataset"], processes)


@dataclass
class Learner:
    """A trainer, and how its batches are drawn.

    - `config`: that of `configs/train.yaml` as plain values.
    - `chance`: draws the windows; every process draws the same, and keeps its part.
    - `cpu_seconds`: what the updates have cost this process.
    """

    config: dict[str, Any]
    trainer: Trainer
    chance: np.random.Generator
    device: torch.device
    cpu_seconds: float = 0.0

    def update(self, dataset: EpisodeDataset | TaskDatasets | None) -> dict[str, float]:
        """One update; every hundredth time its metrics, of the whole batch.

        `dataset`: where it learns from; None in those processes to which the first one hands their parts.
        """
        began = time.process_time()
        batch = self._batch(dataset).to(self.device)
        metrics = self.trainer.update(batch)
        self.cpu_seconds += time.process_time() - began
        if self.trainer.num_updates % LOG_EVERY:
            return {}
        metrics |= self.trainer.diagnose(batch)
        return {name: float(self.trainer.processes.mean(value)) for name, value in metrics.items()}

    def share_statistics(self) -> None:
        """Normalise observations in every process as the first one does."""
        self.trainer.processes.share(self.trainer.model.encoder.buffers())

    def _batch(self, dataset: EpisodeDataset | TaskDatasets | None) -> Batch:
        """This process's part of the next batch."""
        training, processes = self.config["training"], self.trainer.processes
        # What is recorded by acting is the first process's alone: it is not kept in memory as often as there
        # are processes. Of a dataset each reads its part itself: none waits for another's disk.
        is_online = not is_offline(self.config)
        batch = None
        if dataset is not None:
            batch = dataset.sample(
                training["batch_size"],
                self.trainer.window,
                self.chance,
                num_episodes=training.get("episodes_per_batch", 0),
                part=slice(None) if is_online else processes.part(training["batch_size"]),
            )
        if is_online:
            return processes.scattered(batch)
        assert batch is not None
        return batch
