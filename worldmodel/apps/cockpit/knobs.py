"""What of a planner is turned while it plans, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldmodel.apps.config import closest, compose_config, config_groups, to_dict
from worldmodel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A number of a planner, with the bounds of its slider (a planner itself takes others too)."""

    label: str
    hint: str
    low: int | float
    high: int | float
    step: int | float


KNOBS: Mapping[str, Knob] = {
    "num_candidates": Knob(
        label="candidates",
        hint="Action sequences scored in each iteration: more find better plans, and take longer.",
        low=4,
        high=512,
        step=4,
    ),
    "horizon": Knob(
        label="horizon (steps)",
        hint="How many actions ahead it plans. A learned model adds the value of what follows.",
        low=1,
        high=60,
        step=1,
    ),
    "num_iterations": Knob(
        label="iterations",
        hint="Rounds of draw, score and refine in each decision.",
        low=1,
        high=12,
        step=1,
    ),
    "temperature": Knob(
        label="temperature",
        hint="How evenly the elites count in the mean: low follows the best, high averages (MPPI and kin).",
        low=0.02,
        high=5.0,
        step=0.02,
    ),
}


def planner_names() -> list[str]:
    """Those that sample: the others take gradients, which a simulator has not."""
    return [name for name in config_groups("view")["planner"] if name not in ("gradient", "hybrid")]


def named_planner(name: str, *, is_oracle: bool) -> dict[str, Any]:
    """The configuration of a planner as `configs/planner/` has it; for the oracle, with its budget.

    Errors: `ConfigError` for one that is not there.
    """
    if name not in planner_names():
        known = planner_names()
        raise ConfigError(f"there is no planner {name!r}{closest(name, known)}. Known: {', '.join(known)}")
    words = [f"planner={name}", *(["budget=oracle"] if is_oracle else [])]
    found: dict[str, Any] = to_dict(compose_config("view", words))["planner"]
    return found


def turned(planner: Mapping[str, Any], values: Mapping[str, int | float]) -> dict[str, Any]:
    """A planner's configuration with knobs as `values` say, which it may have or not.

    Elites and proposals that would be more than the candidates become as many as fit.
    Errors: `ConfigError` for a knob that there is not, or a value beyond its bounds.
    """
    config = dict(planner)
    for name, value in values.items():
        if name not in KNOBS:
            raise ConfigError(f"a planner has no knob {name!r}{closest(name, list(KNOBS))}")
        knob = KNOBS[name]
        if not knob.low <= value <= knob.high:
            raise ConfigError(f"{name}={value:g}: must be from {knob.low:g} to {knob.high:g}")
        if name in config:
            config[name] = float(value) if isinstance(planner[name], float) else round(value)
    candidates = config["num_candidates"]
    for name in ("num_elites", "num_kept"):
        if config.get(name) is not None:
            config[name] = min(config[name], candidates)
    config["num_proposals"] = min(config["num_proposals"], candidates // 2)
    return config
