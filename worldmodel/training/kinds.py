"""Which model a size asks for, and which trainer a model: with rewards, or without."""

import torch

from worldmodel.model import LatentModel, WorldModel, WorldModelSize
from worldmodel.training.jepa_trainer import JepaTrainer
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.return_trainer import ReturnTrainer
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer


def make_model(size: WorldModelSize) -> LatentModel:
    """A fresh model of the kind that `size` says."""
    return WorldModel(size) if size.predicts_return else LatentModel(size)


def fresh_like(model: LatentModel, seed: int) -> LatentModel:
    """An untrained model of the same size, on the same device, which normalises states alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = make_model(model.size).to(next(model.parameters()).device)
    fresh.encoder.share_statistics(model.encoder)  # type: ignore[arg-type]
    return fresh


def make_trainer(
    model: LatentModel, settings: TrainerSettings, *, seed: int, processes: Processes = ALONE
) -> Trainer:
    """The trainer of a model's kind."""
    if isinstance(model, WorldModel):
        return ReturnTrainer(model, settings, seed=seed, processes=processes)
    return JepaTrainer(model, settings, seed=seed, processes=processes)
