"""`data info`: what a dataset holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from worldmodel.apps.datasets.meanwhile import again_if_merged
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.statistics import mean_interval
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.statistics import Moments
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

_NUM_BINS, _BAR_WIDTH = 10, 40
_AT_BOUND = 0.999  # of an action in [-1, 1]


def info(config: dict[str, Any]) -> dict[str, Any]:
    """Print what a dataset holds: facts, histograms of returns and lengths, coverage; returns the facts.

    `config` is that of `configs/data_info.yaml`.
    Errors: `DatasetError` if there is none, or it is damaged or empty.
    """
    return again_if_merged(config["dataset"], lambda: _info(config))


def _info(config: dict[str, Any]) -> dict[str, Any]:
    store = EpisodeStore(Path(config["dataset"]))
    dataset = EpisodeDataset.open(config["dataset"])
    if not len(dataset):
        raise DatasetError(f"dataset={config['dataset']} holds no episode yet")
    returns: list[float] = []
    lengths: list[float] = []
    endings = {"terminated": 0, "truncated": 0}
    coverage: dict[str, Moments] = {}
    num_at_bound = 0
    with ProgressDisplay("reading", len(dataset), "episodes") as display:
        for index, episode in enumerate(dataset):
            returns.append(episode.total_reward)
            lengths.append(float(episode.num_steps))
            for name in endings:
                endings[name] += getattr(episode, name)
            for name, rows in _vectors(episode).items():
                coverage.setdefault(name, Moments()).add(rows)
            num_at_bound += int((np.abs(episode.action) >= _AT_BOUND).sum())
            display.update(index + 1)
    facts = {
        "episodes": len(dataset),
        "steps": dataset.num_steps,
        "bytes": store.num_bytes(),
        "shards": len(store.shard_names()),
        **endings,
        "return": mean_interval(returns).to_json(),
        "actions_at_bound": num_at_bound / (dataset.num_steps * dataset.columns["action"].shape[0]),
    }
    console.print(_facts_table(config["dataset"], dataset, facts))
    console.print(_histogram("return", returns))
    console.print(_histogram("length", lengths))
    console.print(_coverage_table(coverage))
    return facts


def _vectors(episode: Episode) -> dict[str, np.ndarray]:
    state = episode.observation.get("state")
    return ({} if state is None else {"state": state}) | {"action": episode.action}


def _facts_table(path: str, dataset: EpisodeDataset, facts: dict[str, Any]) -> Table:
    table = Table(title=str(path), show_header=False, title_justify="left")
    for key, value in dataset.info.items():
        table.add_row(key, str(value))
    table.add_row("episodes", f"{facts['episodes']:,} ({facts['terminated']:,} terminated)")
    table.add_row("steps", f"{facts['steps']:,}")
    table.add_row("size", f"{facts['bytes'] / 1e6:,.1f} MB in {facts['shards']:,} shards")
    for name, column in dataset.columns.items():
        table.add_row(name, str(column))
    return table


def _histogram(name: str, values: Sequence[float]) -> Table:
    counts, edges = np.histogram(values, bins=_NUM_BINS)
    table = Table(title=f"{name}: mean {mean_interval(values)}", show_header=False, title_justify="left")
    if np.ptp(values) == 0:
        table.add_row(f"{values[0]:.4g}", f"{len(values)}", "all")
        return table
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * int(np.ceil(count / counts.max() * _BAR_WIDTH))
        table.add_row(f"{low:.4g} to {high:.4g}", f"{count}", bar)
    return table


def _coverage_table(coverage: dict[str, Moments]) -> Table:
    table = Table("entry", "lowest", "mean", "std", "highest", title="coverage", title_justify="left")
    for name, moments in coverage.items():
        columns = (moments.low, moments.mean, moments.std, moments.high)
        for index, row in enumerate(zip(*columns, strict=True)):
            table.add_row(f"{name}[{index}]", *(f"{value:.3g}" for value in row))
    return table
