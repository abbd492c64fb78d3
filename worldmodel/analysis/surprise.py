"""Surprise: what a model expected, against what is then seen; and from when on it is out of the ordinary."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

Signals = Mapping[str, float]  # what is watched, by name, at one step
LEAST = 1e-12  # surprise, of which there is a logarithm
_EVEN_SHARE = 0.05  # of the mean spread of errors, in every direction: few episodes show it of few directions


def surprise(
    error: Float[np.ndarray, "*batch embedding"],
    whitening: Float[np.ndarray, "embedding embedding"] | None = None,
) -> Float[np.ndarray, "*batch"]:
    """Squared error of a predicted embedding (violation of expectation, as in LeWM, arXiv 2603.19312).

    With `whitening`, of the error in units of ordinary ones (Mahalanobis 1936): not how large it is counts,
    but how rare. What is foreseen to a hair is then as surprising, where it fails, as what never is.
    """
    return np.asarray(np.square(error if whitening is None else error @ whitening).sum(-1))


def whitening(
    episodes: Sequence[Float[np.ndarray, "_ embedding"]],
) -> Float[np.ndarray, "embedding embedding"]:
    """A map after which ordinary errors (step, embedding) have a spread of about 1 in every direction."""
    return _whitening(sum(map(_product, episodes)), sum(map(len, episodes)))


def whitenings_of_others(
    episodes: Sequence[Float[np.ndarray, "_ embedding"]],
) -> Iterator[Float[np.ndarray, "embedding embedding"]]:
    """For each episode the map by all others, one after another; a single episode has its own.

    In units of its own errors an episode would seem more ordinary than one that is yet to come.
    """
    if len(episodes) == 1:
        yield whitening(episodes)
        return
    total, count = sum(map(_product, episodes)), sum(map(len, episodes))
    for each in episodes:
        yield _whitening(total - _product(each), count - len(each))


def _product(errors: np.ndarray) -> np.ndarray:
    """Errors times themselves, summed over the steps (D, D)."""
    return np.asarray(errors, np.float64).T @ errors


def _whitening(product: np.ndarray | int, count: int) -> np.ndarray:
    """The inverse of the square root of the errors' spread (D, D)."""
    spread = np.asarray(product) / count
    even = np.trace(spread) / len(spread)
    mixed = (1 - _EVEN_SHARE) * spread + _EVEN_SHARE * even * np.eye(len(spread))
    values, directions = np.linalg.eigh(mixed + LEAST * np.eye(len(spread)))
    return (directions / np.sqrt(values) @ directions.T).astype(np.float32)


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
    """The highest signal that has a threshold, as a multiple of it: above 1, or no number: an alarm."""
    known = signals.keys() & limits.keys()
    levels = [signals[name] / max(limits[name], 1e-12) for name in known]
    return max((math.inf if math.isnan(each) else each for each in levels), default=0.0)
