"""Surprise: what a model expected, against what is then seen; and from when on it is out of the ordinary."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

Signals = Mapping[str, float]  # what is watched, by name, at one step
LEAST = 1e-12  # surprise, of which there is a logarithm


def surprise(
    predicted: Float[Tensor, "*batch embedding"], seen: Float[Tensor, "*batch embedding"]
) -> Float[Tensor, "*batch"]:
    """Squared error of the predicted embedding (violation of expectation, as in LeWM, arXiv 2603.19312)."""
    return (predicted - seen).square().sum(-1)


def typical(surprises: Sequence[float] | np.ndarray) -> float:
    """The geometric mean: surprises are spread over decades, and few steps must not be all that counts."""
    return float(np.exp(np.log(np.asarray(surprises) + LEAST).mean()))


def num_episodes_for(rate: float) -> int:
    """How many ordinary episodes `thresholds` needs for a rate."""
    return math.ceil(1 / rate) - 1


def thresholds(episodes: Sequence[Sequence[Signals]], rate: float) -> dict[str, float]:
    """For each signal what at most a share `rate` of ordinary episodes ever exceeds.

    A quantile of the episodes' highest values, corrected for their number: whatever the distribution, one
    more episode of the same kind exceeds it with a probability of `rate` at most (split conformal prediction:
    Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv 2107.07511, section 1).
    Errors: `ValueError` for fewer episodes than `num_episodes_for(rate)`.
    """
    rank = math.ceil((len(episodes) + 1) * (1 - rate))
    if rank > len(episodes):
        needed = num_episodes_for(rate)
        raise ValueError(f"a rate of {rate} needs {needed} episodes, there are {len(episodes)}")
    names = {name for episode in episodes for signals in episode for name in signals}
    return {
        name: float(np.sort([highest(episode, name) for episode in episodes])[rank - 1])
        for name in sorted(names)
    }


def highest(episode: Sequence[Signals], name: str) -> float:
    """The highest value of a signal in an episode; 0 where it never was."""
    return max((signals[name] for signals in episode if name in signals), default=0.0)


def level(signals: Signals, limits: Mapping[str, float]) -> float:
    """The highest signal that has a threshold, as a multiple of it: an alarm above 1."""
    known = signals.keys() & limits.keys()
    return max((signals[name] / max(limits[name], 1e-12) for name in known), default=0.0)
