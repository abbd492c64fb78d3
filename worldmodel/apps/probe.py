"""What a model has understood: physical quantities read out of its frozen latents, against baselines."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs
from worldmodel.analysis import latents_of
from worldmodel.analysis.probe import KINDS, Fit, probe
from worldmodel.apps.bench.output import check_names, provenance
from worldmodel.apps.build import build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.probe_report import FEATURES, write_report
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel
from worldmodel.training import fresh_like

_COARSE = 16  # pixels along each side of an image that a probe looks at itself
_LEAST_STD = 1e-6  # what varies less has nothing to be read


def run_probe(config: dict[str, Any], given: set[str]) -> list[dict[str, Any]]:
    """Fit probes, then write `probe.csv`, `.md`, `.png` and `.json`; returns the rows.

    `config` is that of `configs/probe.yaml`. Errors: `ConfigError`, `DatasetError`, `CheckpointError` or
    `RunError` for a user's mistake.
    """
    positive(config, "episodes", "every")
    not_negative(config, "seed")
    check_names("kinds", config["kinds"], list(KINDS))
    if not 0 < config["held_out"] < 1:
        raise ConfigError(f"held_out={config['held_out']}: a share of the episodes, between 0 and 1")
    run = open_run(config["checkpoint"], task=config["task"])
    episodes = _episodes(config, run)
    order = np.random.default_rng(config["seed"]).permutation(len(episodes))
    num_held_out = round(config["held_out"] * len(episodes))
    if not 0 < num_held_out < len(episodes):
        raise ConfigError(f"held_out={config['held_out']} of {len(episodes)} episodes leaves one side empty")
    is_held_out = np.isin(np.arange(len(episodes)), order[:num_held_out])
    record = provenance("probe", config, given, torch.device("cpu"), PACKAGES)
    features = {
        "latent": run.model,
        "untrained": fresh_like(run.model, config["seed"]),
    }
    total = len(features) * len(episodes)
    with ProgressDisplay("encoding", total, "episodes") as display:
        found = {
            name: _encoded(model, episodes, config["every"], display, done=index * len(episodes))
            for index, (name, model) in enumerate(features.items())
        }
    found["observation"] = [_seen(run.model, episode)[:: config["every"]] for episode in episodes]
    names, targets, found["places"] = _physics(run, episodes, config["every"])
    rows = _fit(config, found, names, targets, is_held_out)
    folder = Path(config["output"]) if config["output"] else run.directory / "probe"
    write_report(folder, run.task, rows, record)
    return rows


def _episodes(config: dict[str, Any], run: TrainedRun) -> list[Episode]:
    dataset = EpisodeDataset.open(config["dataset"])
    if "extra.physics_state" not in dataset.columns:
        raise ConfigError(
            f"dataset={config['dataset']} has no physics states to compare with: record it with "
            "`worldmodel collect physics_state=true`"
        )
    for key in run.model.size.observes:
        if f"observation.{key}" not in dataset.columns:
            raise ConfigError(
                f"dataset={config['dataset']} has no {key}, which the model sees: record it with "
                "env.observe=[state,pixels]"
            )
    recorded = dataset.info.get("task")
    if recorded is not None and recorded != envs.canonical_task(run.task):
        raise ConfigError(f"dataset={config['dataset']} is of {recorded}, the model of {run.task}")
    return [dataset.episode(index) for index in range(min(config["episodes"], len(dataset)))]


def _encoded(
    model: LatentModel, episodes: Sequence[Episode], every: int, display: ProgressDisplay, *, done: int
) -> list[np.ndarray]:
    """Latents of every `every`-th step of each episode."""
    found = []
    for index, episode in enumerate(episodes):
        found.append(latents_of(model, episode)[:-1:every].numpy())
        display.update(done + index + 1)
    return found


def _seen(model: LatentModel, episode: Episode) -> np.ndarray:
    """What the model observes, as a vector for each step."""
    parts = []
    for key in model.size.observes:
        rows = episode.observation[key][:-1]
        if key == "pixels":
            block = max(1, rows.shape[-1] // _COARSE)
            size = rows.shape[-1] // block
            cut = rows[..., : size * block, : size * block].astype(np.float32) / 255
            rows = cut.reshape(*rows.shape[:2], size, block, size, block).mean((3, 5))
        parts.append(rows.reshape(len(rows), -1).astype(np.float32))
    return np.concatenate(parts, axis=1)


def _physics(
    run: TrainedRun, episodes: Sequence[Episode], every: int
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names of the quantities that vary; their values (rows, quantities), and `_places`, in each episode."""
    env = build_env(run.task, {**run.config["env"], "observe": ["state"]}, num_envs=1, seed=0, how="sync")
    try:
        assert isinstance(env, envs.SyncTaskVectorEnv)
        found, places = [], []
        for episode in episodes:
            env.reset()
            simulation, states = env.simulations[0], np.array(episode.extra["physics_state"])
            still = envs.places(simulation, states)
            places.append(_places(still, np.array(episode.action), run.model.size.history)[::every])
            values = envs.quantities(simulation, states[::every])
            for name, value in episode.info.items():
                if name.startswith("factors."):
                    values[name.removeprefix("factors.")] = np.full(len(states[::every]), value)
            found.append(values)
    finally:
        env.close()
    names = list(dict.fromkeys(name for values in found for name in values))
    rows = [
        np.stack([values.get(name, np.zeros(len(next(iter(values.values()))))) for name in names], axis=1)
        for values in found
    ]
    varies = np.concatenate(rows).std(0) > _LEAST_STD
    kept = [name for name, kept in zip(names, varies, strict=True) if kept]
    return kept, [each[:, varies] for each in rows], places


def _places(still: dict[str, np.ndarray], action: np.ndarray, history: int) -> np.ndarray:
    """Places and angles, as they truly are, at the steps that a latent holds, and the actions in between."""
    places = np.stack(list(still.values()), axis=1)
    steps = np.arange(len(places))
    parts = [places[np.maximum(steps - past, 0)] for past in range(history)]
    for past in range(1, history):
        parts.append(np.where((steps >= past)[:, None], action[np.maximum(steps - past, 0)], 0))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _fit(
    config: dict[str, Any],
    features: dict[str, list[np.ndarray]],
    names: list[str],
    targets: list[np.ndarray],
    is_held_out: np.ndarray,
) -> list[dict[str, Any]]:
    def sides(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return tuple(  # type: ignore[return-value]
            np.concatenate([part for part, out in zip(parts, is_held_out, strict=True) if out == side])
            for side in (False, True)
        )

    wanted, rows = sides(targets), []
    episodes = sides([np.full(len(target), index) for index, target in enumerate(targets)])
    with ProgressDisplay("probing", len(features) * len(config["kinds"]), "probes") as display:
        for name in FEATURES:
            train, test = (torch.from_numpy(side).float() for side in sides(features[name]))
            for kind in config["kinds"]:
                fits: list[Fit] = probe(kind, (train, test), wanted, episodes, seed=config["seed"])
                rows += [
                    {"quantity": quantity, "features": name, "probe": kind, **asdict(fit)}
                    for quantity, fit in zip(names, fits, strict=True)
                ]
                display.update(len(rows) // max(1, len(names)))
    return rows
