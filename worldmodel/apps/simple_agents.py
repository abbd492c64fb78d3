"""Agents without a model: nothing, chance, a script, a user's function, and mixtures."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from worldmodel.apps.agent import Agent, Decision, batch_size
from worldmodel.apps.memory import Observation
from worldmodel.errors import ConfigError

_DRAWN = 0.6  # how much of the largest action draws a playing agent to things; its noise has this std


class ZeroAgent:
    """Always the action 0: what the task gives for nothing."""

    def __init__(self, action_dim: int) -> None:
        self._action_dim = action_dim

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> Decision:
        """0 for each environment."""
        zeros = np.zeros((batch_size(observation), self._action_dim), np.float32)
        return Decision(action=zeros, mean=zeros, std=zeros)


class RandomAgent:
    """Uniform in [-1, 1], each step anew."""

    def __init__(self, action_dim: int, generator: np.random.Generator) -> None:
        self._action_dim, self._generator = action_dim, generator

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> Decision:
        """Draw an action for each environment."""
        shape = (batch_size(observation), self._action_dim)
        action = self._generator.uniform(-1, 1, shape).astype(np.float32)
        return Decision(action=action, **_around_zero(shape, 1 / math.sqrt(3)))


class ColoredNoiseAgent:
    """Random actions that linger: pink noise (power 1 / f) reaches further than white noise does.

    Source: Eberhard et al. 2023, "Pink Noise Is All You Need"; spectrum by Timmer and Koenig 1995.
    """

    def __init__(
        self,
        action_dim: int,
        generator: np.random.Generator,
        *,
        exponent: float = 1.0,
        std: float = 0.6,
        period: int = 1024,
    ) -> None:
        self._action_dim, self._generator, self._period, self._std = action_dim, generator, period, std
        frequencies = np.fft.rfftfreq(period)
        frequencies[0] = frequencies[1]
        self._amplitudes = frequencies ** (-exponent / 2)
        self._noise = np.empty((0, period, action_dim), np.float32)
        self._step = np.empty(0, np.int64)

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Draw new noise for these environments."""
        if is_new is None or not len(self._step):
            self._step = np.empty(0, np.int64)
            return
        self._step[is_new] = 0
        self._noise[is_new] = self._draw(int(is_new.sum()))

    def act(self, observation: Observation) -> Decision:
        """The next piece of each environment's noise."""
        size = batch_size(observation)
        if len(self._step) != size:
            self._step, self._noise = np.zeros(size, np.int64), self._draw(size)
        action = self._noise[np.arange(size), self._step % self._period]
        self._step = self._step + 1
        return Decision(action=action, **_around_zero(action.shape, self._std))

    def _draw(self, size: int) -> np.ndarray:
        shape = (size, self._action_dim, len(self._amplitudes))
        spectrum = self._amplitudes * (
            self._generator.standard_normal(shape) + 1j * self._generator.standard_normal(shape)
        )
        noise = np.fft.irfft(spectrum, n=self._period, axis=-1)
        noise *= self._std / noise.std(axis=-1, keepdims=True)
        return noise.swapaxes(1, 2).clip(-1, 1).astype(np.float32)


class PlayAgent:
    """Plays with the things of a task: noise, drawn to the nearest that can be moved.

    Noise alone seldom touches anything, and a model of what is pushed cannot be learned from what is not.
    """

    def __init__(self, noise: ColoredNoiseAgent, to_play: Callable[[np.ndarray], np.ndarray]) -> None:
        self._noise, self._to_play = noise, to_play

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Draw new noise for these environments."""
        self._noise.reset(is_new)

    def act(self, observation: Observation) -> Decision:
        """The next piece of the noise, moved towards the nearest thing."""
        noise = self._noise.act(observation)
        shift = _DRAWN * self._to_play(observation["state"])
        mean = (noise.mean + shift).astype(np.float32)
        return Decision(
            action=(noise.action + shift).clip(-1, 1).astype(np.float32), mean=mean, std=noise.std
        )


class ScriptedAgent:
    """Plays recorded actions (T, A) in every environment, over and over."""

    def __init__(self, actions: np.ndarray, action_dim: int) -> None:
        self._actions, self._action_dim = actions, action_dim
        self._step = np.zeros(0, np.int64)

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Begin again where `is_new`."""
        if is_new is None or not len(self._step):
            self._step = np.zeros(0, np.int64)
        else:
            self._step[is_new] = 0

    def act(self, observation: Observation) -> Decision:
        """The next recorded action of each."""
        if len(self._step) != batch_size(observation):
            self._step = np.zeros(batch_size(observation), np.int64)
        action = self._actions[self._step % len(self._actions)]
        self._step = self._step + 1
        return _sure(action)


class FunctionAgent:
    """A user's function: observations {key: (B, ...)} and a generator in, actions (B, A) out.

    Errors: `ConfigError` where it returns anything else.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, np.ndarray], np.random.Generator], Any],
        action_dim: int,
        generator: np.random.Generator,
    ) -> None:
        self._function, self._action_dim, self._generator = function, action_dim, generator

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """A function has no state."""

    def act(self, observation: Observation) -> Decision:
        """Ask it."""
        action = np.asarray(self._function(observation, self._generator), np.float32)
        expected = (batch_size(observation), self._action_dim)
        if action.shape != expected or not np.isfinite(action).all():
            name = getattr(self._function, "__name__", "the policy")
            raise ConfigError(
                f"{name} returned shape {action.shape}: it must return finite actions {expected}"
            )
        return _sure(action.clip(-1, 1))


class MixedAgent:
    """Several agents, each for some of the environments: (agent, rows)."""

    def __init__(self, parts: list[tuple[Agent, np.ndarray]]) -> None:
        self._parts = parts

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Tell each of its own."""
        for agent, rows in self._parts:
            agent.reset(None if is_new is None else is_new[rows])

    def act(self, observation: Observation) -> Decision:
        """Each decides for its own."""
        columns: dict[str, np.ndarray] = {}
        for agent, rows in self._parts:
            decision = agent.act({key: values[rows] for key, values in observation.items()})
            for name in ("action", "mean", "std"):
                values = getattr(decision, name)
                if name not in columns:
                    columns[name] = np.empty((batch_size(observation), *values.shape[1:]), np.float32)
                columns[name][rows] = values
        return Decision(**columns)


def _sure(action: np.ndarray) -> Decision:
    return Decision(action=action, mean=action, std=np.zeros_like(action))


def _around_zero(shape: tuple[int, ...], std: float) -> dict[str, np.ndarray]:
    return {"mean": np.zeros(shape, np.float32), "std": np.full(shape, std, np.float32)}
