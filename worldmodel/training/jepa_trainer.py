"""Training a model without rewards: to predict what it will see, where it embeds it."""

import copy

import torch
from torch import Tensor

from worldmodel.data import Batch
from worldmodel.model import Acceleration, LatentModel
from worldmodel.training import objectives
from worldmodel.training.augmentation import jitter_hues
from worldmodel.training.regularizers import random_directions, spread
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer

_WEIGHT_DECAY = 1e-3  # LeWM's


class JepaTrainer(Trainer):
    """Trains a `LatentModel` to predict embeddings (JEPA); see `Trainer`."""

    shown = ("prediction_loss", "embedding_rank")

    def __init__(self, model: LatentModel, settings: TrainerSettings, *, seed: int) -> None:
        super().__init__(model, settings, seed=seed)
        self.target_encoder = None
        if settings.predicts_average:
            self.target_encoder = copy.deepcopy(model.encoder).requires_grad_(False)
            self.target_encoder.share_statistics(model.encoder)  # type: ignore[arg-type]
            self.targets = {"target_encoder": self.target_encoder}
        self.model_optimizer = torch.optim.AdamW(
            self._groups(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY, fused=True
        )
        self.optimizers = {"model_optimizer": self.model_optimizer}
        self._loss = objectives.jepa_loss

    @property
    def window(self) -> int:
        """Steps of the windows that it learns from: the history, then as many as it is rolled forward."""
        return self.model.size.history - 1 + self.settings.horizon

    def accelerate(self, acceleration: Acceleration) -> None:
        """Compute the loss so: the same, to rounding."""
        self._loss = acceleration.of(objectives.jepa_loss, next(self.model.parameters()).device)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on the model, from windows of `window` steps."""
        self._check(batch)
        if self.settings.hue_jitter > 0 and "pixels" in batch.observation:
            batch = jitter_hues(batch, self.settings.hue_jitter, self.generator)
        dim = self.model.size.latent_dim
        directions = random_directions(self.settings.num_directions, dim, self.generator)
        loss, metrics = self._loss(
            self.model,
            self.settings,
            batch,
            directions=directions.to(batch.action),
            target_encoder=self.target_encoder,
        )
        metrics["grad_norm"] = self._step(self.model_optimizer, loss)
        self._average(self.target_encoder, self.model.encoder)
        self.num_updates += 1
        return {name: metric.detach() for name, metric in metrics.items()}

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Signs of collapse: std and rank of the embeddings of a batch."""
        embeddings = self.model.embed({key: value[:, 0] for key, value in batch.observation.items()})
        return dict(spread(embeddings))
