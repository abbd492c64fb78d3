"""`data split`, `merge`, `filter`, `compact`: datasets made of others' episodes."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps.config import positive
from worldmodel.apps.datasets.conditions import Condition, check_names
from worldmodel.apps.progress import ProgressDisplay, console, counted
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.columns import require_same_columns
from worldmodel.data.compressed import is_compressed
from worldmodel.data.merging import merge_shards
from worldmodel.data.shard import episode_arrays
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, DatasetError, RunError
from worldmodel.files import committed_directory, reason_of

MAX_SHARD_BYTES = 256 * 2**20


def split(config: dict[str, Any]) -> dict[str, int]:
    """Copy episodes at random into `output/train` and `output/held-out`; returns how many each got.

    `config` is that of `configs/data_split.yaml`.
    """
    if not 0 < config["fraction"] < 1:
        raise ConfigError(f"fraction={config['fraction']}: of held-out episodes; must lie between 0 and 1")
    _check_output(config["output"])
    dataset = _opened(config["dataset"])
    num_held_out = round(config["fraction"] * len(dataset))
    if not 0 < num_held_out < len(dataset):
        raise ConfigError(
            f"fraction={config['fraction']} of {counted(len(dataset), 'episode')} leaves one side empty: "
            "record more, or give a fraction= nearer to 0.5"
        )
    order = np.random.default_rng(config["seed"]).permutation(len(dataset))
    parts = {"train": order[num_held_out:], "held-out": order[:num_held_out]}
    with new_folder(config["output"]) as folder:
        for name, indices in parts.items():
            episodes = (dataset.episode(index) for index in sorted(indices.tolist()))
            write_dataset(
                folder / name, episodes, dataset.info, total=len(indices), sources=[config["dataset"]]
            )
    return {name: len(indices) for name, indices in parts.items()}


def merge(config: dict[str, Any]) -> tuple[int, int]:
    """Copy the episodes of several datasets into one; returns how many, and how many were left out.

    `config` is that of `configs/data_merge.yaml`. What is said of a dataset as a whole must not contradict.
    An episode of a collection that is in already (of the same number) is not copied again.
    """
    if not config["datasets"]:
        raise ConfigError("datasets=[]: must name at least one")
    _check_output(config["output"])
    datasets = [EpisodeDataset.open(path) for path in config["datasets"]]
    info: dict[str, Any] = {}
    filled = [(path, found) for path, found in zip(config["datasets"], datasets, strict=True) if len(found)]
    if not filled:
        raise DatasetError("no dataset of datasets= holds an episode yet: record some first")
    first, expected = filled[0]
    for path, dataset in filled[1:]:
        require_same_columns(
            dataset.columns, expected.columns, what=f"the dataset {path}", where=f"the dataset {first}"
        )
    for path, dataset in zip(config["datasets"], datasets, strict=True):
        for key, value in dataset.info.items():
            if info.setdefault(key, value) != value and not isinstance(value, dict | list):
                raise ConfigError(f"{path} has {key}={value!r}, those before it have {info[key]!r}")
    total, seen, num_twice = sum(len(dataset) for dataset in datasets), set(), 0

    def once() -> Iterator[Episode]:
        nonlocal num_twice
        for dataset in datasets:
            for episode in dataset:
                key = (episode.info.get("collection"), episode.info.get("number"))
                if None not in key and key in seen:
                    num_twice += 1
                else:
                    seen.add(key)
                    yield episode

    with new_folder(config["output"]) as folder:
        write_dataset(folder, once(), info, total=total, sources=config["datasets"])
    return total - num_twice, num_twice


def keep(config: dict[str, Any]) -> tuple[int, int]:
    """Copy the episodes for which all conditions hold; returns how many these are, and of how many.

    `config` is that of `configs/data_filter.yaml`.
    """
    if not config["where"] and not config["skip_damaged"]:
        raise ConfigError("a condition is missing: give one or more, such as 'return>500'")
    conditions = [Condition.parse(str(text)) for text in config["where"]]
    _check_output(config["output"])
    dataset = _opened(config["dataset"], skips_damaged=config["skip_damaged"])
    check_names(conditions, dataset)
    kept = [
        index
        for index, episode in enumerate(dataset)
        if all(condition.holds(episode) for condition in conditions)
    ]
    if not kept:
        raise ConfigError(
            f"none of the {counted(len(dataset), 'episode')} of {config['dataset']} fulfils "
            f"{' and '.join(map(str, config['where']))}: `worldmodel data info` shows what there is"
        )
    with new_folder(config["output"]) as folder:
        write_dataset(
            folder, map(dataset.episode, kept), dataset.info, total=len(kept), sources=[config["dataset"]]
        )
    return len(kept), len(dataset)


def compact(config: dict[str, Any]) -> int:
    """Put small shards together in place; returns how many vanished.

    `config` is that of `configs/data_compact.yaml`. Others may read and record meanwhile.
    """
    positive(config, "max_megabytes")
    return merge_shards(EpisodeStore(Path(config["dataset"])), int(config["max_megabytes"] * 2**20))


def write_dataset(
    path: Path,
    episodes: Iterable[Episode],
    info: dict[str, Any],
    *,
    total: int | None,
    sources: Sequence[str] = (),
) -> None:
    """Write episodes (`total`, if it is known) as a new dataset, in shards as large as they should be.

    Images stay compressed where they are so in one of the `sources`. Errors: `DatasetError`.
    """
    compresses = any(_is_compressed(EpisodeStore(Path(source))) for source in sources)
    store = EpisodeStore(path, create=True, info=info)
    with ProgressDisplay("writing", total, "episodes") as display:
        done = 0
        for group in _groups(episodes):
            store.write(group, compresses_pixels=compresses)
            done += len(group)
            display.update(done)


def _opened(path: str, *, skips_damaged: bool = False) -> EpisodeDataset:
    """A dataset with episodes; damaged shards that are skipped are named. Errors: `DatasetError`."""
    with warnings.catch_warnings(record=True) as skipped:
        warnings.simplefilter("always")
        # In memory every byte is checked.
        dataset = EpisodeDataset.open(path, strict=not skips_damaged, in_memory=skips_damaged or None)
    for warning in skipped:
        console.print(str(warning.message))
    if not len(dataset):
        raise DatasetError(f"dataset={path} holds no episode yet: record some first")
    return dataset


def _check_output(output: str) -> None:
    """A copy is a new folder, and lies in no dataset. Errors: `RunError`."""
    if Path(output).exists():
        raise RunError(f"output={output} exists: choose another folder, or delete this one")
    for parent in Path(output).resolve().parents:
        if (parent / "dataset.json").exists():
            raise RunError(f"output={output} lies inside of the dataset {parent}: choose a folder beside it")


def _is_compressed(store: EpisodeStore) -> bool:
    return any(is_compressed(store.shard_path(name), "observation.pixels") for name in store.shard_names())


def _groups(episodes: Iterable[Episode]) -> Iterator[list[Episode]]:
    group: list[Episode] = []
    size = 0
    for episode in episodes:
        group.append(episode)
        size += sum(array.nbytes for array in episode_arrays(episode).values())
        if size >= MAX_SHARD_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def new_folder(output: str) -> Iterator[Path]:
    """A folder to fill, which appears whole or not at all. Errors: `RunError` if it exists already."""
    _check_output(output)
    try:
        with committed_directory(Path(output)) as temporary:
            yield temporary
    except DatasetError:
        raise
    except OSError as error:
        raise RunError(f"cannot write output={output}: {reason_of(error)}") from error
