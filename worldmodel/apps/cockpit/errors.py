"""Model error: what a model imagined, against what is seen, so many steps later."""

from __future__ import annotations

from collections import deque
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

import envs
from worldmodel.apps.cockpit.ordinary import LatentReader, Ordinary
from worldmodel.apps.foresight import Foresight, ImaginingForesight, OracleForesight
from worldmodel.apps.memory import Memory, Observation, to_tensors
from worldmodel.model import LatentModel, imagine

FAR_STEPS = 10  # model error is told of 1 step and of so many
Errors = dict[int, float]  # by how many steps ahead was imagined; root mean square, in standard deviations


@runtime_checkable
class ErrorWatch(Protocol):
    """Watches one robot; 0 is no error, 1 is as bad as guessing the mean of ordinary episodes."""

    def reset(self) -> None:
        """A new episode."""

    def see(self, observation: Observation) -> Errors:
        """Of what is observed now {key: (1, ...)}: the errors of what was imagined of it."""

    def note(self, action: np.ndarray) -> None:
        """Be told what is done next (1, A), before it is done."""


class LearnedErrors:
    """Of a learned model: states read out of latents that were imagined 1 and `FAR_STEPS` steps ago."""

    def __init__(self, model: LatentModel, reader: LatentReader, ordinary: Ordinary) -> None:
        self._model, self._reader, self._ordinary = model, reader, ordinary
        self._memory = Memory(model)
        self._latents: deque[Tensor] = deque(maxlen=FAR_STEPS)
        self._actions: deque[Tensor] = deque(maxlen=FAR_STEPS)

    def reset(self) -> None:
        """A new episode."""
        self._memory.reset()
        self._latents.clear()
        self._actions.clear()

    @torch.no_grad()
    def see(self, observation: Observation) -> Errors:
        """See `ErrorWatch`."""
        seen = self._ordinary.scaled(observation["state"][0])
        errors: Errors = {}
        for ahead in (1, FAR_STEPS):
            if len(self._actions) >= ahead:
                actions = torch.stack(list(self._actions)[-ahead:], dim=-2)
                latent = imagine(self._model, self._latents[-ahead], actions)[:, -1]
                imagined = self._reader.states(latent.cpu())[0]
                errors[ahead] = float(np.sqrt(np.mean((imagined - seen) ** 2)))
        device = next(self._model.parameters()).device
        self._latents.append(self._memory.see(to_tensors(observation, device)))
        return errors

    def note(self, action: np.ndarray) -> None:
        """See `ErrorWatch`."""
        self._memory.note(action)
        self._actions.append(torch.from_numpy(np.asarray(action, np.float32)).to(self._latents[-1]))


class OracleErrors:
    """Of the simulator: it errs where it is pushed, for it knows nothing of forces from outside."""

    def __init__(self, oracle: envs.Oracle, simulation: envs.Simulation, ordinary: Ordinary) -> None:
        self._oracle, self._simulation, self._ordinary = oracle, simulation, ordinary
        self._expected: np.ndarray | None = None

    def reset(self) -> None:
        """A new episode."""
        self._expected = None

    def see(self, observation: Observation) -> Errors:
        """See `ErrorWatch`."""
        if self._expected is None:
            return {}
        difference = self._ordinary.scaled(self._expected) - self._ordinary.scaled(observation["state"][0])
        return {1: float(np.sqrt(np.mean(difference**2)))}

    def note(self, action: np.ndarray) -> None:
        """See `ErrorWatch`."""
        _, observation = self._oracle.play([self._simulation], action[:, None, None])
        self._expected = observation["state"][0, 0, 0]


def error_watch(foresight: Foresight, simulation: envs.Simulation, ordinary: Ordinary) -> ErrorWatch:
    """That of a foresight."""
    if isinstance(foresight, OracleForesight):
        return OracleErrors(foresight.oracle, simulation, ordinary)
    assert isinstance(foresight, ImaginingForesight)
    assert ordinary.reader is not None
    return LearnedErrors(foresight.model, ordinary.reader, ordinary)
