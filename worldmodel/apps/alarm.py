"""The alarm of closed-loop control: a robot that does not do what its model expects."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.surprise import (
    Signals,
    highest,
    level,
    num_episodes_for,
    surprise,
    thresholds,
    typical,
    whitening,
    whitenings_of_others,
)
from worldmodel.apps.agent import Agent
from worldmodel.apps.config import positive
from worldmodel.apps.expectation import AHEAD, Expectation
from worldmodel.apps.memory import Memory, Observation, to_tensors
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.errors import ConfigError
from worldmodel.files import write_json
from worldmodel.model import LatentModel

ALARMS = ("warn", "stop", "off")
_LASTING = 10  # agent steps: a spike says that something happened, a mean that something has changed


@dataclass
class Trace:
    """One episode as a monitor saw it: of each step its signals, and the errors (2, D), see `Expectation`."""

    signals: list[Signals] = field(default_factory=list)
    errors: list[np.ndarray] = field(default_factory=list)

    def see(self, monitor: "Monitor", observation: Observation) -> Signals:
        """Let a monitor see what is observed now, and keep what it tells; see `Monitor.see`."""
        signals = monitor.see(observation)
        if monitor.errors is not None:
            self.signals.append(signals)
            self.errors.append(monitor.errors)
        return signals

    @property
    def last_step_errors(self) -> np.ndarray:
        """Of what was expected at the last step (T, D)."""
        return np.array(self.errors)[:, 0]

    def judged(self, whitening: np.ndarray) -> list[Signals]:
        """Its signals, with surprises in units of `whitening` (D, D)."""
        surprises = surprise(self.last_step_errors, whitening)
        rows = zip(self.signals, surprises, strict=True)
        return [{**signals, "surprise": float(value)} for signals, value in rows]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is ordinary, by ordinary episodes.

    Attributes:
        whitening: of errors (D, D), see `analysis.surprise`.
        limits: of each signal, see `analysis.thresholds`.
    """

    whitening: np.ndarray
    limits: dict[str, float]

    @classmethod
    def of(cls, episodes: Sequence[Trace], rate: float) -> "Calibration":
        """So that about a share `rate` of ordinary episodes exceeds a limit.

        Each episode's surprises are in units of the others' errors (as in cross-conformal prediction: Vovk
        2015). Errors: `ValueError` for fewer episodes than `num_episodes_for(rate)`.
        """
        errors = [each.last_step_errors for each in episodes]
        of_others = whitenings_of_others(errors)
        judged = [each.judged(others) for each, others in zip(episodes, of_others, strict=True)]
        return cls(whitening=whitening(errors), limits=thresholds(judged, rate))

    def level(self, trace: Trace, start: int = 0) -> float:
        """The highest level of an episode from a step on: an alarm above 1; 0 where it has no such step."""
        judged = trace.judged(self.whitening)[start:]
        return max((level(signals, self.limits) for signals in judged), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {"thresholds": self.limits, "whitening": self.whitening.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], size: int) -> "Calibration":
        """Of a model with embeddings of `size`. Errors: `ValueError`, `TypeError` or `KeyError`."""
        units = np.array(content["whitening"], np.float32)
        if units.shape != (size, size) or not np.isfinite(units).all():
            raise ValueError(f"whitening must be {size} x {size} numbers")
        limits = {str(name): float(value) for name, value in content["thresholds"].items()}
        if not limits or not np.isfinite(list(limits.values())).all():
            raise ValueError("thresholds must be numbers")
        return cls(whitening=units, limits=limits)


class Monitor:
    """Watches one robot, step by step, for what its model did not expect.

    Signals: `surprise`, by what was expected at the last step, in units of `whitening` (D, D; None: of the
    embedding); `lasting_surprise`, by what was expected `ahead` steps ago, its geometric mean over the last
    10 steps; and of a model with several predictors their `disagreement` about the step.
    """

    def __init__(
        self, model: LatentModel, whitening: np.ndarray | None = None, *, ahead: int = AHEAD
    ) -> None:
        self._model, self._memory, self._whitening = model, Memory(model), whitening
        self._expectation = Expectation(model, ahead)
        self.errors: np.ndarray | None = None  # (2, D): see `Expectation`
        self._latent: Tensor | None = None
        self._noted: Signals | None = None
        self._latest: deque[float] = deque(maxlen=_LASTING)

    def reset(self) -> None:
        """A new episode."""
        self._memory.reset()
        self._expectation.reset()
        self._latest.clear()
        self._noted = self.errors = None

    @torch.no_grad()
    def see(self, observation: Observation) -> Signals:
        """Of what is observed now {key: (1, ...)}: the signals of the step just taken; none at the first."""
        device = next(self._model.parameters()).device
        self._latent = self._memory.see(to_tensors(observation, device))
        if self._noted is None:
            return {}
        self.errors = self._expectation.errors(self._model.layout.current(self._latent))
        self._latest.append(float(surprise(self.errors[1])))
        signals = {"surprise": float(surprise(self.errors[0], self._whitening)), **self._noted}
        if len(self._latest) == _LASTING:
            signals["lasting_surprise"] = typical(self._latest)
        return signals

    @torch.no_grad()
    def note(self, action: np.ndarray) -> None:
        """Be told what is done (1, A) where it has seen last."""
        assert self._latent is not None, "it has seen nothing yet"
        self._memory.note(action)
        act = torch.from_numpy(np.asarray(action, np.float32)).to(self._latent)
        self._expectation.note(self._latent, act)
        self._noted = {}
        if self._model.size.num_dynamics > 1:
            self._noted = {"disagreement": float(self._model.disagreement(self._latent, act))}

    def no_action(self) -> np.ndarray:
        """Nothing done (1, A)."""
        return np.zeros((1, self._model.size.action_dim), np.float32)


class Watch:
    """A monitor with thresholds, over one episode after another.

    - `limits`: of each signal; without, nothing is ever out of the ordinary.
    - `stops`: after an alarm, nothing is done any more until the episode ends.
    """

    def __init__(
        self, monitor: Monitor, limits: Mapping[str, float] | None = None, *, stops: bool = False
    ) -> None:
        self._monitor, self.limits, self._stops = monitor, limits, stops
        self.episodes: list[dict[str, Any]] = []  # summaries of those that have ended
        self.trace = Trace()
        self.levels: list[float] = []  # see `analysis.level`
        self._has_alarmed = False

    @property
    def level(self) -> float | None:
        """That of the step just taken; None before the first."""
        return self.levels[-1] if self.levels else None

    @property
    def is_stopping(self) -> bool:
        """Whether the robot must not be moved."""
        return self._stops and self._has_alarmed

    def reset(self) -> None:
        """A new episode."""
        self._monitor.reset()
        self.trace, self.levels, self._has_alarmed = Trace(), [], False

    def act(self, agent: Agent, observation: Observation) -> np.ndarray:
        """The agent's action (1, A) for what is observed {key: (1, ...)}; none where it must not be moved."""
        self._see(observation)
        action = self._monitor.no_action() if self.is_stopping else agent.act(observation).action
        self._monitor.note(action)
        return action

    def end(self, observation: Observation) -> None:
        """The last observation of an episode."""
        self._see(observation)
        self.episodes.append(self._summary())

    def to_json(self) -> dict[str, Any]:
        """Thresholds, and of each episode the share of steps with an alarm, the first one, and the highest.

        Steps are those of the action after which it was seen, from 0.
        """
        return {"thresholds": self.limits, "episodes": self.episodes}

    def told(self) -> str:
        """The alarms of all episodes, for people."""
        num_alarmed = sum(each["first_step"] is not None for each in self.episodes)
        share = np.mean([each["share"] for each in self.episodes])
        worst = int(np.argmax([each["level"]["value"] for each in self.episodes]))
        top = self.episodes[worst]["level"]
        return (
            f"in {num_alarmed} of {len(self.episodes)} episodes, {share:.1%} of the steps; highest: "
            f"{top['value']:.2f} of its threshold, in step {top['step']} of episode {worst + 1}"
        )

    def _see(self, observation: Observation) -> None:
        signals = self.trace.see(self._monitor, observation)
        if signals:
            self.levels.append(level(signals, self.limits) if self.limits else 0.0)
            self._has_alarmed = self._has_alarmed or self.levels[-1] > 1

    def _summary(self) -> dict[str, Any]:
        alarmed = np.flatnonzero(np.array(self.levels) > 1)
        trace = self.trace.signals
        names = trace[-1] if trace else {}  # those that take a while to be there, too
        return {
            "share": len(alarmed) / max(1, len(self.levels)),
            "first_step": int(alarmed[0]) if len(alarmed) else None,
            "level": {"value": max(self.levels, default=0.0), "step": int(np.argmax(self.levels or [0.0]))},
            "highest": {
                name: {
                    "value": highest(trace, name),
                    "step": int(np.argmax([signals.get(name, 0.0) for signals in trace])),
                }
                for name in names
            },
        }


def check_alarm(config: Mapping[str, Any], *, has_model: bool) -> None:
    """Check the keys `alarm`, `alarm_rate` and `alarm_ahead`. Errors: `ConfigError`."""
    positive(config, "alarm_ahead")
    if config["alarm"] not in ALARMS:
        raise ConfigError(f"alarm={config['alarm']}: must be {', '.join(ALARMS[:-1])} or {ALARMS[-1]}")
    if not 0.001 <= config["alarm_rate"] <= 0.5:
        raise ConfigError(f"alarm_rate={config['alarm_rate']}: must be at least 0.001 and at most 0.5")
    if config["alarm"] == "stop" and not has_model:
        raise ConfigError(
            "alarm=stop needs a trained model, which expects something: give checkpoint=RUN_DIR"
        )


def calibrated(
    path: Path,
    about: Mapping[str, Any],
    rate: float,
    size: int,
    play: Callable[[int], Iterable[Trace]],
) -> Calibration:
    """What is ordinary, from `path` if it has that of `about` (JSON: model, agent); else measured, and kept.

    `play(n)` plays n ordinary episodes; embeddings have `size` dimensions. Where `path` cannot be written,
    they are played again the next time.
    """
    about = dict(about) | {"rate": rate}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(path.read_text())
        if kept["about"] == about:
            return Calibration.from_json(kept, size)
    num_episodes = num_episodes_for(rate)
    episodes: list[Trace] = []
    with ProgressDisplay("what is ordinary", num_episodes, "episodes") as display:
        for trace in play(num_episodes):
            episodes.append(trace)
            display.update(len(episodes))
    found = Calibration.of(episodes, rate)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"about": about, "num_episodes": num_episodes, **found.to_json()})
    return found
