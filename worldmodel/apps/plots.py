"""Pictures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodel.apps.statistics import Mean
from worldmodel.data import Episode
from worldmodel.files import committed_file

REAL, IMAGINED, MUTED = "#1f3b57", "#e4572e", "#9aa5b1"
REFERENCES = ("#1f3b57", "#4c956c", "#8d6a9f", "#9aa5b1")
ENTRIES = ("#1f3b57", "#e4572e", "#4c956c", "#f2a541")
OURS = (IMAGINED, "#f2a541", "#b23a78", "#6b4226")
MAX_LINES = 4  # more of them in one plot are a tangle


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and free the figure."""
    with committed_file(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)


def learning_curve(records: Sequence[dict[str, Any]], task: str) -> Figure:
    """Return over env steps: each training episode, and evaluations with their interval."""
    figure, axes = plt.subplots(figsize=(7, 4))
    episodes = [(r["env_steps"], r["train/return"]) for r in records if "train/return" in r]
    evaluations = [r for r in records if "eval/return" in r]
    if episodes:
        axes.scatter(
            [e[0] for e in episodes],
            [e[1] for e in episodes],
            s=8,
            color=MUTED,
            label="training episodes (exploring)",
        )
    if evaluations:
        steps = [r["env_steps"] for r in evaluations]
        axes.fill_between(
            steps,
            [r.get("eval/return_low", r["eval/return"]) for r in evaluations],
            [r.get("eval/return_high", r["eval/return"]) for r in evaluations],
            color=IMAGINED,
            alpha=0.2,
            linewidth=0,
        )
        label = "evaluation, mean and 95 % interval"
        axes.plot(steps, [r["eval/return"] for r in evaluations], color=IMAGINED, marker="o", label=label)
    axes.set(xlabel="env steps (action repeat counted)", ylabel="return", title=task)
    lowest = min([e[1] for e in episodes] + [r["eval/return"] for r in evaluations], default=0)
    axes.set_ylim(bottom=0 if lowest >= 0 else None)
    axes.legend(loc="lower right", frameon=False)
    plain(axes)
    return figure


def learning_curves(
    curves: Mapping[str, Mapping[str, Mapping[int, Mean]]],
    references: Mapping[str, Mapping[str, Mapping[int, Mean]]],
) -> Figure:
    """For each task the mean and 95 % interval over seeds of each preset, over published ones."""
    columns = min(len(curves), 4)
    rows = -(-len(curves) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.6 * rows), squeeze=False)
    for axes, (task, presets) in zip(grid.flat, curves.items(), strict=False):
        last = max((max(curve, default=0) for curve in presets.values()), default=0)
        for index, (method, reference) in enumerate(references.get(task, {}).items()):
            shown = {steps: mean for steps, mean in reference.items() if steps <= max(2 * last, 100_000)}
            band(axes, shown, color=REFERENCES[index % len(REFERENCES)], label=f"{method}, published")
        for index, (preset, curve) in enumerate(presets.items()):
            band(axes, curve, color=OURS[index % len(OURS)], label=f"worldmodel {preset}")
        axes.set(title=task, xlabel="env steps (action repeat counted)", ylabel="return", ylim=(0, 1020))
        plain(axes)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    # One legend for all: the lines mean the same everywhere.
    entries = {
        label: line
        for axes in grid.flat
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / (3.6 * rows)))
    figure.legend(
        entries.values(), entries.keys(), loc="upper center", ncols=len(entries), frameon=False, fontsize=9
    )
    return figure


def returns_of_episodes(returns: Sequence[float], shown: Mapping[int, str]) -> Figure:
    """A histogram of returns; the `shown` ones, by index, are marked."""
    figure, axes = plt.subplots(figsize=(7, 2.6))
    axes.hist(returns, bins=min(40, max(10, len(returns) // 5)), color=MUTED, alpha=0.6)
    for index in shown:
        axes.axvline(returns[index], color=IMAGINED, linewidth=1.2)
    axes.set(xlabel="return (lines: the episodes shown below)", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    return figure


def episode_over_time(episode: Episode, period_s: float | None) -> Figure:
    """Reward, actions and state of one episode, over seconds where the time of a step is known."""
    groups = {"action": episode.action}
    if "state" in episode.observation:
        groups["state"] = episode.observation["state"]
    figure, grid = plt.subplots(1 + len(groups), 1, figsize=(7.5, 1.6 + 1.7 * len(groups)), sharex=True)
    unit = 1.0 if period_s is None else period_s
    steps = np.arange(episode.num_steps + 1) * unit
    reward = np.append(episode.reward, episode.reward[-1])  # of a step, from its begin to its end
    grid[0].fill_between(steps, reward, step="post", color=IMAGINED, alpha=0.25, linewidth=0)
    grid[0].step(steps, reward, where="post", color=IMAGINED, linewidth=1)
    grid[0].set_title("reward", loc="left", fontsize=10)
    plain(grid[0])
    for axes, (name, rows) in zip(grid[1:], groups.items(), strict=True):
        if rows.shape[1] <= MAX_LINES:
            for entry, values in enumerate(rows.T):
                axes.plot(steps[: len(values)], values, linewidth=1, color=ENTRIES[entry], label=f"[{entry}]")
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
            axes.set_title(name, loc="left", fontsize=10)
            plain(axes)
        else:
            _heat(figure, axes, rows, (0.0, len(rows) * unit), name)
    grid[-1].set_xlabel("steps" if period_s is None else "seconds")
    grid[-1].set_xlim(0, steps[-1])
    figure.tight_layout()
    return figure


def _heat(figure: Figure, axes: Any, rows: np.ndarray, extent: tuple[float, float], name: str) -> None:
    """Many entries over time: each a line of colours, from its own mean in its own stds."""
    spread = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    spread /= np.maximum(spread.std(0), 1e-12)
    bottom = rows.shape[1] - 0.5
    axes.imshow(
        spread.T, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-2.5, vmax=2.5,
        extent=(*extent, bottom, -0.5),
    )  # fmt: skip
    axes.set_title(f"{name} (red: above the entry's mean, blue: below)", loc="left", fontsize=10)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def band(axes: Any, curve: Mapping[Any, Mean], *, color: str, label: str) -> None:
    """A mean over env steps, or over another number, with its interval."""
    steps, means = list(curve), list(curve.values())
    low, high = [mean.low for mean in means], [mean.high for mean in means]
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(steps, [mean.mean for mean in means], color=color, marker="o", markersize=3, label=label)


def plain(axes: Any) -> None:
    """Axes without a box, with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
