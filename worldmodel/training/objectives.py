"""What the optimizers lower, as functions of tensors alone: they draw nothing, so they can be compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data import Batch
from worldmodel.model import LatentModel, WorldModel
from worldmodel.training import losses, regularizers

if TYPE_CHECKING:
    from worldmodel.training.settings import TrainerSettings

Metrics = dict[str, Tensor]


def world_loss(
    model: WorldModel,
    settings: TrainerSettings,
    batch: Batch,
    *,
    target_q: nn.Module,
    noise: Tensor,
    heads: Tensor,
) -> tuple[Tensor, Metrics, Tensor]:
    """Loss of everything but the policy (TD-MPC2, eq. 3); its parts; the latents (B, H, D) imagined.

    `noise` (B, H, A), standard normal, draws the policy's actions in the targets; `heads` names the heads of
    `target_q` that make them.
    """
    steps = slice(settings.horizon)
    weights = losses.step_weights(batch.valid[:, steps], settings.rho)
    actions, rewards = batch.action[:, steps], batch.reward[:, steps]
    next_latent, td_target = targets(model, settings, batch, target_q=target_q, noise=noise, heads=heads)

    latents = [model.encode({key: value[:, 0] for key, value in batch.observation.items()})]
    for action in actions.unbind(1):
        latents.append(model.step(latents[-1], action))
    latent = torch.stack(latents, dim=1)
    start, end = latent[:, :-1], latent[:, 1:]

    scalar = model.scalar
    consistency = losses.weighted_mean(losses.consistency_errors(end, next_latent), weights)
    reward = losses.weighted_mean(
        scalar.cross_entropy(model.reward_logits(start, actions), scalar.two_hot(rewards)), weights
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
    return loss, metrics, start.detach()


@torch.no_grad()
def targets(
    model: WorldModel,
    settings: TrainerSettings,
    batch: Batch,
    *,
    target_q: nn.Module,
    noise: Tensor,
    heads: Tensor,
) -> tuple[Tensor, Tensor]:
    """Latents (B, H, D) of the next observations, and TD targets (B, H); arguments as in `world_loss`."""
    latent = model.encode({key: value[:, 1:] for key, value in batch.observation.items()})
    later = latent[:, settings.num_td_steps - 1 :]
    action, _ = model.policy.sample(later, noise)
    next_q = model.scalar.mean(model.q_logits(later, action, heads=target_q))[heads]
    td_target = losses.td_targets(batch.reward, batch.terminated, batch.valid, next_q, settings.discount)
    return latent[:, : settings.horizon], td_target


def policy_loss(
    model: WorldModel,
    settings: TrainerSettings,
    latent: Tensor,
    *,
    valid: Tensor,
    noise: Tensor,
    value_scale: Tensor,
) -> tuple[Tensor, Metrics, Tensor]:
    """Loss of the policy in latents (B, H, D) (TD-MPC2, eq. 4); its parts; the value scale, moved on.

    `valid` (B, H) marks real steps; `noise` (B, H, A) is standard normal.
    """
    action, log_prob = model.policy.sample(latent, noise)
    q = model.q_values(latent, action)
    with torch.no_grad():
        low, high = torch.quantile(q.mean(0)[:, 0], torch.tensor([0.05, 0.95], device=q.device))
        # Divides the value, so that the entropy bonus means the same for every task.
        scale = value_scale.lerp((high - low).clamp(min=1.0), 0.01)
    errors = losses.policy_errors(q, log_prob, scale, settings.entropy_coefficient)
    loss = losses.weighted_mean(errors, losses.step_weights(valid, settings.rho))
    metrics = {"policy_loss": loss, "q": q.mean(), "entropy": -log_prob.mean()}
    return loss, metrics, scale


def jepa_loss(
    model: LatentModel,
    settings: TrainerSettings,
    batch: Batch,
    *,
    directions: Tensor,
    target_encoder: nn.Module | None = None,
) -> tuple[Tensor, Metrics]:
    """Loss of predicting embeddings, and of keeping them apart; its parts.

    Windows of `size.history - 1 + settings.horizon` steps: from the first `history` observations the model is
    rolled forward. Targets are the embeddings themselves, gradient included (LeWM, arXiv 2603.19312), or
    those of `target_encoder`, an average of earlier encoders. `directions` (D, M) are those of SIGReg.
    """
    history, layout = model.size.history, model.layout
    embeddings = model.embed(batch.observation)
    wanted = embeddings
    if target_encoder is not None:
        with torch.no_grad():
            wanted = target_encoder(batch.observation)
    later = slice(history - 1, None)
    actions, valid = batch.action[:, later], batch.valid[:, later]
    latent = layout.over(embeddings[:, :history], batch.action[:, : history - 1])[:, 0]
    errors = []
    for index, action in enumerate(actions.unbind(1)):
        predictions = model.predictions(latent, action)
        target = wanted[:, history + index]
        errors.append((predictions - target).square().mean(-1))
        latent = layout.advance(latent, action, predictions.mean(0))
    weights = losses.step_weights(valid, settings.rho)
    prediction = losses.weighted_mean(torch.stack(errors, dim=-1), weights)
    metrics = {"prediction_loss": prediction}
    loss = settings.prediction_coefficient * prediction
    rows = embeddings.flatten(0, 1)
    for name, coefficient, value in (
        (
            "sigreg_loss",
            settings.sigreg_coefficient,
            lambda: regularizers.sigreg(embeddings.transpose(0, 1), directions),
        ),
        ("variance_loss", settings.variance_coefficient, lambda: regularizers.variance_loss(rows)),
        ("covariance_loss", settings.covariance_coefficient, lambda: regularizers.covariance_loss(rows)),
        ("inverse_loss", settings.inverse_coefficient, lambda: inverse_loss(model, embeddings, batch)),
        ("straightening_loss", settings.straightening_coefficient, lambda: straightening_loss(embeddings)),
    ):
        if coefficient:
            metrics[name] = value()
            loss = loss + coefficient * metrics[name]
    metrics["loss"] = loss
    return loss, metrics


def inverse_loss(model: LatentModel, embeddings: Tensor, batch: Batch) -> Tensor:
    """Squared error of the action that is guessed from the embeddings (B, T + 1, D) around it."""
    assert model.inverse_head is not None
    guessed = model.inverse_head(torch.cat([embeddings[:, :-1], embeddings[:, 1:]], dim=-1))
    errors = (guessed - batch.action).square().mean(-1)
    return losses.weighted_mean(errors, batch.valid.to(errors.dtype))


def straightening_loss(embeddings: Tensor) -> Tensor:
    """How much embeddings (B, T, D) turn: minus the mean cosine of successive changes (arXiv 2603.12231)."""
    changes = embeddings.diff(dim=1)
    return -F.cosine_similarity(changes[:, :-1], changes[:, 1:], dim=-1).mean()
