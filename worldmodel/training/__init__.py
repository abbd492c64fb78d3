"""Turning batches into a better world model."""

from worldmodel.training.checkpoint import (
    Checkpoint,
    export_model,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from worldmodel.training.decoder import fit_decoder, load_decoder, save_decoder
from worldmodel.training.goal_policies import clone_behaviour, learn_inverse_dynamics
from worldmodel.training.jepa_trainer import JepaTrainer
from worldmodel.training.kinds import fresh_like, make_model, make_trainer
from worldmodel.training.metrics import MetricLogger, read_metrics
from worldmodel.training.process_group import join
from worldmodel.training.processes import ALONE, Order, Processes
from worldmodel.training.return_trainer import ReturnTrainer
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer, diverged

__all__ = [
    "ALONE",
    "Checkpoint",
    "JepaTrainer",
    "MetricLogger",
    "Order",
    "Processes",
    "ReturnTrainer",
    "Trainer",
    "TrainerSettings",
    "clone_behaviour",
    "diverged",
    "export_model",
    "find_checkpoint",
    "fit_decoder",
    "fresh_like",
    "join",
    "learn_inverse_dynamics",
    "load_checkpoint",
    "load_decoder",
    "make_model",
    "make_trainer",
    "read_metrics",
    "save_checkpoint",
    "save_decoder",
]
