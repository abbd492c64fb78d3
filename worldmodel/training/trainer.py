"""One optimizer step after another: batches in, a better world model out."""

import copy
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.errors import ConfigError, DivergenceError
from worldmodel.model import Acceleration, WorldModel
from worldmodel.training import objectives


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What people tune. The defaults are TD-MPC2's; what we train with stands in `configs/training`."""

    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-4
    discount: float = 0.99
    horizon: int = 3
    num_td_steps: int = 1
    rho: float = 0.5
    consistency_coefficient: float = 20.0
    reward_coefficient: float = 0.1
    value_coefficient: float = 0.1
    continuation_coefficient: float = 1.0
    entropy_coefficient: float = 1e-4
    target_rate: float = 0.01
    average_fraction: float = 0.0
    max_grad_norm: float = 20.0
    policy_every: int = 1

    def __post_init__(self) -> None:
        """Check ranges. Errors: `ConfigError`."""
        for name in ("learning_rate", "encoder_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.average_fraction <= 1:
            raise ConfigError(
                f"training average_fraction={self.average_fraction}: must be at least 0 (the latest weights) "
                "and at most 1 (the mean of all)"
            )
        for name in ("discount", "rho", "target_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be above 0 and at most 1")
        for name in ("horizon", "num_td_steps", "policy_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"training {name}={value}: must be a whole number of at least 1")
        for name in (field.name for field in fields(self) if field.name.endswith("_coefficient")):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be finite and not negative")

    @property
    def window(self) -> int:
        """Steps of the windows that the trainer learns from: n-step targets look past the horizon."""
        return self.horizon + self.num_td_steps - 1


class Trainer:
    """Owns the optimizers, the target network and the chance of training a `WorldModel`.

    `averaged_model` is what is judged and kept: an average of the weights that spans a fraction of the
    updates so far (polynomial-decay averaging: Shamir and Zhang 2013, section 4). Single updates move a
    policy back and forth between the starts that it solves; their average does not.
    Same model, batches and seed give the same weights, to the bit on CPU.
    """

    def __init__(self, model: WorldModel, settings: TrainerSettings, *, seed: int) -> None:
        self.model = model
        self.settings = settings
        self.num_updates = 0
        self._value_scale = torch.ones((), device=next(model.parameters()).device)
        self.target_q = copy.deepcopy(model.q_heads).requires_grad_(False)
        self.averaged_model = copy.deepcopy(model).requires_grad_(False)
        # Observations are normalised alike in both; this part is not trained.
        self.averaged_model.encoder.normalizer = model.encoder.normalizer
        policy = list(model.policy.parameters())
        encoder = list(model.encoder.parameters())
        apart = {id(parameter) for parameter in policy + encoder}
        rest: list[nn.Parameter] = [
            parameter for parameter in model.parameters() if id(parameter) not in apart
        ]
        groups: list[dict[str, Any]] = [
            {"params": encoder, "lr": settings.encoder_learning_rate},
            {"params": rest},
        ]
        self.model_optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
        self.policy_optimizer = torch.optim.Adam(policy, lr=settings.learning_rate, eps=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(seed)
        self._world_loss, self._policy_loss = objectives.world_loss, objectives.policy_loss

    def accelerate(self, acceleration: Acceleration) -> None:
        """Compute the losses so: the same, to rounding."""
        device = self._value_scale.device
        self._world_loss = acceleration.of(objectives.world_loss, device)
        self._policy_loss = acceleration.of(objectives.policy_loss, device)

    @property
    def value_scale(self) -> float:
        """Running 5-95 percentile range of Q, at least 1: the unit of values in the policy's loss."""
        return float(self._value_scale)

    @value_scale.setter
    def value_scale(self, value: float) -> None:
        self._value_scale.fill_(value)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on the model and one on the policy, from windows of `settings.window` steps.

        Returns metrics as scalar tensors: reading one waits for the device, so the caller reads few.
        """
        settings, model = self.settings, self.model
        if batch.horizon != settings.window:
            raise ValueError(
                f"batch of {batch.horizon} steps: horizon and num_td_steps ask for {settings.window}"
            )
        shape = (batch.batch_size, settings.horizon, model.size.action_dim)
        noise = self._noise(shape, batch.action)
        loss, metrics, latent = self._world_loss(
            model, settings, batch, target_q=self.target_q, noise=noise, heads=self._two_heads()
        )
        metrics["grad_norm"] = self._step(self.model_optimizer, loss)
        if (self.num_updates + 1) % settings.policy_every == 0:
            # The Q heads say which way is up; they do not learn from it.
            model.q_heads.requires_grad_(False)
            loss, more, scale = self._policy_loss(
                model,
                settings,
                latent,
                valid=batch.valid[:, : settings.horizon],
                noise=self._noise(shape, latent),
                value_scale=self._value_scale,
            )
            self._value_scale.copy_(scale)
            metrics |= more | {"policy_grad_norm": self._step(self.policy_optimizer, loss)}
            model.q_heads.requires_grad_(True)
        self._average()
        self.num_updates += 1
        return {name: metric.detach() for name, metric in metrics.items()}

    def _two_heads(self) -> Tensor:
        """Which Q heads make the target: the minimum of two random ones (REDQ); that of all is too low."""
        num_q = self.model.size.num_q
        chosen = torch.randperm(num_q, generator=self.generator) if num_q > 2 else torch.arange(num_q)
        return chosen[:2].to(self._value_scale.device)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Backward, clip, step; returns the gradient norm before clipping. Errors: `DivergenceError`."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        if not norm.isfinite():  # before it reaches the weights
            raise diverged(self, "the gradient is not finite")
        optimizer.step()
        return norm

    @torch.no_grad()
    def _average(self) -> None:
        """Move the target network and the averaged model towards the model."""
        # Short while much is to be learned, long when little changes but for the noise; without the weights
        # from before the first update.
        average_rate = 1 / (1 + self.settings.average_fraction * self.num_updates)
        for average, module, rate in (
            (self.target_q, self.model.q_heads, self.settings.target_rate),
            (self.averaged_model, self.model, average_rate),
        ):
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), rate)

    def _noise(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal noise, drawn on the CPU so that every device sees the same."""
        return torch.randn(shape, generator=self.generator).to(like)


def diverged(trainer: Trainer, sign: str) -> DivergenceError:
    """The error for training that made no sense any more, by this sign of it."""
    return DivergenceError(
        f"training diverged at update {trainer.num_updates}: {sign}. Lower training.learning_rate="
        f"{trainer.settings.learning_rate}; the last checkpoint is still sound"
    )
