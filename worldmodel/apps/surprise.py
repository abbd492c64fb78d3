"""Violation of expectation: is a model surprised by what cannot happen, and not by what can?"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import envs
from envs.violations import Violation
from worldmodel.analysis import surprise
from worldmodel.apps.bench.output import check_names, provenance
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.simple_agents import ColoredNoiseAgent
from worldmodel.apps.surprise_report import write_report
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel

_EARLIEST = 2  # agent steps before a violation, so that there is something to expect


@dataclass(frozen=True)
class Pair:
    """The surprise (T,) of one episode as it happens, and with a violation before step `at`."""

    plain: np.ndarray
    violated: np.ndarray
    at: int

    def highest(self, window: int) -> tuple[float, float]:
        """The highest surprise from the violation on, plain and violated."""
        steps = slice(self.at, self.at + window)
        return float(self.plain[steps].max()), float(self.violated[steps].max())


def run_surprise(config: dict[str, Any], given: set[str]) -> list[dict[str, Any]]:
    """Play pairs of episodes, then write `surprise.csv`, `.md`, `.png` and `.json`; returns the rows.

    `config` is that of `configs/surprise.yaml`.
    Errors: `ConfigError`, `EnvError` or `CheckpointError` for a user's mistake.
    """
    positive(config, "episodes", "window")
    not_negative(config, "seed")
    run = open_run(config["checkpoint"])
    torch.set_num_threads(1)
    env_config = run.config["env"]
    env = envs.make(
        run.task,
        action_repeat=env_config["action_repeat"],
        observe=env_config["observe"],
        image_size=env_config["image_size"],
    )
    try:
        known = envs.violations_of(env)
        names = config["violations"] or list(known)
        check_names("violations", names, list(known))
        chosen = {name: known[name] for name in names}
        record = provenance("surprise", config, given, torch.device("cpu"), PACKAGES)
        pairs = _play_pairs(env, run, chosen, config)
    finally:
        env.close()
    rows = [_row(name, chosen[name], pairs[name], config["window"]) for name in names]
    folder = Path(config["output"]) if config["output"] else run.directory / "surprise"
    traces = {name: [(pair.plain, pair.violated, pair.at) for pair in pairs[name]] for name in names}
    write_report(folder, run.task, rows, traces, record, window=config["window"])
    return rows


def _play_pairs(
    env: envs.TaskEnv, run: TrainedRun, chosen: Mapping[str, Violation], config: dict[str, Any]
) -> dict[str, list[Pair]]:
    pairs: dict[str, list[Pair]] = {name: [] for name in chosen}
    assert env.action_space.shape is not None
    assert env.episode_length is not None
    with ProgressDisplay(f"surprise {run.task}", config["episodes"], "episodes") as display:
        for episode in range(config["episodes"]):
            seed = int(np.random.SeedSequence([config["seed"], episode]).generate_state(1)[0])
            agent = ColoredNoiseAgent(env.action_space.shape[0], np.random.default_rng(seed))
            nothing = {"state": np.zeros((1, 1), np.float32)}  # noise does not look
            actions = [agent.act(nothing).action[0] for _ in range(env.episode_length)]
            plain, due = _trace(env, run.model, seed, actions, watched=chosen)
            for name, violation in chosen.items():
                at = next((k for k in due[name] if k + config["window"] <= len(actions)), None)
                if at is not None:
                    trace, _ = _trace(env, run.model, seed, actions, violation=violation, at=at)
                    pairs[name].append(Pair(plain, trace, at))
            display.update(episode + 1)
    if empty := [name for name, found in pairs.items() if not found]:
        raise ConfigError(
            f"in none of {config['episodes']} episodes was {', '.join(empty)} due: raise episodes="
        )
    return pairs


@torch.inference_mode()
def _trace(
    env: envs.TaskEnv,
    model: LatentModel,
    seed: int,
    actions: list[np.ndarray],
    *,
    watched: Mapping[str, Violation] | None = None,
    violation: Violation | None = None,
    at: int | None = None,
) -> tuple[np.ndarray, dict[str, list[int]]]:
    """The surprise at each step; before which steps each of `watched` is due."""
    observation, _ = env.reset(seed=seed)
    simulation = env.simulation
    before = copy.copy(simulation.model)
    due: dict[str, list[int]] = {name: [] for name in watched or {}}
    latent = model.encode(_tensors(observation))
    errors: list[float] = []
    try:
        for index, action in enumerate(actions):
            for name, each in (watched or {}).items():
                if index >= _EARLIEST and each.is_due(simulation.model, simulation.data):
                    due[name].append(index)
            if violation is not None and index == at:
                violation.apply(simulation.model, simulation.data, np.random.default_rng(seed))
                env.set_physics_state(env.physics_state())  # what follows from it
            observation, *_ = env.step(action)
            act = torch.from_numpy(np.asarray(action, np.float32))[None]
            predicted, seen = model.predict(latent, act), model.embed(_tensors(observation))
            errors.append(float(surprise(predicted, seen)))
            latent = model.layout.advance(latent, act, seen)
    except envs.SimulationError:
        errors += [errors[-1]] * (len(actions) - len(errors))
    finally:
        envs.copy_model(before, simulation.model)
    return np.array(errors), due


def _tensors(observation: envs.Observation) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value)[None] for key, value in observation.items()}


def _row(name: str, violation: Violation, pairs: list[Pair], window: int) -> dict[str, Any]:
    plain, violated = np.array([pair.highest(window) for pair in pairs]).T
    auroc = stats.mannwhitneyu(violated, plain).statistic / len(pairs) ** 2
    # Errors are spread over decades: their logarithms are what a paired test may compare.
    changes = np.log(violated + 1e-12) - np.log(plain + 1e-12)
    p_value = float(stats.ttest_1samp(changes, 0.0).pvalue) if np.ptp(changes) > 0 else None
    return {
        "violation": name,
        "meaning": violation.meaning,
        "breaks_physics": violation.breaks_physics,
        "pairs": len(pairs),
        "auroc": float(auroc),
        "ratio": float(np.median(violated / np.maximum(plain, 1e-12))),
        "p_value": p_value,  # None where nothing differs
    }
