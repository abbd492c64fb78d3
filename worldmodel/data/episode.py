"""One recorded run: T actions and the T + 1 observations around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import numpy as np

from worldmodel.data.columns import COLUMN_DTYPES, OBSERVATION_DTYPES, is_word
from worldmodel.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded run; checked when made (DatasetError), read-only afterwards.

    observation: `state` (T + 1, O) float32, `pixels` (T + 1, C, H, W) uint8, or both
    action: (T, A) float32, in [-1, 1] by the project's convention (not checked: data from elsewhere differ)
    reward: (T,) float32
    terminated: the task ended it, so nothing follows its last observation
    truncated: it was cut short, so more would have followed
    extra: further columns of T rows each, such as the planner's `plan_mean`
    info: strings, finite numbers, bools or None about the whole episode, such as its seed

    The arrays are not copied: do not write to them through another name. `EpisodeBuilder` copies.
    """

    # No shape annotations: the checks below run always, not only in tests, and say how to mend it.
    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_array("action", self.action, "float32", 2)
        num_steps = len(self.action)
        if num_steps < 1:
            raise DatasetError("an episode has at least one step; this one has 0: do not record it")
        if not self.action.size:
            raise DatasetError(
                "an action has at least one number; these have 0: there is nothing to act with"
            )
        _require_array("reward", self.reward, "float32", 1)
        _require_rows("reward", self.reward, num_steps, "as many as actions")
        if not self.observation or not self.observation.keys() <= OBSERVATION_DTYPES.keys():
            raise DatasetError(
                f"an observation has the keys 'state', 'pixels' or both, not {sorted(self.observation)}; "
                "further columns belong into extra"
            )
        for name, array in self.observation.items():
            _require_array(
                f"observation {name!r}", array, OBSERVATION_DTYPES[name], 2 if name == "state" else 4
            )
            _require_rows(f"observation {name!r}", array, num_steps + 1, "one more than actions")
        for name, array in self.extra.items():
            if not is_word(name):
                raise DatasetError(
                    f"the extra column {name!r} needs a name of letters, digits and underscores, "
                    "a letter first"
                )
            _require_array(f"extra column {name!r}", array)
            _require_rows(f"extra column {name!r}", array, num_steps, "as many as actions")
        for name in ("terminated", "truncated"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise DatasetError(f"{name} is one bool for the whole episode, not {value!r}")
            object.__setattr__(self, name, bool(value))
        object.__setattr__(self, "info", _checked_info(self.info))
        for name in ("action", "reward"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        for name in ("observation", "extra"):
            arrays = {key: _read_only(array) for key, array in getattr(self, name).items()}
            object.__setattr__(self, name, arrays)

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return len(self.action)

    @property
    def total_reward(self) -> float:
        """The undiscounted return of the whole episode, summed in float64."""
        return float(self.reward.sum(dtype=np.float64))


class EpisodeBuilder:
    """Records one episode while it happens; copies all that it is given.

    States, actions and rewards become float32; pixels must be uint8 already.
    """

    def __init__(self, first_observation: Mapping[str, np.ndarray]) -> None:
        self._observations = [_copied(first_observation)]
        self._actions: list[np.ndarray] = []
        self._rewards: list[np.float32] = []
        self._extras: list[dict[str, np.ndarray]] = []

    @property
    def num_steps(self) -> int:
        """Steps recorded so far."""
        return len(self._actions)

    def append(
        self,
        action: np.ndarray,
        reward: SupportsFloat,
        next_observation: Mapping[str, np.ndarray],
        **extra: Any,
    ) -> None:
        """Add one step: the action (A,), its reward, the observation after it, and rows of extra columns."""
        observation = _copied(next_observation)
        if observation.keys() != self._observations[0].keys():
            raise DatasetError(
                f"step {self.num_steps} observes {sorted(observation)}, the first observation has "
                f"{sorted(self._observations[0])}: every observation has the same keys"
            )
        if self._extras and extra.keys() != self._extras[0].keys():
            raise DatasetError(
                f"step {self.num_steps} has the extra columns {sorted(extra)}, the steps before it have "
                f"{sorted(self._extras[0])}: give the same ones on every step"
            )
        self._observations.append(observation)
        self._actions.append(np.array(action, dtype=np.float32))
        self._rewards.append(np.float32(float(reward)))
        self._extras.append({name: np.array(value) for name, value in extra.items()})

    def build(
        self,
        terminated: bool | np.bool_,
        truncated: bool | np.bool_,
        info: Mapping[str, Any] | None = None,
    ) -> Episode:
        """The episode recorded so far; DatasetError if it breaks a rule, such as a reward that is NaN."""
        if not self._actions:
            raise DatasetError("an episode has at least one step; append one before build()")
        return Episode(
            observation={
                name: _stacked(f"observation {name!r}", [row[name] for row in self._observations])
                for name in self._observations[0]
            },
            action=_stacked("action", self._actions),
            reward=np.array(self._rewards, dtype=np.float32),
            terminated=bool(terminated),
            truncated=bool(truncated),
            extra={
                name: _stacked(f"extra column {name!r}", [row[name] for row in self._extras])
                for name in self._extras[0]
            },
            info=dict(info or {}),
        )


def _copied(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: np.array(value, dtype=np.float32) if name == "state" else np.array(value)
        for name, value in observation.items()
    }


def _stacked(what: str, rows: list[np.ndarray]) -> np.ndarray:
    for step, row in enumerate(rows):
        # np.stack would promote a row of another dtype silently.
        if row.shape != rows[0].shape or row.dtype != rows[0].dtype:
            raise DatasetError(
                f"{what} of row {step} is {row.dtype}{list(row.shape)}, the first one is "
                f"{rows[0].dtype}{list(rows[0].shape)}: all rows have the same dtype and shape"
            )
    return np.stack(rows)


def _require_array(what: str, array: Any, dtype: str | None = None, ndim: int | None = None) -> None:
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{what} is a numpy array, not a {type(array).__name__}: use np.asarray")
    if dtype is not None and array.dtype != np.dtype(dtype):
        raise DatasetError(f"{what} is {dtype}, not {array.dtype}: use .astype(np.{dtype})")
    if array.dtype.name not in COLUMN_DTYPES or not array.dtype.isnative:
        raise DatasetError(f"{what} has the dtype {array.dtype}; it can be one of {', '.join(COLUMN_DTYPES)}")
    if array.ndim < 1 or (ndim is not None and array.ndim != ndim):
        raise DatasetError(
            f"{what} has {ndim or 'at least 1'} axes, the step first, not the shape {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DatasetError(
            f"{what} is {array[first]} at {first}; all numbers are finite: find what made it, "
            "and record no episode of a simulation that diverged"
        )


def _require_rows(what: str, array: np.ndarray, num_rows: int, rule: str) -> None:
    if len(array) != num_rows:
        raise DatasetError(f"{what} has {len(array)} rows; it needs {num_rows}, {rule}")


def _checked_info(info: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in info.items():
        scalar = value.item() if isinstance(value, np.generic) else value
        finite = not isinstance(scalar, float) or math.isfinite(scalar)
        if not isinstance(name, str) or not isinstance(scalar, str | int | float | bool | None) or not finite:
            raise DatasetError(
                f"info {name!r} is {value!r}; it can be a string, a finite number, a bool or None: "
                "arrays belong into extra"
            )
        checked[name] = scalar
    return checked


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
