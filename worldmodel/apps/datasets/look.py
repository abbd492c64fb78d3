"""`data info`: what a dataset holds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from worldmodel.apps.datasets.bounds import AT_BOUND, breaks_bounds, largest_of
from worldmodel.apps.datasets.conditions import fact_names
from worldmodel.apps.datasets.meanwhile import again_if_merged
from worldmodel.apps.progress import ProgressDisplay, console, counted, megabytes
from worldmodel.apps.statistics import mean_interval
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.statistics import Moments
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

_NUM_BINS, _BAR_WIDTH = 10, 40


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
    groups: dict[tuple[str, str], list[float]] = {}
    num_at_bound, largest_action = 0, 0.0
    with ProgressDisplay("reading", len(dataset), "episodes") as display:
        for index, episode in enumerate(dataset):
            returns.append(episode.total_reward)
            lengths.append(float(episode.num_steps))
            for name in endings:
                endings[name] += getattr(episode, name)
            for name, rows in _vectors(episode).items():
                coverage.setdefault(name, Moments()).add(rows)
            num_at_bound += int((np.abs(episode.action) >= AT_BOUND).sum())
            largest_action = max(largest_action, largest_of(episode.action))
            origin = str(episode.info.get("policy", "-")), str(episode.info.get("collection", "-"))
            groups.setdefault(origin, []).append(episode.total_reward)
            display.update(index + 1)
    facts = {
        "episodes": len(dataset),
        "steps": dataset.num_steps,
        "bytes": store.num_bytes(),
        "shards": len(store.shard_names()),
        **endings,
        "return": mean_interval(returns).to_json(),
        "actions_at_bound": num_at_bound / max(1, dataset.num_steps * dataset.columns["action"].shape[0]),
        "largest_action": largest_action,
    }
    console.print(_facts_table(config["dataset"], dataset, facts))
    if warning := breaks_bounds(largest_action):
        console.print(f"warning: {warning}")
    console.print(_origins_table(groups))
    console.print(f"data filter knows: {', '.join(fact_names(dataset))}")
    _print_histogram("return", returns)
    _print_histogram("length", lengths)
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
    table.add_row("size", f"{megabytes(facts['bytes'])} in {counted(facts['shards'], 'shard')}")
    at_bound = f"{facts['actions_at_bound']:.1%} at their bound, the largest is {facts['largest_action']:.4g}"
    table.add_row("actions", at_bound)
    for name, column in dataset.columns.items():
        table.add_row(name, str(column))
    return table


def _origins_table(groups: dict[tuple[str, str], list[float]]) -> Table:
    table = Table("policy", "collection", "episodes", "return", title="who acted", title_justify="left")
    for (policy, collection), returns in groups.items():
        table.add_row(policy, collection, f"{len(returns):,}", mean_interval(returns).precise())
    return table


def _print_histogram(name: str, values: Sequence[float]) -> None:
    console.print(f"\n{name}: {_range(values)}; mean {mean_interval(values).precise()}")
    table = Table(show_header=False)
    if np.ptp(values) == 0:
        table.add_row(f"{values[0]:.6g}", f"{len(values)}", "all")
        console.print(table)
        return
    edges = np.histogram_bin_edges(values, bins=_NUM_BINS)
    is_whole = all(float(value).is_integer() for value in values)
    if is_whole:  # bins of whole numbers, each of as many
        width = max(1, math.ceil((np.ptp(values) + 1) / _NUM_BINS))
        edges = np.arange(min(values), max(values) + width + 1, width)
    counts, _ = np.histogram(values, bins=edges)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * int(np.ceil(count / counts.max() * _BAR_WIDTH))
        last = high - 1 if is_whole else high
        label = f"{low:.6g}" if last == low else f"{low:.6g} to {last:.6g}"
        table.add_row(label, f"{count}", bar)
    console.print(table)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.6g}", f"{max(values):.6g}"
    return low if low == high else f"{low} to {high}"


def _coverage_table(coverage: dict[str, Moments]) -> Table:
    table = Table("entry", "lowest", "mean", "std", "highest", title="coverage", title_justify="left")
    for name, moments in coverage.items():
        columns = (moments.low, moments.mean, moments.std, moments.high)
        for index, row in enumerate(zip(*columns, strict=True)):
            table.add_row(f"{name}[{index}]", *(f"{value:.3g}" for value in row))
    return table
