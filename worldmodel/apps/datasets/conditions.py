"""Conditions on episodes, as people type them: `return>500`, `length==1000`, `policy==planner`."""

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worldmodel.apps.config import closest
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import ConfigError

CONDITION = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(>=|<=|==|!=|>|<)\s*(\S.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def check_names(conditions: Sequence["Condition"], dataset: EpisodeDataset) -> None:
    """Some episode must have what is asked for. Errors: `ConfigError`."""
    known = fact_names(dataset)
    for name in [condition.name for condition in conditions]:
        if name not in known:
            raise ConfigError(f"episodes have no {name!r}{closest(name, known)}. Known: {', '.join(known)}")


def fact_names(dataset: EpisodeDataset) -> list[str]:
    """All that conditions can ask of some episode."""
    return list(dict.fromkeys(name for episode in dataset for name in facts_of(episode)))


def facts_of(episode: Episode) -> dict[str, Any]:
    """What conditions can ask of an episode."""
    return {
        **episode.info,
        "return": episode.total_reward,
        "length": episode.num_steps,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
    }


@dataclass(frozen=True)
class Condition:
    """One comparison of a fact with a value; in quotes, "007" and "true" are strings."""

    name: str
    comparison: str
    value: Any
    text: str  # the value, as it was typed

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition. Errors: `ConfigError` for what is none."""
        match = CONDITION.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{text!r} is no condition: write a fact, a comparison and a value, such as 'return>500'"
            )
        name, comparison, value = match.groups()
        return cls(name, comparison, _value(value), value)

    def holds(self, episode: Episode) -> bool:
        """Whether it is true of an episode. Errors: `ConfigError` for what cannot be compared."""
        facts = facts_of(episode)
        if self.name not in facts:
            return False
        fact = facts[self.name]
        if fact is None:  # it differs from all, and is neither more nor less
            return self.comparison == "!="
        kinds = [_kind(value) for value in (fact, self.value)]
        if kinds[0] != kinds[1]:
            quoted = f"{self.name}{self.comparison}{json.dumps(self.text)}"
            ways = {
                "a string": f"in quotes it is a string: '{quoted}'",
                "true or false": f"write {self.name}{self.comparison}true or false",
                "a number": "write a number",
            }
            raise ConfigError(
                f"{self.name} is {fact!r} ({kinds[0]}), which cannot be compared with {self.text} "
                f"({kinds[1]}) by {self.comparison}: {ways[kinds[0]]}"
            )
        return _COMPARE[self.comparison](fact, self.value)


def _kind(value: Any) -> str:
    return {bool: "true or false", str: "a string"}.get(type(value), "a number")


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text.strip("'\"")
