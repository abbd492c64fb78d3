"""The imagined futures of a plan's elites, as poses of the robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

import envs
from worldmodel.apps.cockpit.kinematics import Bodies, Kinematics
from worldmodel.apps.cockpit.ordinary import LatentReader
from worldmodel.apps.foresight import Foresight, ImaginingForesight, OracleForesight
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModel, imagine


@dataclass(frozen=True, kw_only=True)
class Futures:
    """What is imagined now.

    Attributes:
        bodies: of each elite (best first) at each step, the first of which is now: (elite, step).
        num_planned: steps that the plan's own actions make; those after them are the policy's.
        returns: of the elites, as the planner scored them.
    """

    bodies: Bodies
    num_planned: int
    returns: np.ndarray


@runtime_checkable
class FutureSource(Protocol):
    """Where the elites' futures come from."""

    def poses(self, actions: Tensor) -> tuple[np.ndarray, int]:
        """Poses (elite, step, nq) of actions (elite, H, A), the first of which is now; steps planned."""


class OracleFutures:
    """Plays the elites in copies of the simulator: what will be, if nothing disturbs it."""

    def __init__(self, foresight: OracleForesight, simulation: envs.Simulation) -> None:
        self._oracle, self._simulation = foresight.oracle, simulation

    def poses(self, actions: Tensor) -> tuple[np.ndarray, int]:
        """See `FutureSource`."""
        candidates = actions[None].cpu().numpy()
        after = self._oracle.positions([self._simulation], candidates)[0]
        now = np.broadcast_to(self._simulation.data.qpos, (len(after), 1, after.shape[-1]))
        return np.concatenate([now, after], axis=1), actions.shape[1]


class ImaginedFutures:
    """Rolls the model forward from what it remembers; beyond the plan a policy prior goes on.

    Attributes:
        num_steps: that are shown, at least the plan's own.
    """

    def __init__(
        self,
        foresight: ImaginingForesight,
        reader: LatentReader,
        simulation: envs.Simulation,
        *,
        period_s: float,
        num_steps: int,
    ) -> None:
        self._foresight, self._reader, self._simulation = foresight, reader, simulation
        self._period_s, self.num_steps = period_s, num_steps

    @torch.no_grad()
    def poses(self, actions: Tensor) -> tuple[np.ndarray, int]:
        """See `FutureSource`. It needs a decision to have been made."""
        past = self._foresight.memory.past
        assert past is not None, "nothing was decided yet"
        model = self._foresight.model
        latents = imagine(model, past.latent.expand(len(actions), -1), actions.to(past.latent))
        further = self._further(model, latents[:, -1], self.num_steps - actions.shape[1])
        data = self._simulation.data
        poses = self._reader.poses(
            torch.cat([latents, *further], dim=1).cpu(), data.qpos.copy(), data.qvel.copy(), self._period_s
        )
        return poses, actions.shape[1]

    def _further(self, model: LatentModel, latent: Tensor, num_steps: int) -> list[Tensor]:
        """The policy's steps after the plan's."""
        if not isinstance(model, WorldModel):
            return []
        found = []
        for _ in range(num_steps):
            latent = model.step(latent, model.policy.best_action(latent))
            found.append(latent[:, None])
        return found


def foresee(source: FutureSource, kinematics: Kinematics, actions: Tensor, returns: Tensor) -> Futures:
    """The futures of elites: actions (elite, H, A) and returns (elite,)."""
    poses, num_planned = source.poses(actions)
    return Futures(
        bodies=kinematics.bodies(poses), num_planned=num_planned, returns=returns.cpu().numpy().copy()
    )


def future_source(
    foresight: Foresight,
    reader: LatentReader | None,
    simulation: envs.Simulation,
    *,
    period_s: float | None,
    num_steps: int,
) -> FutureSource:
    """That of a foresight; `num_steps` are shown where it imagines.

    Errors: `ConfigError` where it imagines, and nobody knows how long a step takes.
    """
    if isinstance(foresight, OracleForesight):
        return OracleFutures(foresight, simulation)
    assert isinstance(foresight, ImaginingForesight)
    assert reader is not None
    if period_s is None:
        raise ConfigError("the task does not say how fast it is controlled, which imagined poses need")
    return ImaginedFutures(foresight, reader, simulation, period_s=period_s, num_steps=num_steps)
