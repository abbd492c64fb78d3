"""`data export` and `data import`: datasets of other formats, written and read."""

import math
from pathlib import Path
from typing import Any

from envs import EnvError, canonical_task
from envs.registry import check_exists
from worldmodel.apps.config import closest, not_negative
from worldmodel.apps.datasets.rewrite import new_folder, write_dataset
from worldmodel.data import EpisodeDataset
from worldmodel.data.formats import FORMATS, Format, dataset_format
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of

_SAME_PERIOD = 0.02  # LeRobot rounds to whole frames per second


def export_dataset(config: dict[str, Any]) -> tuple[int, str]:
    """Write a dataset in another format; returns how many episodes it holds, and how its package finds it.

    `config` is that of `configs/data_export.yaml`.
    Errors: `ConfigError` for an unknown format; `DatasetError` for what a format cannot hold.
    """
    found = _format(config["format"])
    output = Path(config["output"])
    dataset = EpisodeDataset.open(config["dataset"])
    try:
        found.write(output, dataset, dataset.info)
    except OSError as error:
        raise RunError(f"cannot write output={output}: {reason_of(error)}") from error
    return len(dataset), found.how_to_find(output) if hasattr(found, "how_to_find") else ""


def import_dataset(config: dict[str, Any]) -> int:
    """Copy a dataset of another format into a new one of ours; returns how many episodes it holds.

    `config` is that of `configs/data_import.yaml`. What is given of `task`, `action_repeat` and
    `control_period_s` is what formats do not know.
    Errors: as `export_dataset`, `DatasetError` for a damaged one, and `ConfigError` for what contradicts it.
    """
    not_negative(config, "action_repeat", "control_period_s")
    found = _format(config["format"])
    cameras: dict[str, Any] = {}
    if config["camera"] is not None:
        if config["format"] != "lerobot":
            raise ConfigError(f"camera={config['camera']} is for format=lerobot, which may have several")
        cameras["camera"] = config["camera"]
    info, episodes = found.read(Path(config["source"]), **cameras)
    given = {key: config[key] for key in ("task", "action_repeat", "control_period_s") if config[key]}
    for key, value in given.items():
        if key in info and _contradict(key, info[key], value):
            raise ConfigError(
                f"{key}={value} contradicts the source {config['source']}, which says {info[key]}: "
                "leave it out"
            )
    info |= given
    with new_folder(config["output"]) as folder:
        write_dataset(folder, episodes, info, total=None)
    return len(EpisodeDataset.open(config["output"]))


def _contradict(key: str, said: Any, given: Any) -> bool:
    """Whether the source says something else; of a task, by a name that we know: others write sentences."""
    if key == "task":
        try:
            check_exists(str(said))
        except EnvError:
            return False
        return canonical_task(str(said)) != canonical_task(given)
    if isinstance(said, bool) or not isinstance(said, int | float):
        return False
    return not math.isclose(said, given, rel_tol=_SAME_PERIOD if key == "control_period_s" else 0)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(
            f"there is no format {name!r}{closest(name, list(FORMATS))}. Known: {', '.join(FORMATS)}"
        )
    return dataset_format(name)
