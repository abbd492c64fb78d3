"""`data info` and `data validate`: what a dataset holds, and whether all of it can be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.statistics import mean_interval
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError

_NUM_BINS, _BAR_WIDTH = 10, 40
_AT_BOUND = 0.999  # of an action in [-1, 1]


@dataclass
class Moments:
    """Sums that tell mean, std and range of each entry of a vector, over any number of rows."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf
    _shift: Any = field(default=None, repr=False)

    def add(self, rows: np.ndarray) -> None:
        """Take in rows (n, dim)."""
        rows = rows.astype(np.float64)
        if self._shift is None:
            self._shift = rows[0]  # squares of numbers far from 0 would leave no digits for their spread
        moved = rows - self._shift
        self.count += len(rows)
        self.total = self.total + moved.sum(0)
        self.squares = self.squares + np.square(moved).sum(0)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))

    @property
    def mean(self) -> np.ndarray:
        """(dim,)"""
        return np.asarray(self._shift + self.total / self.count)

    @property
    def std(self) -> np.ndarray:
        """(dim,)"""
        variance = self.squares / self.count - np.square(self.total / self.count)
        return np.sqrt(np.maximum(variance, 0.0))


def info(config: dict[str, Any]) -> dict[str, Any]:
    """Print what a dataset holds: facts, histograms of returns and lengths, coverage; returns the facts.

    `config` is that of `configs/data_info.yaml`.
    Errors: `DatasetError` if there is none, or it is damaged or empty.
    """
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


def validate(config: dict[str, Any]) -> None:
    """Read every byte of a dataset, and say what is damaged.

    `config` is that of `configs/data_validate.yaml`.
    Errors: `DatasetError` that names the damaged shards; all others were read.
    """
    store = EpisodeStore(Path(config["dataset"]))
    names = store.shard_names()
    num_episodes, damaged, unchecked = 0, [], 0
    with ProgressDisplay("validating", max(1, len(names)), "shards") as display:
        for index, name in enumerate(names):
            try:
                header = store.header(name)
                num_episodes += len(store.read(header))
                unchecked += not header.checksums
            except DatasetError as error:
                if not store.holds(name):
                    raise DatasetError(
                        f"dataset={config['dataset']} was merged meanwhile: validate it again"
                    ) from error
                damaged.append(name)
                display.note(str(error))
            display.update(index + 1)
    if damaged:
        raise DatasetError(
            f"dataset={config['dataset']}: {len(damaged)} of {len(names)} shards are damaged "
            f"({', '.join(damaged)}); the other {num_episodes} episodes are whole"
        )
    remark = f" ({unchecked} shards of the first schema have no checksums)" if unchecked else ""
    console.print(f"ok: {num_episodes} episodes in {len(names)} shards{remark}")


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
