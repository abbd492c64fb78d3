"""How surprised a model was, as a page and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worldmodel.apps import plots
from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines, write_all
from worldmodel.apps.progress import console

Traces = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, int]]]
_BEFORE, _AFTER = 4, 10  # agent steps that the picture shows around a violation
_MAX_COLUMNS = 3


def write_report(
    folder: Path,
    task: str,
    rows: Sequence[Row],
    traces: Traces,
    record: Mapping[str, Any],
    false_alarms: float,
) -> None:
    """Table, page, picture and provenance, and the table on the terminal.

    `false_alarms`: the rate by which the alarm was set. Errors: `RunError`.
    """
    table = markdown_table(
        [
            "violation",
            "what",
            "pairs",
            "AUROC",
            "lasting",
            "either",
            "alarms",
            "false alarms",
            "surprise, lasting: times the plain one",
            "p (paired t-test of logs)",
        ],
        [
            [
                row["violation"].replace("_", " "),
                row["meaning"],
                row["pairs"],
                f"{row['auroc']:.3f}",
                f"{row['auroc_lasting']:.3f}",
                f"{row['auroc_either']:.3f}",
                *("-" if row[key] is None else f"{row[key]:.0%}" for key in ("alarms", "false_alarms")),
                f"{row['ratio']:.2f}, {row['ratio_lasting']:.2f}",
                ", ".join(
                    "-" if row[key] is None else f"{row[key]:.1e}" for key in ("p_value", "p_value_lasting")
                ),
            ]
            for row in rows
        ],
    )
    window, ahead = (record["config"][key] for key in ("window", "ahead"))
    lines = [f"# What surprises {task}'s model", "", *provenance_lines(record), ""]
    lines += [
        "Each episode is played twice with the same start and actions: as it happens, and with one "
        "violation. Surprise is the squared error of the predicted embedding, in units of ordinary "
        f"errors (of all other episodes as they happen: Mahalanobis distance); the highest of {window} "
        "agent steps from the violation on counts. AUROC: how often a violated episode surprises more "
        f"than a plain one (0.5: chance). Lasting: the squared error of what was expected {ahead} "
        "steps before, its geometric mean from the violation on to the end of the episode, which "
        "tells what stays wrong from what was a surprise for a moment. Either: one detector, which "
        "goes by whichever of the two is more stds (of logarithms) above plain episodes. Alarms: in "
        "how many of the violated episodes, from the violation on, and of the plain ones, from the "
        "same step on, the alarm of `control` is raised, set by half of the plain episodes for the "
        f"other half so that each of its signals alarms in about {false_alarms:.0%} of whole episodes.",
        "",
        *table,
        "",
        "![surprise around each violation](surprise.png)",
        "",
        "Median and quartiles of the pairs, as multiples of the median of plain episodes; dotted, the median "
        f"by what was expected {ahead} steps before. In brackets the AUROC of either.",
        "",
    ]
    path = write_all(
        folder,
        "surprise",
        rows=rows,
        record=record,
        figure=_figure(rows, traces, task),
        page="\n".join(lines),
    )
    console.print("\n".join(table))
    console.print(f"report in {path}")


def _figure(rows: Sequence[Row], traces: Traces, task: str) -> Figure:
    num_columns = min(_MAX_COLUMNS, len(rows))
    num_rows = -(-len(rows) // num_columns)
    figure = Figure(figsize=(3.6 * num_columns, 2.8 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    steps = np.arange(-_BEFORE, _AFTER)
    for axes, row in zip(grid.flat, rows, strict=False):
        plain, violated, at = zip(*traces[row["violation"]], strict=True)
        for label, color, kind in (
            ("as it happens", plots.REAL, plain),
            ("violated", plots.IMAGINED, violated),
        ):
            around = np.stack([_around(trace, step) for trace, step in zip(kind, at, strict=True)])
            there = np.isfinite(around[..., 0]).any(0)
            low, middle, high = np.nanpercentile(around[:, there], [25, 50, 75], axis=0)
            axes.fill_between(steps[there], low[:, 0], high[:, 0], color=color, alpha=0.2, linewidth=0)
            axes.plot(steps[there], middle[:, 0], color=color, label=label)
            axes.plot(steps[there], middle[:, 1], color=color, linestyle=":")
        axes.axvline(0, color=plots.MUTED, linewidth=0.8)
        axes.set(
            yscale="log", title=f"{row['violation'].replace('_', ' ')} (AUROC {row['auroc_either']:.2f})"
        )
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("surprise, times the usual")
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.supxlabel(f"agent steps from the violation on ({task})", fontsize=9)
    return figure


def _around(trace: np.ndarray, at: int) -> np.ndarray:
    """The steps (n, 2) about `at`; NaN where there are none."""
    found = np.full((_BEFORE + _AFTER, 2), np.nan)
    for offset in range(-_BEFORE, _AFTER):
        if 0 <= at + offset < len(trace):
            found[offset + _BEFORE] = trace[at + offset]
    return found
