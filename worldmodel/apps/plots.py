"""Pictures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from worldmodel.analysis import OpenLoop
from worldmodel.apps.statistics import Mean

REAL, IMAGINED, MUTED = "#1f3b57", "#e4572e", "#9aa5b1"
REFERENCES = ("#1f3b57", "#4c956c", "#8d6a9f", "#9aa5b1")
OURS = (IMAGINED, "#f2a541", "#b23a78", "#6b4226")
MAX_DIMENSIONS = 6


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and free the figure."""
    figure.savefig(path, dpi=110, bbox_inches="tight")
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
    _plain(axes)
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
            _band(axes, shown, color=REFERENCES[index % len(REFERENCES)], label=f"{method}, published")
        for index, (preset, curve) in enumerate(presets.items()):
            _band(axes, curve, color=OURS[index % len(OURS)], label=f"worldmodel {preset}")
        axes.set(title=task, xlabel="env steps (action repeat counted)", ylabel="return", ylim=(0, 1020))
        _plain(axes)
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


def imagined_and_real(result: OpenLoop, task: str, table: Sequence[dict[str, int | float]]) -> Figure:
    """One window in detail (rewards, read-out observations), and the errors over the horizon."""
    num_dimensions = min(result.observation.shape[2], MAX_DIMENSIONS)
    rows = 1 + (num_dimensions + 2) // 3
    figure, grid = plt.subplots(rows, 3, figsize=(12, 2.7 * rows), squeeze=False)
    # The window in which most happens is the one worth looking at.
    window = int(result.observation.std(1).sum(-1).argmax())
    steps = np.arange(1, result.reward.shape[1] + 1)
    panels = [
        ("reward", result.reward[window], result.imagined_reward[window]),
        ("sum of rewards", result.reward[window].cumsum(), result.imagined_reward[window].cumsum()),
    ]
    panels += [
        (f"state[{d}]", result.observation[window, :, d], result.imagined_observation[window, :, d])
        for d in range(num_dimensions)
    ]
    places = [grid[0][0], grid[0][1], *grid[1:].flatten()]
    for axes, (name, real, imagined) in zip(places, panels, strict=False):
        axes.plot(steps, real, color=REAL, label="real")
        axes.plot(steps, imagined, color=IMAGINED, linestyle="--", label="imagined")
        axes.set_title(name, fontsize=10)
        _plain(axes)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    places[0].legend(frameon=False, fontsize=9)
    errors = grid[0][2]
    k = [row["steps"] for row in table]
    errors.plot(k, [row["observation_error"] for row in table], color=IMAGINED, marker="o", label="imagined")
    no_motion = [row["no_motion_error"] for row in table]
    errors.plot(k, no_motion, color=MUTED, marker="o", label="if nothing moved")
    errors.set_title(f"observation error (std), {len(result.reward)} windows", fontsize=10)
    errors.legend(frameon=False, fontsize=9)
    _plain(errors)
    figure.suptitle(f"{task}: imagined from one observation and the actions alone, agent steps ahead")
    figure.tight_layout()
    return figure


def _band(axes: Any, curve: Mapping[int, Mean], *, color: str, label: str) -> None:
    """A mean over env steps with its interval."""
    steps, means = list(curve), list(curve.values())
    low, high = [mean.low for mean in means], [mean.high for mean in means]
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(steps, [mean.mean for mean in means], color=color, marker="o", markersize=3, label=label)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
