"""One optimizer step after another: batches in, a better world model out."""

import copy
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.errors import ConfigError, DivergenceError
from worldmodel.model import WorldModel
from worldmodel.training import losses


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
    max_grad_norm: float = 20.0
    policy_every: int = 1

    def __post_init__(self) -> None:
        """Check ranges. Errors: `ConfigError`."""
        for name in ("learning_rate", "encoder_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be above 0")
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

    Same model, batches and seed give the same weights, to the bit on CPU.
    """

    def __init__(self, model: WorldModel, settings: TrainerSettings, *, seed: int) -> None:
        self.model = model
        self.settings = settings
        self.num_updates = 0
        self._value_scale = torch.ones((), device=next(model.parameters()).device)
        self.target_q = copy.deepcopy(model.q_heads).requires_grad_(False)
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
        steps = slice(settings.horizon)
        weights = losses.step_weights(batch.valid[:, steps], settings.rho)
        actions, rewards = batch.action[:, steps], batch.reward[:, steps]
        next_latent, td_target = self._targets(batch)

        latents = [model.encode({key: value[:, 0] for key, value in batch.observation.items()})]
        for action in actions.unbind(1):
            latents.append(model.step(latents[-1], action))
        latent = torch.stack(latents, dim=1)
        start, end = latent[:, :-1], latent[:, 1:]

        scalar = model.scalar
        consistency = losses.weighted_mean(losses.consistency_errors(end, next_latent), weights)
        reward = losses.weighted_mean(
            scalar.cross_entropy(model.reward_logits(start, actions), scalar.two_hot(rewards)),
            weights,
        )
        value = losses.weighted_mean(
            scalar.cross_entropy(model.q_logits(start, actions), scalar.two_hot(td_target)), weights
        )
        loss = (
            settings.consistency_coefficient * consistency
            + settings.reward_coefficient * reward
            + settings.value_coefficient * value
        )
        metrics = {"consistency_loss": consistency, "reward_loss": reward, "value_loss": value}
        if model.continuation_head is not None:
            errors = losses.continuation_errors(
                model.continuation_head(end).squeeze(-1), batch.terminated[:, steps]
            )
            metrics["continuation_loss"] = losses.weighted_mean(errors, weights)
            loss = loss + settings.continuation_coefficient * metrics["continuation_loss"]
        metrics["loss"] = loss
        metrics["grad_norm"] = self._step(self.model_optimizer, loss)

        if (self.num_updates + 1) % settings.policy_every == 0:
            metrics |= self._update_policy(start.detach(), weights)
        self._update_target()
        self.num_updates += 1
        return {name: metric.detach() for name, metric in metrics.items()}

    @torch.no_grad()
    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents (B, H, D) of the next observations, and TD targets (B, H)."""
        model, settings = self.model, self.settings
        latent = model.encode({key: value[:, 1:] for key, value in batch.observation.items()})
        later = latent[:, settings.num_td_steps - 1 :]
        noise = self._noise((*later.shape[:2], model.size.action_dim), later)
        action, _ = model.policy.sample(later, noise)
        next_q = model.scalar.mean(model.q_logits(later, action, heads=self.target_q))
        if len(next_q) > 2:  # the minimum of two random heads (REDQ): that of all of them is too low
            next_q = next_q[torch.randperm(len(next_q), generator=self.generator)[:2].to(next_q.device)]
        td_target = losses.td_targets(batch.reward, batch.terminated, batch.valid, next_q, settings.discount)
        return latent[:, : settings.horizon], td_target

    def _update_policy(self, latent: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Raise the value of the policy's actions in the given latents (B, H, D)."""
        model = self.model
        noise = self._noise((*latent.shape[:-1], model.size.action_dim), latent)
        action, log_prob = model.policy.sample(latent, noise)
        model.q_heads.requires_grad_(False)
        q = model.q_values(latent, action)
        with torch.no_grad():
            low, high = torch.quantile(q.mean(0)[:, 0], torch.tensor([0.05, 0.95], device=q.device))
            # Divides the value, so that the entropy bonus means the same for every task.
            self._value_scale.lerp_((high - low).clamp(min=1.0), 0.01)
        errors = losses.policy_errors(q, log_prob, self._value_scale, self.settings.entropy_coefficient)
        loss = losses.weighted_mean(errors, weights)
        grad_norm = self._step(self.policy_optimizer, loss)
        model.q_heads.requires_grad_(True)
        return {
            "policy_loss": loss,
            "policy_grad_norm": grad_norm,
            "q": q.mean(),
            "entropy": -log_prob.mean(),
        }

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
    def _update_target(self) -> None:
        torch._foreach_lerp_(
            list(self.target_q.parameters()), list(self.model.q_heads.parameters()), self.settings.target_rate
        )

    def _noise(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal noise, drawn on the CPU so that every device sees the same."""
        return torch.randn(shape, generator=self.generator).to(like)


def diverged(trainer: Trainer, sign: str) -> DivergenceError:
    """The error for training that made no sense any more, by this sign of it."""
    return DivergenceError(
        f"training diverged at update {trainer.num_updates}: {sign}. Lower training.learning_rate="
        f"{trainer.settings.learning_rate}; the last checkpoint is still sound"
    )
