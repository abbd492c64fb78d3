"""Turning batches into a better world model."""

from worldmodel.training.checkpoint import (
    Checkpoint,
    export_model,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from worldmodel.training.metrics import MetricLogger, read_metrics
from worldmodel.training.trainer import Trainer, TrainerSettings, diverged

__all__ = [
    "Checkpoint",
    "MetricLogger",
    "Trainer",
    "TrainerSettings",
    "diverged",
    "export_model",
    "find_checkpoint",
    "load_checkpoint",
    "read_metrics",
    "save_checkpoint",
]
