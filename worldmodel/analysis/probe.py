"""Probes: what can be read out of a frozen latent, on episodes that the probe has not seen."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from worldmodel.analysis.readout import fit_readout
from worldmodel.model.layers import mlp

KINDS = ("linear", "mlp")
_HIDDEN, _BATCH, _NUM_UPDATES, _RATE, _WEIGHT_DECAY = (128, 128), 512, 2000, 2e-3, 1.0
_JUDGES = 6  # one in so many episodes says how good the network is
_LOOK_EVERY = 100  # updates
_NUM_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Fit:
    """R2 of one quantity on held-out episodes: 1 is perfect, 0 no better than their mean; 95 % interval."""

    r2: float
    low: float
    high: float


def probe(
    kind: str,
    features: tuple[Float[Tensor, "row feature"], Float[Tensor, "other feature"]],
    targets: tuple[Float[np.ndarray, "row target"], Float[np.ndarray, "other target"]],
    episodes: tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " other"]],
    *,
    seed: int,
) -> list[Fit]:
    """Fit on the first of each pair, judge on the second; `episodes` says to which episode rows belong.

    `linear` is ridge regression; `mlp` a small network, or for a quantity that it reads worse, that. The
    interval is a bootstrap over episodes, whose rows are no independent values.
    """
    (train, test), (wanted, true) = features, targets
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    shift, scale = wanted.mean(0), wanted.std(0) + 1e-9
    scaled = torch.from_numpy((wanted - shift) / scale).float()
    predicted = fit_readout(train, scaled)(test)
    if kind == "mlp":
        predicted = _better(predicted, (train, test), scaled, episodes[0], seed)
    read = predicted.numpy() * scale + shift
    return [_judge(read[:, i], true[:, i], episodes[1], seed) for i in range(true.shape[1])]


def _better(
    read: Tensor, features: tuple[Tensor, Tensor], targets: Tensor, episode: np.ndarray, seed: int
) -> Tensor:
    """`read`, or what a network says of the second of `features` where that is better.

    Of each target when it is best, and whether it is, say episodes that are kept from it.
    """
    train, test = features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mlp(train.shape[1], _HIDDEN, targets.shape[1])
    is_kept = torch.from_numpy(np.isin(episode, np.unique(episode)[1::_JUDGES]))
    (x, kept_x), (y, kept_y) = ((part[~is_kept], part[is_kept]) for part in (train, targets))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _NUM_UPDATES)
    chance = torch.Generator().manual_seed(seed)
    least = (fit_readout(x, y)(kept_x) - kept_y).square().mean(0)
    for update in range(1, _NUM_UPDATES + 1):
        rows = torch.randint(len(x), (_BATCH,), generator=chance)
        loss = (network(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % _LOOK_EVERY == 0:
            with torch.no_grad():
                error = (network(kept_x) - kept_y).square().mean(0)
                read = torch.where(error < least, network(test), read)
            least = torch.minimum(error, least)
    return read


def _judge(predicted: np.ndarray, true: np.ndarray, episode: np.ndarray, seed: int) -> Fit:
    names, rows = np.unique(episode, return_inverse=True)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(rows, values, minlength=len(names))

    count, total = sums(np.ones_like(true)), sums(true)
    squares, errors = sums(np.square(true)), sums(np.square(true - predicted))

    def r2(weights: np.ndarray) -> np.ndarray:
        """Of how often each episode counts, (..., episodes)."""
        n, mean = weights @ count, weights @ total
        spread = weights @ squares - np.square(mean) / n
        return np.asarray(1 - weights @ errors / np.maximum(spread, 1e-12))

    even = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), even, _NUM_RESAMPLES)
    low, high = np.percentile(r2(drawn.astype(float)), [2.5, 97.5])
    return Fit(r2=float(r2(np.ones(len(names)))), low=float(low), high=float(high))
