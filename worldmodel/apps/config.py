"""Names and numbers from `configs/` and the command line; mistakes explained in one line."""

import difflib
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from worldmodel.apps.config_comments import with_comments
from worldmodel.errors import ConfigError

CONFIGS = "configs"
# Options of the group `model` for what acts; the others are sizes of what learns.
_ACTING_MODELS = ("oracle",)
# Where a trained run's planner may be changed in part.
_TRAINED = (
    "control", "collect", "imagine", "serve", "view", "bench_goals", "bench_robustness", "bench_serve",
)  # fmt: skip
_NUMBERED = ("camera",)  # words that may be numbers
_LISTED = ("goal",)  # words that may be lists
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    str: "a word",
    dict: "names and their values, {name: value}",
}


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """`configs/<name>.yaml` with command line overrides; every key known, every value of its type.

    Errors: `ConfigError` naming the override, the rule and the closest match.
    """
    groups, verb = config_groups(name), name.replace("_", " ")
    for override in overrides:
        _check_override(override, groups)
    chosen = [override for override in overrides if _key(override) in groups]
    defaults = _flat(_compose(name, chosen))
    left_open = _left_open(name, groups) - ({_key(override) for override in chosen} & {"planner"})
    added = {key: v for key, v in _settings_of(left_open, groups).items() if key not in defaults}
    defaults |= added
    # A default of {} takes any names: who uses it knows them.
    open_keys = {key for key, value in defaults.items() if value == {}}
    for override in overrides:
        key = _key(override)
        if key in open_keys or _within(key, open_keys):
            added[key] = None
        elif key not in groups and key not in defaults:
            known = [*defaults, *groups]
            raise ConfigError(
                f"there is no config key {key!r} (from {override!r}){closest(key, known)}. "
                f"`worldmodel {verb} --help` lists them all"
            )
    # Pluses add a key that the composed configuration has not.
    config = _compose(name, [f"++{word}" if _key(word) in added else word for word in overrides])
    for key, value in _flat(config, open_keys).items():
        if value == "???":
            raise ConfigError(f"{key}= is missing: `worldmodel {verb} --help` shows examples")
        if key in _NUMBERED and type(value) is int:
            value = str(value)
            OmegaConf.update(config, key, value)
        if not (key in _LISTED and isinstance(value, list)):
            _check_type(key, value, defaults[key])
        if isinstance(defaults[key], float):
            OmegaConf.update(config, key, float(value))  # 1 is a number too
    return config


def config_groups(name: str) -> dict[str, list[str]]:
    """Options of every config group that an application uses: {"planner": ["cem", "mppi", ...], ...}."""
    root = files(CONFIGS)
    groups: dict[str, list[str]] = {}
    top = OmegaConf.create((root / f"{name}.yaml").read_text())
    assert isinstance(top, DictConfig)
    for entry in top.get("defaults", []):
        if isinstance(entry, DictConfig):
            group = str(next(iter(entry))).removeprefix("optional ")
            options = (path.name for path in (root / group).iterdir() if path.name.endswith(".yaml"))
            names = sorted(option.removesuffix(".yaml") for option in options)
            if group == "model":
                is_acting = str(next(iter(entry))).startswith("optional ")
                names = [option for option in names if (option in _ACTING_MODELS) == is_acting]
            groups[group] = names
    return groups


def _left_open(name: str, groups: dict[str, list[str]]) -> set[str]:
    """Groups of which single settings may be given that the option chosen has not.

    Where a trained run is used, its planner's; where one is made, what another model or training has.
    """
    left_open = {"train": {"model", "training"}, **{verb: {"planner"} for verb in _TRAINED}}
    return left_open.get(name, set()) & set(groups)


def _settings_of(names: set[str], groups: dict[str, list[str]]) -> dict[str, Any]:
    """Every setting of any option of these groups, with a value that tells its type."""
    root = files(CONFIGS)
    found: dict[str, Any] = {}
    for group in names:
        for option in groups[group]:
            settings = OmegaConf.create((root / group / f"{option}.yaml").read_text())
            found |= {f"{group}.{key}": value for key, value in _flat(settings).items()}
    return found


def check_saved(config: Any) -> None:
    """Check a configuration of `train` that a file holds: what is there has the type that `train` takes.

    Errors: `ConfigError` that names the key. Nothing in it is resolved, and none of its names is looked up.
    """
    if not isinstance(config, dict):
        raise ConfigError("the configuration is no mapping")
    types = _types_of_train()
    for group in {key.partition(".")[0] for key in types if "." in key}:
        if not isinstance(config.get(group, {}), dict):
            raise ConfigError(f"{group}={str(config[group])[:80]}: must be {_KINDS[dict]}")
    for key in ("task", "env", "planner"):
        if key not in config:
            raise ConfigError(f"{key} is missing")
    try:
        flat = _flat(config, types.keys())
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    for key, value in flat.items():
        if key in types:
            _check_type(key, value, types[key])
        elif key.startswith("env."):
            raise ConfigError(f"there is no setting {key[:80]!r}")
    for key in ("tasks", "datasets"):
        if not all(isinstance(name, str) for name in config.get(key, [])):
            raise ConfigError(f"{key}={str(config[key])[:80]}: must be a list of words")
    if missing := {"name", "num_proposals"} - config["planner"].keys():
        raise ConfigError(f"planner.{min(missing)} is missing")


def check_saved_env(settings: Any) -> None:
    """Check settings of an environment that a server tells of, as `check_saved` does those of a file."""
    check_saved({"task": "", "env": settings, "planner": {"name": "", "num_proposals": 0}})


@cache
def _types_of_train() -> dict[str, Any]:
    """Every key that `train` has with any of its options, and a value that tells its type."""
    groups = config_groups("train")
    parts = {"basis", "noise"}  # of a planner
    found = _settings_of(set(groups) - parts - {"budget", "experiment"}, groups)
    found |= {f"planner.{key}": value for key, value in _settings_of(parts, groups).items()}
    return found | _flat(_compose("train", []))


def keys_of(name: str) -> list[str]:
    """All keys of `configs/<name>.yaml` as it is composed."""
    return list(_flat(_compose(name, [])))


def config_text(name: str) -> str:
    """The composed configuration as YAML, for people: with the comments of its files."""
    root = files(CONFIGS)
    sources = {"": (root / f"{name}.yaml").read_text()}
    top = OmegaConf.create(sources[""])
    assert isinstance(top, DictConfig)
    for entry in top.get("defaults", []):
        if isinstance(entry, DictConfig) and None not in entry.values():
            group, option = (str(word) for pair in entry.items() for word in pair)
            sources[f"{group!s}."] = (root / group / f"{option}.yaml").read_text()
    return with_comments(OmegaConf.to_yaml(_compose(name, [])), sources)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def quoted(key: str, value: Any) -> str:
    """An override whose value is taken as it is, whatever characters a path may have."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def closest(name: str, known: Sequence[str]) -> str:
    """' (did you mean ...?)' for a mistyped name, or nothing."""
    # The last part of a dotted key too: people forget the group.
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    matches += [key for key in known if key.split(".")[-1] == name.split(".")[-1] and key not in matches]
    return f" (did you mean {' or '.join(matches[:3])}?)" if matches else ""


def positive(config: Mapping[str, Any], *names: str) -> None:
    """Check that these counts are at least 1. Errors: `ConfigError`."""
    for name in names:
        if not config[name] >= 1:
            raise ConfigError(f"{name}={config[name]}: must be at least 1")


def not_negative(config: Mapping[str, Any], *names: str) -> None:
    """Check that these numbers are at least 0. Errors: `ConfigError`."""
    for name in names:
        if not config[name] >= 0:
            raise ConfigError(f"{name}={config[name]}: must be at least 0")


def share(config: Mapping[str, Any], *names: str) -> None:
    """Check that these numbers are shares, from 0 to 1. Errors: `ConfigError`."""
    for name in names:
        if not 0 <= config[name] <= 1:
            raise ConfigError(f"{name}={config[name]}: must be at least 0 and at most 1")


def at_most(config: Mapping[str, Any], name: str, highest: int) -> None:
    """Check that this number is not above. Errors: `ConfigError`."""
    if config[name] > highest:
        raise ConfigError(f"{name}={config[name]}: must be at most {highest}")


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    try:
        with initialize_config_module(CONFIGS, version_base="1.3"):
            config = compose(name, overrides=list(overrides))
            OmegaConf.resolve(config)
            return config
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _check_override(override: str, groups: dict[str, list[str]]) -> None:
    if not re.match(r"[a-zA-Z_][\w./@-]*=", override):
        raise ConfigError(f"{override!r} is no override: write key=value, for example seed=1")
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        detail = " ".join(str(error).split())
        raise ConfigError(
            f"cannot read the override {override!r}: {detail}; {_way_to_quote(override)}"
        ) from error
    key, value = _key(override), override.partition("=")[2]
    if key in groups and value not in groups[key]:
        raise ConfigError(
            f"there is no {key} {value!r}{closest(value, groups[key])}. Known: {', '.join(groups[key])}"
        )


def _way_to_quote(override: str) -> str:
    """How the shell and hydra take a value with special characters as it is."""
    key, _, value = override.partition("=")
    words = f'{key}="{value}"'
    try:
        parsed = OverridesParser.create().parse_override(words)
    except HydraException:
        return "quote special characters"
    return f"quote it: {shlex.quote(words)}" if parsed.value() == value else "quote special characters"


def _key(override: str) -> str:
    return override.partition("=")[0]


def _within(key: str, open_keys: Collection[str]) -> bool:
    return key.rpartition(".")[0] in open_keys


def _flat(config: Any, whole: Collection[str] = ()) -> dict[str, Any]:
    """Leaves by dotted key; mappings that are empty, or in `whole`, are leaves too."""

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping) and value and path not in whole:
                yield from walk(value, f"{path}.")
            else:
                yield path, value

    return dict(walk(config if isinstance(config, dict) else to_dict(config), ""))


def _check_type(key: str, value: Any, default: Any) -> None:
    """The default in yaml says which type a key has; where there is none, it is a word (a path, a name)."""
    if value is None and default is None:
        return
    has_default = default not in (None, "???")
    wanted = type(default) if has_default else str
    accepted = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        example = f", such as {default}" if has_default else ""
        quote = f" (a number in quotes is one: '{key}=\"{value}\"')" if wanted is str else ""
        raise ConfigError(f"{key}={value}: must be {_KINDS[wanted]}{example}{quote}")
