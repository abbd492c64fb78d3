"""Training a model with rewards: consistency, rewards, values and a policy."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldmodel.data import Batch
from worldmodel.errors import ConfigError
from worldmodel.model import Acceleration, WorldModel
from worldmodel.training import objectives
from worldmodel.training.policy_objective import policy_loss
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer


class ReturnTrainer(Trainer):
    """Trains a `WorldModel` to foresee returns (TD-MPC2), and with `jepa_coefficient` also what it will see.

    See `Trainer`. Errors: `ConfigError` where the model lacks a head that the settings ask for.
    """

    shown: tuple[str, ...] = ("loss", "value_loss")
    model: WorldModel
    averaged_model: WorldModel

    def __init__(
        self, model: WorldModel, settings: TrainerSettings, *, seed: int, processes: Processes = ALONE
    ) -> None:
        super().__init__(model, settings, seed=seed, processes=processes)
        self._is_joint = settings.jepa_coefficient > 0
        if self._is_joint and model.size.tasks:
            raise ConfigError(
                f"training.jepa_coefficient={settings.jepa_coefficient}: a model of several tasks learns "
                "returns alone; give 0"
            )
        if self._is_joint and settings.inverse_coefficient and model.inverse_head is None:
            raise ConfigError(
                f"training.inverse_coefficient={settings.inverse_coefficient}: this model guesses no "
                "actions; give model.predicts_action=true"
            )
        shape = (len(model.size.tasks),) if model.size.tasks else ()
        self._value_scale = torch.ones(shape, device=next(model.parameters()).device)
        self.target_q = copy.deepcopy(model.q_heads).requires_grad_(False)
        if self._is_joint:
            self.shown = (*self.shown, "embedding_rank")
            self._make_targets()
        policy = list(model.policy.parameters())
        groups = self._groups(apart=policy)
        self.model_optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
        self.policy_optimizer = torch.optim.Adam(policy, lr=settings.learning_rate, eps=1e-5, fused=True)
        self.optimizers = {
            "model_optimizer": self.model_optimizer,
            "policy_optimizer": self.policy_optimizer,
        }
        self.targets["target_q"] = self.target_q
        self._world_loss, self._policy_loss = objectives.world_loss, policy_loss

    @property
    def window(self) -> int:
        """Steps of the windows that it learns from: the history, and n-step targets look past the horizon."""
        return self.model.size.history - 1 + self.settings.horizon + self.settings.num_td_steps - 1

    def accelerate(self, acceleration: Acceleration) -> None:
        """Compute the losses so: the same, to rounding."""
        self._world_loss = self._accelerated(acceleration, objectives.world_loss)
        self._policy_loss = self._accelerated(acceleration, policy_loss)

    @property
    def value_scale(self) -> float | list[float]:
        """Running 5-95 percentile range of Q, at least 1: the unit of values in the policy's loss.

        One for each of several tasks.
        """
        return self._value_scale.tolist()  # type: ignore[no-any-return]

    @value_scale.setter
    def value_scale(self, value: float | list[float]) -> None:
        scale = torch.tensor(value)
        if scale.shape != self._value_scale.shape:
            raise ValueError(f"value_scale={value} is not one number for each task")
        self._value_scale.copy_(scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on the model and one on the policy, from windows of `window` steps."""
        settings, model = self.settings, self.model
        features = self._features(batch)
        batch = self._prepared(batch)
        shape = (batch.batch_size, settings.horizon, model.size.action_dim)
        noise = self._noise(shape, batch.action)
        loss, metrics, latent = self._world_loss(
            model,
            settings,
            batch,
            target_q=self.target_q,
            noise=noise,
            heads=self._two_heads(),
            embedding_targets=self._embedding_targets(batch, features) if self._is_joint else None,
            processes=self.processes,
        )
        metrics["grad_norm"] = self._step(self.model_optimizer, loss)
        if (self.num_updates + 1) % settings.policy_every == 0:
            # The Q heads say which way is up; they do not learn from it.
            model.q_heads.requires_grad_(False)
            loss, more, scale = self._policy_loss(
                model,
                settings,
                latent,
                valid=batch.valid[:, objectives.imagined_steps(model, settings)],
                noise=self._noise(shape, latent),
                value_scale=self._value_scale,
                task=batch.observation["task"][:, 0] if model.size.tasks else None,
                processes=self.processes,
            )
            self._value_scale.copy_(scale)
            metrics |= more | {"policy_grad_norm": self._step(self.policy_optimizer, loss)}
            model.q_heads.requires_grad_(True)
        self._average((self.target_q, model.q_heads), (self.target_encoder, model.encoder))
        self.num_updates += 1
        return {name: metric.detach() for name, metric in metrics.items()}

    def numbers(self) -> dict[str, Any]:
        """The value scale."""
        return {"value_scale": self.value_scale}

    def restore_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Go on with that value scale."""
        self.value_scale = numbers["value_scale"]

    def _two_heads(self) -> Tensor:
        """Which Q heads make the target: the minimum of two random ones (REDQ); that of all is too low."""
        num_q = self.model.size.num_q
        chosen = torch.randperm(num_q, generator=self.generator) if num_q > 2 else torch.arange(num_q)
        return chosen[:2].to(self._value_scale.device)
