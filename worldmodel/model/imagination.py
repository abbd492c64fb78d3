"""Rolling the model forward, no environment involved."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.model.latent_model import LatentModel
from worldmodel.model.world_model import WorldModel


def imagine(
    model: LatentModel,
    latent: Float[Tensor, "*batch latent"],
    actions: Float[Tensor, "*batch horizon action"],
) -> Float[Tensor, "*batch horizon_plus_1 latent"]:
    """Latents before and after each action."""
    latents = [latent]
    for action in actions.unbind(-2):
        latents.append(model.step(latents[-1], action))
    return torch.stack(latents, dim=-2)


def estimate_return(
    model: WorldModel,
    latent: Float[Tensor, "batch latent"],
    candidates: Float[Tensor, "batch candidate horizon action"],
    *,
    discount: float,
    disagreement_weight: float = 0.0,
) -> Float[Tensor, "batch candidate"]:
    """Imagined discounted return of each candidate, with the value of the last latent (TD-MPC2, eq. 6).

    With a continuation head each reward counts as much as the episode is expected to have gone on.
    `disagreement_weight` takes off each reward what the predictors disagree about the step (MOPO: Yu et al.
    2020, arXiv 2005.13239, section 4.2).
    """
    horizon = candidates.shape[2]
    latents = imagine(model, latent[:, None].expand(-1, candidates.shape[1], -1), candidates)
    weights = discount ** torch.arange(horizon + 1, dtype=latents.dtype, device=latents.device)
    # (B, N, H + 1): the chance to be still going when the step is taken.
    weights = weights.expand(latents.shape[:-1])
    if model.size.predicts_continuation:
        going_on = model.continuation(latents[:, :, 1:]).cumprod(-1)
        weights = weights * torch.cat([torch.ones_like(going_on[..., :1]), going_on], dim=-1)
    rewards = model.reward(latents[:, :, :-1], candidates)
    if disagreement_weight:
        rewards = rewards - disagreement_weight * model.disagreement(latents[:, :, :-1], candidates)
    values = model.value(latents[:, :, -1])
    return (rewards * weights[..., :-1]).sum(-1) + values * weights[..., -1]


def goal_distance(
    model: LatentModel,
    latent: Float[Tensor, "batch latent"],
    goal: Float[Tensor, "batch embedding"],
    candidates: Float[Tensor, "batch candidate horizon action"],
    *,
    last_weight: float = 0.5,
    state_weight: float = 1.0,
    disagreement_weight: float = 0.0,
) -> Float[Tensor, "batch candidate"]:
    """How near the imagined future comes to a goal: minus the squared distance to its embedding.

    The mean over all steps and the last step alone, mixed by `last_weight`: with the last alone, a plan may
    come late (eb_jepa, arXiv 2602.03604: 89 % against 97). Of a model that observes state and images,
    `state_weight` is how much the state's part counts (DINO-WM's alpha, arXiv 2411.04983); the images' counts
    1. `disagreement_weight` takes off what the predictors disagree along the way.
    """
    latents = imagine(model, latent[:, None].expand(-1, candidates.shape[1], -1), candidates)
    reached = model.layout.current(latents[:, :, 1:])
    errors = (reached - goal[:, None, None]).square()
    split = model.size.state_embedding_dim if state_weight != 1.0 else 0
    distance = state_weight * errors[..., :split].sum(-1) + errors[..., split:].sum(-1)
    score = -(last_weight * distance[..., -1] + (1 - last_weight) * distance.mean(-1))
    if disagreement_weight:
        doubt = model.disagreement(latents[:, :, :-1], candidates).square().mean(-1)
        score = score - disagreement_weight * doubt * goal.shape[-1]
    return score


def propose(
    model: WorldModel,
    latent: Float[Tensor, "batch latent"],
    noise: Float[Tensor, "batch proposal horizon action"],
) -> Float[Tensor, "batch proposal horizon action"]:
    """Candidates from the policy prior, imagined forward; standard normal `noise`."""
    latent = latent[:, None].expand(-1, noise.shape[1], -1)
    actions = []
    for step_noise in noise.unbind(-2):
        action, _ = model.policy.sample(latent, step_noise)
        actions.append(action)
        latent = model.step(latent, action)
    return torch.stack(actions, dim=-2)
