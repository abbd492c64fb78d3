"""What is ordinary for a robot: episodes played first, to which all that is shown later is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import envs
from worldmodel.analysis import QuadraticReadout, fit_quadratic_readout, latents_of
from worldmodel.apps.alarm import Calibration, Monitor, Trace
from worldmodel.apps.build import action_dim, build_env
from worldmodel.apps.cockpit.pose import Known, PoseFeatures
from worldmodel.apps.rollout import Collector
from worldmodel.apps.simple_agents import ColoredNoiseAgent
from worldmodel.apps.trained import TrainedRun, make_agent
from worldmodel.data import Episode
from worldmodel.model import LatentModel, WorldModel
from worldmodel.model.encoder import StateFeatures

NUM_EPISODES = 4  # of each agent
_SEED = 3_000_017  # far from the episodes that are watched
_LEAST_STD = 1e-6  # of what moves
_TOLD_EXACT = "Futures are played in copies of the simulator: poses are exact."

Tell = Callable[[int, int], None]  # how many episodes are done, of how many


@dataclass(frozen=True, kw_only=True)
class LatentReader:
    """Reads poses and observed states out of a model's latents, by quadratic maps.

    Attributes:
        known: what of each part of a pose can be read, on episodes that the map was not fitted to.
        pose_r2: the R2 of the pose there, of the parts whose position is known; None where none is.
        state_error: of states read from latents of what is seen, there: root mean square in stds.
    """

    features: PoseFeatures
    known: list[Known]
    pose_r2: float | None
    state_error: float
    _map: QuadraticReadout
    _num_states: int

    def poses(self, latents: Tensor, qpos: np.ndarray, qvel: np.ndarray, period_s: float) -> np.ndarray:
        """Imagined poses (..., step, nq), from latents (..., step, L) the first of which is now."""
        features = self._map(latents)[..., self._num_states :].double().numpy()
        return self.features.positions(features, self.known, qpos, qvel, period_s)

    def states(self, latents: Tensor) -> np.ndarray:
        """What a state is in these latents, in standard deviations: (..., moving feature)."""
        return self._map(latents)[..., : self._num_states].numpy()


@dataclass(frozen=True, kw_only=True)
class Ordinary:
    """What was learned from ordinary episodes.

    Attributes:
        reader: of a learned model's latents; None without one.
        surprise: what is ordinary of it; None without a learned model.
        told: how all that was found, in a sentence for people.
    """

    reader: LatentReader | None
    surprise: Calibration | None
    told: str
    _angles: tuple[int, ...]
    _moving: np.ndarray
    _mean: np.ndarray
    _std: np.ndarray

    def scaled(self, state: np.ndarray) -> np.ndarray:
        """Observed states (..., O) as their moving features, in standard deviations."""
        features = _state_features(state, self._angles)[..., self._moving]
        return (features - self._mean) / self._std


def learn_ordinary(
    run: TrainedRun | None,
    task: str,
    env_config: dict[str, Any],
    simulation: envs.Simulation,
    *,
    plays_exactly: bool,
    tell: Tell,
) -> Ordinary:
    """Play a few episodes by the policy prior, if there is one, and a few by coloured noise.

    `plays_exactly`: futures come from the simulator.
    """
    model = None if run is None else run.model
    observed = () if model is None else model.size.observes
    config = env_config | {"observe": ["state", *(key for key in observed if key != "state")]}
    names = ["policy", "colored"] if isinstance(model, WorldModel) else ["colored"]
    played: dict[str, list[Episode]] = {}
    angles: tuple[int, ...] = ()
    for index, name in enumerate(names):
        env = build_env(task, config, num_envs=NUM_EPISODES, seed=_SEED + index)
        with closing(env):
            angles = env.angles
            played[name] = _play(env, run, name)
        tell((index + 1) * NUM_EPISODES, len(names) * NUM_EPISODES)
    episodes = [episode for each in played.values() for episode in each]
    states = np.concatenate([_state_features(each.observation["state"], angles) for each in episodes])
    moving = np.flatnonzero(states.std(axis=0) > _LEAST_STD)
    mean, std = states[:, moving].mean(axis=0), states[:, moving].std(axis=0)
    plain = Ordinary(
        reader=None, surprise=None, told=_TOLD_EXACT, _angles=angles, _moving=moving, _mean=mean, _std=std
    )
    if model is None:
        return plain
    reader = _fitted(model, plain, episodes, simulation)
    ordinary = played[names[0]]
    surprise = Calibration.of([_trace(model, each) for each in ordinary], 1 / (len(ordinary) + 1))
    told = plain.told if plays_exactly else _told(reader, names)
    return replace(plain, reader=reader, surprise=surprise, told=told)


def _told(reader: LatentReader, names: Sequence[str]) -> str:
    who = " and ".join("the policy prior" if name == "policy" else "coloured noise" for name in names)
    shares = [reader.known.count(what) for what in ("position", "velocity", "nothing")]
    parts = [f"{shares[0]} of {len(reader.known)} joint coordinates"]
    if reader.pose_r2 is not None:
        parts[0] += f" (R2 {reader.pose_r2:.2f} on episodes held out)"
    if shares[1]:
        parts.append(f"{shares[1]} by velocity")
    if shares[2]:
        parts.append(f"{shares[2]} not at all")
    return (
        f"Imagined poses are read out of the latent: a quadratic map, fitted to {NUM_EPISODES} episodes each "
        f"of {who}, reads {', '.join(parts)}. They go on from the pose that is seen now."
    )


def _play(env: envs.TaskVectorEnv, run: TrainedRun | None, name: str) -> list[Episode]:
    size = action_dim(env)
    agent = (
        ColoredNoiseAgent(size, np.random.default_rng(_SEED))
        if run is None
        else make_agent(name, size, seed=_SEED, run=run)
    )
    collector = Collector(env, records_physics=True, leaves_out_diverged=True)
    agent.reset()
    episodes: list[Episode] = []
    while len(episodes) < env.num_envs:
        episodes += [episode for _, episode in collector.step(agent, {})]
    return episodes[: env.num_envs]


def _state_features(state: np.ndarray, angles: tuple[int, ...]) -> np.ndarray:
    tensor = torch.from_numpy(np.array(state, np.float32))
    return StateFeatures(tensor.shape[-1], angles)(tensor).numpy()


def _fitted(
    model: LatentModel, ordinary: Ordinary, episodes: Sequence[Episode], simulation: envs.Simulation
) -> LatentReader:
    """Fitted to all but every fourth episode, which tells what can be read."""
    features = PoseFeatures(simulation.model)
    nq, nv = simulation.model.nq, simulation.model.nv
    num_states = len(ordinary._moving)

    def rows(chosen: Sequence[Episode]) -> tuple[Tensor, Tensor]:
        latents, targets = [], []
        for episode in chosen:
            physics = np.asarray(episode.extra["physics_state"])
            qpos, qvel = physics[:, 1 : 1 + nq], physics[:, 1 + nq : 1 + nq + nv]
            states = ordinary.scaled(episode.observation["state"][:-1])
            latents.append(latents_of(model, episode)[:-1].cpu())
            targets.append(torch.from_numpy(np.concatenate([states, features(qpos, qvel)], axis=1)).float())
        return torch.cat(latents), torch.cat(targets)

    held_out = rows(episodes[::4])
    fitted = fit_quadratic_readout(*rows([each for index, each in enumerate(episodes) if index % 4]))
    residual = held_out[1] - fitted(held_out[0])
    spread = held_out[1].var(0).clamp(min=_LEAST_STD**2)
    r2 = (1 - residual.square().mean(0) / spread).numpy()
    known = features.known(r2[num_states:])
    read = [
        float(r2[num_states:][part.features].mean())
        for part, what in zip(features.parts, known, strict=True)
        if what == "position"
    ]
    return LatentReader(
        features=features,
        known=known,
        pose_r2=float(np.mean(read)) if read else None,
        state_error=float(residual[:, :num_states].square().mean().sqrt()),
        _map=fitted,
        _num_states=num_states,
    )


def _trace(model: LatentModel, episode: Episode) -> Trace:
    """What a monitor of the episode would have seen."""
    monitor, trace = Monitor(model), Trace()
    seen = {key: episode.observation[key] for key in model.size.observes}
    for step in range(len(episode.action) + 1):
        trace.see(monitor, {key: np.array(value[step : step + 1]) for key, value in seen.items()})
        if step < len(episode.action):
            monitor.note(np.array(episode.action[step][None]))
    return trace
