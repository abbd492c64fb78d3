"""Training a model without rewards: to predict what it will see, where it embeds it."""

import torch
from torch import Tensor

from worldmodel.data import Batch
from worldmodel.model import Acceleration, LatentModel
from worldmodel.training import objectives
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer

_WEIGHT_DECAY = 1e-3  # LeWM's


class JepaTrainer(Trainer):
    """Trains a `LatentModel` to predict embeddings (JEPA); see `Trainer`."""

    shown = ("prediction_loss", "embedding_rank", "embedding_std", "embedding_sigreg")

    def __init__(
        self, model: LatentModel, settings: TrainerSettings, *, seed: int, processes: Processes = ALONE
    ) -> None:
        super().__init__(model, settings, seed=seed, processes=processes)
        self._make_targets()
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
        self._loss = self._accelerated(acceleration, objectives.jepa_loss)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on the model, from windows of `window` steps."""
        features = self._features(batch)
        batch = self._prepared(batch)
        loss, metrics = self._loss(
            self.model,
            self.settings,
            batch,
            self._embedding_targets(batch, features),
            self.processes,
        )
        metrics["grad_norm"] = self._step(self.model_optimizer, loss)
        self._average((self.target_encoder, self.model.encoder))
        self.num_updates += 1
        return {name: metric.detach() for name, metric in metrics.items()}
