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
from worldmodel.analysis.surprise import LEAST, num_episodes_for, surprise, typical, whitenings
from worldmodel.apps.alarm import Calibration, Monitor, Trace
from worldmodel.apps.bench.output import check_names, make_folder, provenance
from worldmodel.apps.config import not_negative, positive
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
_FALSE_ALARMS = 0.05  # share of plain episodes by which the alarm of `control` is set here


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One episode as it happens, and with a violation before step `at`.

    Attributes:
        surprises: of both (T, 2), as multiples of the median of plain episodes: by what was expected at the
            last step, in units of the errors of all other plain episodes; and several steps ago.
    """

    script: Script
    at: int
    plain: Trace
    violated: Trace
    surprises: tuple[np.ndarray, np.ndarray]

    def highest(self, window: int) -> list[float]:
        """The highest surprise from the violation on, plain and violated."""
        return [float(each[self.at : self.at + window, 0].max()) for each in self.surprises]

    def typical(self) -> list[float]:
        """That of several steps ago, its geometric mean from the violation on to the end, likewise."""
        return [typical(each[self.at :, 1]) for each in self.surprises]


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
    traces = {name: [(*pair.surprises, pair.at) for pair in pairs[name]] for name in names}
    write_report(folder, run.task, rows, traces, record)
    if config["video"]:
        _film(folder / VIDEO_FILE, make_env, chosen, pairs)
    else:
        (folder / VIDEO_FILE).unlink(missing_ok=True)  # it would show other episodes than are told of
    return rows


def _play_pairs(
    env: envs.TaskEnv, run: TrainedRun, chosen: Mapping[str, Violation], config: dict[str, Any]
) -> dict[str, list[Pair]]:
    plain: list[Trace] = []
    played: dict[str, list[tuple[Script, int, int, Trace]]] = {name: [] for name in chosen}
    with ProgressDisplay(f"surprise {run.task}", config["episodes"], "episodes") as display:
        for episode in range(config["episodes"]):
            seed = int(np.random.SeedSequence([config["seed"], episode]).generate_state(1)[0])
            script = Script.drawn(env, seed)
            trace, due = _trace(env, run.model, script, config["ahead"], watched=chosen)
            plain.append(trace)
            for name, violation in chosen.items():
                at = next((k for k in due[name] if k + config["window"] <= len(trace.errors)), None)
                if at is not None:
                    trace, _ = _trace(env, run.model, script, config["ahead"], Break(violation, at))
                    played[name].append((script, episode, at, trace))
            display.update(episode + 1)
    if empty := [name for name, found in played.items() if not found]:
        raise ConfigError(
            f"in none of {config['episodes']} episodes was {', '.join(empty)} due: raise episodes="
        )
    _, units = whitenings([np.array(each.errors)[:, 0] for each in plain])
    ordinary = [_surprises(trace, unit) for trace, unit in zip(plain, units, strict=True)]
    usual = np.maximum(np.median(np.concatenate(ordinary), axis=0), LEAST)
    return {
        name: [
            Pair(
                script=script,
                at=at,
                plain=plain[episode],
                violated=trace,
                surprises=(ordinary[episode] / usual, _surprises(trace, units[episode]) / usual),
            )
            for script, episode, at, trace in found
        ]
        for name, found in played.items()
    }


def _surprises(trace: Trace, whitening: np.ndarray) -> np.ndarray:
    """By what was expected at the last step, and several steps ago (T, 2)."""
    errors = np.array(trace.errors)
    return np.stack([surprise(errors[:, 0], whitening), surprise(errors[:, 1])], axis=1)


def _trace(
    env: envs.TaskEnv,
    model: LatentModel,
    script: Script,
    ahead: int,
    broken: Break | None = None,
    *,
    watched: Mapping[str, Violation] | None = None,
) -> tuple[Trace, dict[str, list[int]]]:
    """What the monitor of `control` sees; before which steps each of `watched` is due."""
    due: dict[str, list[int]] = {name: [] for name in watched or {}}
    monitor, trace = Monitor(model, ahead=ahead), Trace()
    for index, observation in enumerate(script.play(env, broken)):
        signals = monitor.see({key: value[None] for key, value in observation.items()})
        if monitor.errors is not None:
            trace.signals.append(signals)
            trace.errors.append(monitor.errors)
        if index < len(script.actions):
            monitor.note(script.actions[index][None])
        for name, each in (watched or {}).items():
            if index >= _EARLIEST and each.is_due(env.simulation.model, env.simulation.data):
                due[name].append(index)
    # Where the simulation diverged, the episode is over.
    missing = len(script.actions) - len(trace.errors)
    trace.signals += trace.signals[-1:] * missing
    trace.errors += trace.errors[-1:] * missing
    return trace, due


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
        plain, violated = pair.surprises
        scenes.append(Scene(pair.script, Break(violation, pair.at), plain, violated))
    film(path, make_env, scenes)


def _row(name: str, violation: Violation, pairs: list[Pair], window: int) -> dict[str, Any]:
    # Errors are spread over decades: their logarithms are what a paired test may compare.
    both = np.array([[pair.highest(window), pair.typical()] for pair in pairs]).transpose(1, 0, 2)
    logs = np.log(both + LEAST)  # (momentary or lasting, pair, plain or violated)
    usual = logs[..., :1]
    unusual = (logs - usual.mean(1, keepdims=True)) / np.maximum(usual.std(1, keepdims=True), LEAST)
    alarms, false_alarms = _alarms(pairs)
    return {
        "violation": name,
        "meaning": violation.meaning,
        "breaks_physics": violation.breaks_physics,
        "pairs": len(pairs),
        "auroc": _auroc(*both[0].T),
        "auroc_lasting": _auroc(*both[1].T),
        "auroc_either": _auroc(*unusual.max(0).T),
        "alarms": alarms,
        "false_alarms": false_alarms,
        "ratio": float(np.exp(np.median(np.diff(logs[0])))),
        "ratio_lasting": float(np.exp(np.median(np.diff(logs[1])))),
        "p_value": _p_value(logs[0]),
        "p_value_lasting": _p_value(logs[1]),
    }


def _alarms(pairs: list[Pair]) -> tuple[float | None, float | None]:
    """Shares of the violated and of the plain episodes from the violation on at which `control` would alarm.

    Set by the plain episodes of one half, for the other half, and the other way round; None where a half has
    too few.
    """
    halves = pairs[::2], pairs[1::2]
    if len(halves[1]) < num_episodes_for(_FALSE_ALARMS):
        return None, None
    found = []
    for known, asked in (halves, halves[::-1]):
        alarm = Calibration.of([pair.plain for pair in known], _FALSE_ALARMS)
        found += [[alarm.level(each, pair.at) > 1 for each in (pair.violated, pair.plain)] for pair in asked]
    violated, plain = np.mean(found, axis=0)
    return float(violated), float(plain)


def _p_value(logs: np.ndarray) -> float | None:
    """Of a paired t-test of (pair, plain or violated); None where nothing differs."""
    changes = np.diff(logs)[:, 0]
    return float(stats.ttest_1samp(changes, 0.0).pvalue) if np.ptp(changes) > 0 else None


def _auroc(plain: np.ndarray, violated: np.ndarray) -> float:
    """How often a violated episode has more than a plain one."""
    return float(stats.mannwhitneyu(violated, plain).statistic) / len(plain) ** 2
