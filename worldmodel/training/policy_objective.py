"""What the policy's optimizer lowers, as a function of tensors alone; see `objectives`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldmodel.model import WorldModel
from worldmodel.training import losses
from worldmodel.training.objectives import Metrics
from worldmodel.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from worldmodel.training.settings import TrainerSettings


def policy_loss(
    model: WorldModel,
    settings: TrainerSettings,
    latent: Tensor,
    *,
    valid: Tensor,
    noise: Tensor,
    value_scale: Tensor,
    task: Tensor | None = None,
    processes: Processes = ALONE,
) -> tuple[Tensor, Metrics, Tensor]:
    """Loss of the policy in latents (B, H, D) (TD-MPC2, eq. 4); its parts; the value scale, moved on.

    `valid` (B, H) marks real steps; `noise` (B, H, A) is standard normal; of several tasks, `task` (B,) says
    which of the scales (T,) is a window's.
    """
    action, log_prob = model.policy.sample(latent, noise)
    q = model.q_values(latent, action)
    with torch.no_grad():
        values = processes.gathered(q.mean(0)[:, 0])
        # Divides the value, so that the entropy bonus means the same for every task.
        scale = losses.moved_scale(value_scale, values, None if task is None else processes.gathered(task))
        unit = scale if task is None else scale[task][:, None]
    errors = losses.policy_errors(q, log_prob, unit, settings.entropy_coefficient)
    weights = losses.step_weights(valid, settings.rho)
    loss = losses.weighted_mean(errors, weights, processes.mean(weights.sum()))
    metrics = {"policy_loss": loss, "q": q.mean(), "entropy": -log_prob.mean()}
    return loss, metrics, scale
