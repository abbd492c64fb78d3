"""Violation of expectation: is a model surprised by what cannot happen, and not by what can?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats

import envs
from envs.violations import Violation
from worldmodel.analysis.surprise import LEAST, num_episodes_for, surprise, typical, whitenings_of_others
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
FALSE_ALARMS = 0.05  # share of plain episodes by which the alarm of `control` is set here


@dataclass(frozen=True)
class Pair:
    """One episode as it happens, and with a violation before step `at`.

    Attributes:
        surprises: of both (T, 2): by what was expected at the last step, in units of the errors of all other
            plain episodes; and several steps ago.
    """

    script: Script
    episode: int
    at: int
    plain: Trace
    violated: Trace
    surprises: tuple[np.ndarray, np.ndarray]

    def times(self, usual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`surprises` as multiples of the usual ones (2,)."""
        return self.surprises[0] / usual, self.surprises[1] / usual

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
        plain, pairs = _play_pairs(env, run, chosen, config)
    finally:
        env.close()
    alarms = _alarms_of_halves(plain)
    rows = [_row(name, chosen[name], pairs[name], config["window"], alarms) for name in names]
    ordinary = np.concatenate([pair.surprises[0] for name in names for pair in pairs[name]])
    usual = np.maximum(np.median(ordinary, axis=0), LEAST)
    traces = {name: [(*pair.times(usual), pair.at) for pair in pairs[name]] for name in names}
    write_report(folder, run.task, rows, traces, record, FALSE_ALARMS)
    if config["video"]:
        firsts = {name: pairs[name][0] for name in names}
        scenes = [
            Scene(pair.script, Break(chosen[name], pair.at), *pair.times(usual))
            for name, pair in firsts.items()
        ]
        film(folder / VIDEO_FILE, make_env, scenes)
    else:
        (folder / VIDEO_FILE).unlink(missing_ok=True)  # it would show other episodes than are told of
    return rows


def _play_pairs(
    env: envs.TaskEnv, run: TrainedRun, chosen: Mapping[str, Violation], config: dict[str, Any]
) -> tuple[list[Trace], dict[str, list[Pair]]]:
    """All plain episodes, and of each violation the episodes in which it was due."""
    plain: list[Trace] = []
    scripts: list[Script] = []
    violated: list[dict[str, tuple[int, Trace]]] = []  # of each episode: before which step, and what was seen
    with ProgressDisplay(f"surprise {run.task}", config["episodes"], "episodes") as display:
        for episode in range(config["episodes"]):
            seed = int(np.random.SeedSequence([config["seed"], episode]).generate_state(1)[0])
            script = Script.drawn(env, seed)
            trace, due = _trace(env, run.model, script, config["ahead"], watched=chosen)
            plain.append(trace)
            scripts.append(script)
            violated.append({})
            for name, violation in chosen.items():
                at = next((k for k in due[name] if k + config["window"] <= len(trace.errors)), None)
                if at is not None:
                    seen, _ = _trace(env, run.model, script, config["ahead"], Break(violation, at))
                    violated[-1][name] = at, seen
            display.update(episode + 1)
    if empty := [name for name in chosen if not any(name in each for each in violated)]:
        raise ConfigError(
            f"in none of {config['episodes']} episodes was {', '.join(empty)} due: raise episodes="
        )
    pairs: dict[str, list[Pair]] = {name: [] for name in chosen}
    units = whitenings_of_others([each.last_step_errors for each in plain])
    for episode, whitening in enumerate(units):
        ordinary = _surprises(plain[episode], whitening)
        for name, (at, trace) in violated[episode].items():
            both = ordinary, _surprises(trace, whitening)
            pairs[name].append(Pair(scripts[episode], episode, at, plain[episode], trace, both))
    return plain, pairs


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
        trace.see(monitor, {key: value[None] for key, value in observation.items()})
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


def _row(
    name: str,
    violation: Violation,
    pairs: list[Pair],
    window: int,
    alarms: tuple[Calibration, Calibration] | None,
) -> dict[str, Any]:
    # Errors are spread over decades: their logarithms are what a paired test may compare.
    both = np.array([[pair.highest(window), pair.typical()] for pair in pairs]).transpose(1, 0, 2)
    logs = np.log(both + LEAST)  # (momentary or lasting, pair, plain or violated)
    usual = logs[..., :1]
    unusual = (logs - usual.mean(1, keepdims=True)) / np.maximum(usual.std(1, keepdims=True), LEAST)
    shares: list[float] | list[None] = [None, None]
    if alarms is not None:
        raised = [
            [alarms[pair.episode % 2].level(each, pair.at) > 1 for each in (pair.violated, pair.plain)]
            for pair in pairs
        ]
        shares = np.mean(raised, axis=0).tolist()
    return {
        "violation": name,
        "meaning": violation.meaning,
        "breaks_physics": violation.breaks_physics,
        "pairs": len(pairs),
        "auroc": _auroc(*both[0].T),
        "auroc_lasting": _auroc(*both[1].T),
        "auroc_either": _auroc(*unusual.max(0).T),
        "alarms": shares[0],
        "false_alarms": shares[1],
        "ratio": float(np.exp(np.median(np.diff(logs[0])))),
        "ratio_lasting": float(np.exp(np.median(np.diff(logs[1])))),
        "p_value": _p_value(logs[0]),
        "p_value_lasting": _p_value(logs[1]),
    }


def _alarms_of_halves(plain: Sequence[Trace]) -> tuple[Calibration, Calibration] | None:
    """The alarm of `control` for even episodes, set by the odd ones, and the other way round.

    None where a half has too few.
    """
    if len(plain) // 2 < num_episodes_for(FALSE_ALARMS):
        return None
    return Calibration.of(plain[1::2], FALSE_ALARMS), Calibration.of(plain[::2], FALSE_ALARMS)


def _p_value(logs: np.ndarray) -> float | None:
    """Of a paired t-test of (pair, plain or violated); None where nothing differs."""
    changes = np.diff(logs)[:, 0]
    return float(stats.ttest_1samp(changes, 0.0).pvalue) if np.ptp(changes) > 0 else None


def _auroc(plain: np.ndarray, violated: np.ndarray) -> float:
    """How often a violated episode has more than a plain one."""
    return float(stats.mannwhitneyu(violated, plain).statistic) / len(plain) ** 2
