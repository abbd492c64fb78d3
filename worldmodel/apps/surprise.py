"""Violation of expectation: is a model surprised by what cannot happen, and not by what can?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

import envs
from envs.violations import Violation
from worldmodel.analysis.surprise import LEAST, typical
from worldmodel.apps.bench.output import check_names, make_folder, provenance
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.expectation import Expectation
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.script import Break, Script
from worldmodel.apps.surprise_report import write_report
from worldmodel.apps.surprise_video import Scene, film
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.apps.video import check_drawable
from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel

VIDEO_FILE = "surprise.mp4"
_EARLIEST = 2  # agent steps before a violation, so that there is something to expect


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The surprises (T, 2) of one episode as it happens, and with a violation before step `at`.

    By what was expected at the last step, and several steps ago (`Expectation`).
    """

    script: Script
    plain: np.ndarray
    violated: np.ndarray
    at: int

    def highest(self, window: int) -> tuple[float, float]:
        """The highest surprise from the violation on, plain and violated."""
        steps = slice(self.at, self.at + window)
        return float(self.plain[steps, 0].max()), float(self.violated[steps, 0].max())

    def typical(self) -> tuple[float, float]:
        """That of several steps ago, its geometric mean from the violation on to the end, likewise."""
        return typical(self.plain[self.at :, 1]), typical(self.violated[self.at :, 1])


def run_surprise(config: dict[str, Any], given: set[str]) -> list[dict[str, Any]]:
    """Play pairs of episodes, then write `surprise.csv`, `.md`, `.png`, `.json` and `.mp4`; returns the rows.

    `config` is that of `configs/surprise.yaml`.
    Errors: `ConfigError`, `EnvError` or `CheckpointError` for a user's mistake.
    """
    positive(config, "episodes", "window", "ahead")
    not_negative(config, "seed")
    run = open_run(config["checkpoint"], task=config["task"])
    torch.set_num_threads(1)
    env_config = run.config["env"]
    make_env = partial(envs.make, run.task, action_repeat=env_config["action_repeat"])
    env = make_env(observe=run.model.size.observes, image_size=env_config["image_size"])
    try:
        known = envs.violations_of(env)
        names = config["violations"] or list(known)
        check_names("violations", names, list(known))
        if config["video"]:
            env.reset()
            check_drawable(env)
        chosen = {name: known[name] for name in names}
        folder = make_folder(config["output"] or str(run.directory / "surprise"))
        record = provenance("surprise", config, given, torch.device("cpu"), PACKAGES)
        pairs = _play_pairs(env, run, chosen, config)
    finally:
        env.close()
    rows = [_row(name, chosen[name], pairs[name], config["window"]) for name in names]
    traces = {name: [(pair.plain, pair.violated, pair.at) for pair in pairs[name]] for name in names}
    write_report(folder, run.task, rows, traces, record)
    if config["video"]:
        _film(folder / VIDEO_FILE, make_env, chosen, pairs)
    else:
        (folder / VIDEO_FILE).unlink(missing_ok=True)  # it would show other episodes than are told of
    return rows


def _play_pairs(
    env: envs.TaskEnv, run: TrainedRun, chosen: Mapping[str, Violation], config: dict[str, Any]
) -> dict[str, list[Pair]]:
    pairs: dict[str, list[Pair]] = {name: [] for name in chosen}
    with ProgressDisplay(f"surprise {run.task}", config["episodes"], "episodes") as display:
        for episode in range(config["episodes"]):
            seed = int(np.random.SeedSequence([config["seed"], episode]).generate_state(1)[0])
            script = Script.drawn(env, seed)
            plain, due = _trace(env, run.model, script, config["ahead"], watched=chosen)
            for name, violation in chosen.items():
                at = next((k for k in due[name] if k + config["window"] <= len(plain)), None)
                if at is not None:
                    trace, _ = _trace(env, run.model, script, config["ahead"], Break(violation, at))
                    pairs[name].append(Pair(script=script, plain=plain, violated=trace, at=at))
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
    script: Script,
    ahead: int,
    broken: Break | None = None,
    *,
    watched: Mapping[str, Violation] | None = None,
) -> tuple[np.ndarray, dict[str, list[int]]]:
    """The surprises at each step (T, 2); before which steps each of `watched` is due."""
    due: dict[str, list[int]] = {name: [] for name in watched or {}}
    surprises: list[tuple[float, float]] = []
    expectation, latent = Expectation(model, ahead), None
    for index, observation in enumerate(script.play(env, broken)):
        seen = model.embed(_tensors(observation))
        if latent is None:
            latent = model.layout.start(seen)
        else:
            action = torch.from_numpy(script.actions[index - 1])[None]
            expectation.note(latent, action)
            surprises.append(expectation.surprises(seen))
            latent = model.layout.advance(latent, action, seen)
        for name, each in (watched or {}).items():
            if index >= _EARLIEST and each.is_due(env.simulation.model, env.simulation.data):
                due[name].append(index)
    # Where the simulation diverged, the episode is over.
    surprises += [surprises[-1]] * (len(script.actions) - len(surprises))
    return np.array(surprises), due


def _film(
    path: Path,
    make_env: Callable[..., envs.TaskEnv],
    chosen: Mapping[str, Violation],
    pairs: Mapping[str, list[Pair]],
) -> None:
    """The first pair of each violation."""
    scenes = []
    for name, violation in chosen.items():
        pair = pairs[name][0]
        scenes.append(Scene(pair.script, Break(violation, pair.at), pair.plain[:, 0], pair.violated[:, 0]))
    film(path, make_env, scenes)


def _tensors(observation: envs.Observation) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value)[None] for key, value in observation.items()}


def _row(name: str, violation: Violation, pairs: list[Pair], window: int) -> dict[str, Any]:
    highest = np.array([pair.highest(window) for pair in pairs])  # (pair, plain or violated)
    lasting = np.array([pair.typical() for pair in pairs])
    plain, violated = highest.T
    # Errors are spread over decades: their logarithms are what a paired test may compare.
    logs = np.log(np.stack([highest, lasting]) + LEAST)
    changes = logs[0, :, 1] - logs[0, :, 0]
    p_value = float(stats.ttest_1samp(changes, 0.0).pvalue) if np.ptp(changes) > 0 else None
    usual = logs[:, :, :1]
    unusual = (logs - usual.mean(1, keepdims=True)) / np.maximum(usual.std(1, keepdims=True), LEAST)
    return {
        "violation": name,
        "meaning": violation.meaning,
        "breaks_physics": violation.breaks_physics,
        "pairs": len(pairs),
        "auroc": _auroc(plain, violated),
        "auroc_lasting": _auroc(*lasting.T),
        "auroc_either": _auroc(*unusual.max(0).T),
        "ratio": float(np.median(violated / np.maximum(plain, LEAST))),
        "p_value": p_value,  # None where nothing differs
    }


def _auroc(plain: np.ndarray, violated: np.ndarray) -> float:
    """How often a violated episode has more than a plain one."""
    return float(stats.mannwhitneyu(violated, plain).statistic) / len(plain) ** 2
