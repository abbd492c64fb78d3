"""What keeps embeddings from collapsing: without it, a constant would predict itself perfectly.

All of it looks at the whole batch at once: `processes` are those that hold its parts, one alone by default.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.training.processes import ALONE, Processes

_NUM_KNOTS, _LAST_KNOT = 17, 3.0
_NUM_WATCHED = 64  # directions


def random_directions(
    num_directions: int, dim: int, generator: torch.Generator
) -> Float[Tensor, "dim direction"]:
    """Unit vectors, drawn on the CPU so that every device sees the same."""
    drawn = torch.randn(dim, num_directions, generator=generator)
    return drawn / drawn.norm(dim=0)


def sigreg(
    embeddings: Float[Tensor, "time batch dim"],
    directions: Float[Tensor, "dim direction"],
    processes: Processes = ALONE,
) -> Float[Tensor, ""]:
    """How far embeddings are from a standard normal distribution, along random directions.

    The Epps-Pulley statistic of each time's batch, mean over times and directions: about 1.1 for standard
    normal numbers, whatever the batch size; it grows with the batch for others.

    Source: Balestriero and LeCun 2025, "LeJEPA", arXiv 2511.08544, section 4 (the integral by 17 knots on
    [0, 3], as in LeWM, arXiv 2603.19312).
    """
    knots = torch.linspace(0.0, _LAST_KNOT, _NUM_KNOTS, dtype=embeddings.dtype, device=embeddings.device)
    spacing = _LAST_KNOT / (_NUM_KNOTS - 1)
    weights = torch.full_like(knots, 2 * spacing)  # both signs of a knot
    weights[[0, -1]] = spacing
    normal = (-0.5 * knots.square()).exp()  # the characteristic function of N(0, 1)
    angles = (embeddings @ directions)[..., None] * knots  # time, batch, direction, knot
    real, imaginary = processes.mean(angles.cos().mean(1)), processes.mean(angles.sin().mean(1))
    error = (real - normal).square() + imaginary.square()
    return embeddings.shape[1] * processes.count * (error * normal * weights).sum(-1).mean()


def variance_loss(embeddings: Float[Tensor, "row dim"], processes: Processes = ALONE) -> Float[Tensor, ""]:
    """How much the std of each dimension lacks of 1 (VICReg: Bardes et al. 2022, arXiv 2105.04906, eq. 1)."""
    std = (processes.variance(embeddings) + 1e-4).sqrt()
    return (1 - std).clamp(min=0).mean()


def covariance_loss(embeddings: Float[Tensor, "row dim"], processes: Processes = ALONE) -> Float[Tensor, ""]:
    """How much dimensions go together (VICReg, eq. 4)."""
    centred = embeddings - processes.mean(embeddings.mean(0))
    covariance = processes.mean(centred.T @ centred) / (len(embeddings) - 1 / processes.count)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / embeddings.shape[1]


@torch.no_grad()
def signs_of_collapse(embeddings: Float[Tensor, "row dim"]) -> Mapping[str, Tensor]:
    """`spread`, and SIGReg's value along directions that are always the same."""
    rows = embeddings.float()
    generator = torch.Generator().manual_seed(0)
    directions = random_directions(_NUM_WATCHED, rows.shape[1], generator).to(rows)
    return {**spread(rows), "embedding_sigreg": sigreg(rows[None], directions)}


@torch.no_grad()
def spread(embeddings: Float[Tensor, "row dim"]) -> Mapping[str, Tensor]:
    """Signs of collapse: mean std over dimensions, and how many dimensions are used.

    The latter is the effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli
    2007); `dim` where all are used alike, 1 for a line.
    """
    centred = (embeddings - embeddings.mean(0)).float()
    variances = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0).sqrt()
    shares = variances / variances.sum().clamp(min=1e-12)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return {"embedding_std": centred.std(0).mean(), "embedding_rank": entropy.exp()}
