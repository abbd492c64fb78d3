"""Where a robot is that was last seen a while ago, and where it will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

import envs
from worldmodel.apps.foresight import ImaginingForesight, OracleForesight
from worldmodel.apps.memory import Observation, to_tensors
from worldmodel.apps.outlook import Outlook
from worldmodel.apps.realtime.robot import Sighting

Actions = Mapping[int, np.ndarray]  # what was told to be done in each step, in [-1, 1]


@runtime_checkable
class Belief(Protocol):
    """Where the robot is, and where it will be, as far as one can know."""

    def reset(self, seed: int) -> None:
        """A new episode."""

    def see(self, sighting: Sighting, actions: Actions) -> None:
        """Take in what was seen; what is older than what is known already tells nothing new."""

    def outlook(self, step: int, actions: Actions) -> Any:
        """From where it will be in that step, having done `actions` until then."""


class LatentBelief:
    """In a learned model's latent space: sightings that are missing, and what is to come, are imagined.

    `on_reset` is told the seed of each new episode.
    """

    def __init__(
        self, foresight: ImaginingForesight, on_reset: Callable[[int], None] = lambda seed: None
    ) -> None:
        self._foresight, self._model, self._on_reset = foresight, foresight.model, on_reset
        self._latent: Tensor | None = None
        self._step = 0

    def reset(self, seed: int) -> None:
        """A new episode."""
        self._on_reset(seed)
        self._foresight.reset()
        self._latent = None

    @torch.no_grad()
    def see(self, sighting: Sighting, actions: Actions) -> None:
        """Take it in."""
        if self._latent is not None and sighting.step <= self._step:
            return
        batch: Observation = {key: np.asarray(value)[None] for key, value in sighting.observation.items()}
        embedding = self._model.embed(to_tensors(batch, self._foresight.device))
        if self._latent is None:
            self._latent = self._model.layout.start(embedding)
        else:
            before = self._imagined(sighting.step - 1, actions)
            done = self._action(actions[sighting.step - 1])
            self._latent = self._model.layout.advance(before, done, embedding)
        self._step = sighting.step

    @torch.no_grad()
    def outlook(self, step: int, actions: Actions) -> Outlook:
        """Imagine forward, then look from there."""
        return self._foresight.outlook_from(self._imagined(step, actions))

    def _imagined(self, step: int, actions: Actions) -> Tensor:
        latent = self._latent
        assert latent is not None
        for index in range(self._step, step):
            latent = self._model.step(latent, self._action(actions[index]))
        return latent

    def _action(self, action: np.ndarray) -> Tensor:
        assert self._latent is not None
        return torch.from_numpy(np.asarray(action, np.float32)).to(self._latent)[None]


class PhysicsBelief:
    """In a simulator of one's own, from the physics state that a simulated robot shows."""

    def __init__(self, env: envs.SyncTaskVectorEnv, foresight: OracleForesight) -> None:
        self._env, self._foresight = env, foresight
        self._state: np.ndarray | None = None
        self._seed = self._step = 0

    def reset(self, seed: int) -> None:
        """A new episode: what a reset draws into the model (a target's place) is drawn alike."""
        self._seed, self._state = seed, None
        self._env.reset(seed=[seed])

    def see(self, sighting: Sighting, actions: Actions) -> None:
        """Take it in."""
        if self._state is None or sighting.step > self._step:
            self._state, self._step = sighting.physics_state, sighting.step

    def outlook(self, step: int, actions: Actions) -> Outlook:
        """Play forward, then look from there."""
        assert self._state is not None
        env = self._env.task_envs[0]
        env.set_physics_state(self._state)
        for index in range(self._step, step):
            _, _, terminated, truncated, _ = env.step(actions[index])
            if terminated or truncated:  # of the steps played here in all, not of the robot's
                state = env.physics_state()
                env.reset(seed=self._seed)
                env.set_physics_state(state)
        return self._foresight.outlook({})  # without a learned part nobody looks at an observation
