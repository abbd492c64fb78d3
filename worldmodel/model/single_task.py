"""One task of a model that learned several, as a model of that task alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from worldmodel.model.dynamics import EnsembleDynamics
from worldmodel.model.encoder import StateEncoder
from worldmodel.model.size import WorldModelSize
from worldmodel.model.task_encoder import TaskEncoder
from worldmodel.model.world_model import WorldModel


@torch.no_grad()
def single_task(model: WorldModel, task: int) -> WorldModel:
    """What `model` is in one of its tasks: the same function, of that task's own observations and actions.

    Where the task is fixed its code is the same in every latent, and what a layer makes of it is a constant,
    which becomes part of the layer's bias. What only pads states and actions falls away. So whoever plans,
    serves or exports it meets an ordinary model, and padding cannot influence a return.
    """
    size, encoder, own = model.size, model.encoder, model.size.tasks[task]
    assert isinstance(encoder, TaskEncoder)
    dims = {"state_dim": own.state_dim, "action_dim": own.action_dim}
    single = WorldModel(replace(size, tasks=(), angles=own.angles, **dims)).to(encoder.codes.device)
    assert isinstance(single.encoder, StateEncoder)
    code = encoder.code(torch.tensor(task, device=encoder.codes.device))
    features = code.new_zeros(encoder.feature_dim)
    features[: single.encoder.features.dim] = torch.nan
    _fold(single.encoder.layers, encoder.layers, torch.cat([features, code]))
    single.encoder.normalizer.load_state_dict(encoder.normalizers[task].state_dict())
    single.encoder.latent_norm.load_state_dict(encoder.latent_norm.state_dict())
    latent, action = _fixed(size, task, torch.cat([code, encoder.action_masks[task]]))
    both = torch.cat([latent, action])
    _fold(_layers(single.dynamics[0]), _layers(model.dynamics[0]), both)
    single.dynamics[1].load_state_dict(model.dynamics[1].state_dict())
    _fold(single.reward_head, model.reward_head, both)
    _fold(single.q_heads, model.q_heads, both)
    of_mean_and_log_std = action.isnan().repeat(2)
    _fold(single.policy.layers, model.policy.layers, latent, outputs=of_mean_and_log_std)
    if single.continuation_head is not None and model.continuation_head is not None:
        _fold(single.continuation_head, model.continuation_head, latent)
    return single


def _fixed(size: WorldModelSize, task: int, code: Tensor) -> tuple[Tensor, Tensor]:
    """What is always the same in latents (see `Layout`) and actions of a task, and NaN where it is not."""
    embedding = torch.cat([code.new_full((size.latent_dim,), torch.nan), code])
    action = code.new_zeros(size.action_dim)
    action[: size.tasks[task].action_dim] = torch.nan
    return torch.cat([embedding] * size.history + [action] * (size.history - 1)), action


def _layers(predictor: nn.Module) -> nn.Sequential:
    layers = predictor.layers if isinstance(predictor, EnsembleDynamics) else predictor
    assert isinstance(layers, nn.Sequential)
    return layers


def _fold(single: nn.Sequential, layers: nn.Sequential, fixed: Tensor, outputs: Tensor | None = None) -> None:
    """Copy layers: the first without its `fixed` inputs (those not NaN), of the last only some `outputs`."""
    states = [layer.state_dict() for layer in layers]
    states[0] = _without(fixed, **states[0])
    if outputs is not None:
        states[-1] = {name: value[outputs] for name, value in states[-1].items()}
    for layer, state in zip(single, states, strict=True):
        layer.load_state_dict(state)


def _without(fixed: Tensor, *, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A linear layer, or an ensemble of them, where some inputs are always the same."""
    is_fixed = ~fixed.isnan()
    is_ensemble = weight.ndim == 3
    rows = weight if is_ensemble else weight.T  # (*member, in, out)
    constant = fixed[is_fixed] @ rows[..., is_fixed, :]
    rows = rows[..., ~is_fixed, :]
    return {"weight": rows if is_ensemble else rows.T, "bias": bias + constant.view_as(bias)}
