"""What the optimizers lower, as functions of tensors alone: they draw nothing, so they can be compiled.

Each takes a batch, or the part of one that is this process's: the mean over `processes` of such losses, and
of their gradients, is then that of the whole batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.model import LatentModel, WorldModel
from worldmodel.training import losses, regularizers
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.random_targets import RandomTargets

if TYPE_CHECKING:
    from worldmodel.training.settings import TrainerSettings

Metrics = dict[str, Tensor]


class EmbeddingTargets(NamedTuple):
    """What the embeddings of one batch are held to, beside those of what is seen next.

    `directions` (D, M) are those of SIGReg; `encoder` gives the targets, where it is an average of earlier
    ones; `features` (B, history + H, F) are what `random_targets` see in the images.
    """

    directions: Tensor
    encoder: nn.Module | None = None
    random_targets: RandomTargets | None = None
    features: Tensor | None = None


def world_loss(
    model: WorldModel,
    settings: TrainerSettings,
    batch: Batch,
    *,
    target_q: nn.Module,
    noise: Tensor,
    heads: Tensor,
    embedding_targets: EmbeddingTargets | None = None,
    processes: Processes = ALONE,
) -> tuple[Tensor, Metrics, Tensor]:
    """Loss of everything but the policy (TD-MPC2, eq. 3); its parts; the latents (B, H, L) imagined.

    Windows of `size.history - 1 + settings.horizon + settings.num_td_steps - 1` steps. `noise` (B, H, A),
    standard normal, draws the policy's actions in the targets; `heads` names the heads of `target_q` that
    make them. With `settings.jepa_coefficient` the embeddings are also learned as those of a model without
    rewards, as in `jepa_loss`.
    """
    history, is_joint = model.size.history, settings.jepa_coefficient > 0
    steps = imagined_steps(model, settings)
    weights = losses.step_weights(batch.valid[:, steps], settings.rho)
    total = processes.mean(weights.sum())
    actions, rewards = batch.action[:, steps], batch.reward[:, steps]
    num_learned = history + settings.horizon if is_joint else history
    embeddings = model.embed({key: value[:, :num_learned] for key, value in batch.observation.items()})
    next_embedding, td_target = targets(
        model, settings, batch, embeddings, target_q=target_q, noise=noise, heads=heads
    )
    latent, predictions = rolled(model, settings, batch, embeddings)
    start, end = latent[:, :-1], latent[:, 1:]

    scalar = model.scalar
    seen = slice(model.size.latent_dim)  # of an embedding; the task, which may follow, stays
    errors = losses.consistency_errors(predictions[..., seen], next_embedding[..., seen])
    consistency = losses.weighted_mean(errors, weights, total)
    reward = losses.weighted_mean(
        scalar.cross_entropy(model.reward_logits(start, actions), scalar.two_hot(rewards)), weights, total
    )
    value = losses.weighted_mean(
        scalar.cross_entropy(model.q_logits(start, actions), scalar.two_hot(td_target)), weights, total
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
        metrics["continuation_loss"] = losses.weighted_mean(errors, weights, total)
        loss = loss + settings.continuation_coefficient * metrics["continuation_loss"]
    if is_joint:
        assert embedding_targets is not None
        joint, parts = joint_embedding_loss(
            model, settings, batch, embeddings, predictions, embedding_targets, processes
        )
        metrics |= parts
        loss = loss + settings.jepa_coefficient * joint
    metrics["loss"] = loss
    return loss, metrics, start.detach()


@torch.no_grad()
def targets(
    model: WorldModel,
    settings: TrainerSettings,
    batch: Batch,
    known: Tensor,
    *,
    target_q: nn.Module,
    noise: Tensor,
    heads: Tensor,
) -> tuple[Tensor, Tensor]:
    """Embeddings (B, H, D) of the next observations, and TD targets (B, H); arguments as in `world_loss`.

    `known` (B, K, D) are the embeddings of the first observations.
    """
    history = model.size.history
    rest = model.embed({key: value[:, known.shape[1] :] for key, value in batch.observation.items()})
    embeddings = torch.cat([known, rest], dim=1)
    later = model.layout.over(embeddings, batch.action)[:, settings.num_td_steps :]
    action, _ = model.policy.sample(later, noise)
    next_q = model.scalar.mean(model.q_logits(later, action, heads=target_q))[heads]
    recent = slice(history - 1, None)
    td_target = losses.td_targets(
        batch.reward[:, recent],
        batch.terminated[:, recent],
        batch.valid[:, recent],
        next_q,
        settings.discount,
    )
    return embeddings[:, history : history + settings.horizon], td_target


def imagined_steps(model: LatentModel, settings: TrainerSettings) -> slice:
    """The steps of a window in which the model is rolled forward; those before fill its history."""
    first = model.size.history - 1
    return slice(first, first + settings.horizon)


def rolled(
    model: LatentModel, settings: TrainerSettings, batch: Batch, embeddings: Tensor
) -> tuple[Tensor, Tensor]:
    """Latents (B, H + 1, L) imagined from a window's first embeddings, and the predictions (M, B, H, D).

    `embeddings` (B, K, D) are those of the first observations, as many as the history at least.
    """
    history, layout = model.size.history, model.layout
    latents = [layout.over(embeddings[:, :history], batch.action[:, : history - 1])[:, 0]]
    predictions = []
    for action in batch.action[:, imagined_steps(model, settings)].unbind(1):
        predictions.append(model.predictions(latents[-1], action))
        latents.append(layout.advance(latents[-1], action, predictions[-1].mean(0)))
    return torch.stack(latents, dim=1), torch.stack(predictions, dim=2)


def jepa_loss(
    model: LatentModel,
    settings: TrainerSettings,
    batch: Batch,
    embedding_targets: EmbeddingTargets,
    processes: Processes = ALONE,
) -> tuple[Tensor, Metrics]:
    """Loss of predicting embeddings, and of keeping them apart; its parts.

    Windows of `size.history - 1 + settings.horizon` steps: from the first `history` observations the model is
    rolled forward. Targets are the embeddings themselves, gradient included (LeWM, arXiv 2603.19312), or
    those of `embedding_targets.encoder`.
    """
    embeddings = model.embed(batch.observation)
    _, predictions = rolled(model, settings, batch, embeddings)
    loss, metrics = joint_embedding_loss(
        model, settings, batch, embeddings, predictions, embedding_targets, processes
    )
    return loss, metrics | {"loss": loss}


def joint_embedding_loss(
    model: LatentModel,
    settings: TrainerSettings,
    batch: Batch,
    embeddings: Tensor,
    predictions: Tensor,
    embedding_targets: EmbeddingTargets,
    processes: Processes = ALONE,
) -> tuple[Tensor, Metrics]:
    """What `jepa_loss` is, of embeddings (B, history + H, D) and what was `rolled` from them."""
    directions, target_encoder, random_targets, features = embedding_targets
    history, num_seen = model.size.history, embeddings.shape[1]
    wanted = embeddings
    if target_encoder is not None:
        with torch.no_grad():
            wanted = target_encoder({key: value[:, :num_seen] for key, value in batch.observation.items()})
    errors = (predictions - wanted[:, history:]).square().mean(-1)
    weights = losses.step_weights(batch.valid[:, imagined_steps(model, settings)], settings.rho)
    total = processes.mean(weights.sum())
    prediction = losses.weighted_mean(errors, weights, total)
    metrics = {"prediction_loss": prediction}
    loss = settings.prediction_coefficient * prediction
    if random_targets is not None:
        assert features is not None
        imagined = random_targets.errors(predictions, features[:, history:num_seen])
        metrics["random_target_loss"] = random_targets.errors(
            embeddings, features[:, :num_seen]
        ).mean() + losses.weighted_mean(imagined, weights, total)
        loss = loss + settings.random_target_coefficient * metrics["random_target_loss"]
    rows = embeddings.flatten(0, 1)
    for name, coefficient, value in (
        (
            "sigreg_loss",
            settings.sigreg_coefficient,
            lambda: regularizers.sigreg(embeddings.transpose(0, 1), directions, processes),
        ),
        (
            "variance_loss",
            settings.variance_coefficient,
            lambda: regularizers.variance_loss(rows, processes),
        ),
        (
            "covariance_loss",
            settings.covariance_coefficient,
            lambda: regularizers.covariance_loss(rows, processes),
        ),
        (
            "inverse_loss",
            settings.inverse_coefficient,
            lambda: inverse_loss(model, embeddings, batch, processes),
        ),
        (
            "straightening_loss",
            settings.straightening_coefficient,
            lambda: straightening_loss(embeddings, batch.valid, processes),
        ),
    ):
        if coefficient:
            metrics[name] = value()
            loss = loss + coefficient * metrics[name]
    return loss, metrics


def inverse_loss(
    model: LatentModel, embeddings: Tensor, batch: Batch, processes: Processes = ALONE
) -> Tensor:
    """Squared error of the action that is guessed from the embeddings (B, K, D) around it."""
    assert model.inverse_head is not None
    guessed = model.inverse_head(torch.cat([embeddings[:, :-1], embeddings[:, 1:]], dim=-1))
    num_steps = guessed.shape[1]
    errors = (guessed - batch.action[:, :num_steps]).square().mean(-1)
    weights = batch.valid[:, :num_steps].to(errors.dtype)
    return losses.weighted_mean(errors, weights, processes.mean(weights.sum()))


def straightening_loss(embeddings: Tensor, valid: Tensor, processes: Processes = ALONE) -> Tensor:
    """How much embeddings (B, K, D) turn."""
    errors = losses.straightening_errors(embeddings)
    weights = valid[:, 1 : errors.shape[1] + 1].to(errors.dtype)
    return losses.weighted_mean(errors, weights, processes.mean(weights.sum()))
