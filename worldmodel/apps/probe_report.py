"""What probes found, as a page and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worldmodel.apps.bench.output import Row, make_folder, markdown_table, provenance_lines, write_all
from worldmodel.apps.progress import console

# In the order of the page. Value: what the probe looks at.
FEATURES = {
    "latent": "the latent of the model",
    "untrained": "the latent of the same model with random weights",
    "observation": "the observation itself (images at 16 x 16 pixels), of the last step alone",
    "places": "true places and angles at the steps that the latent holds, and the actions in between: what "
    "images could tell of velocities",
}


def write_report(folder: Path, task: str, rows: Sequence[Row], record: Mapping[str, Any]) -> None:
    """Table, page, picture and provenance, and the table on the terminal. Errors: `RunError`."""
    kinds = list(dict.fromkeys(row["probe"] for row in rows))
    header = ["quantity", *(f"{name}, {kind}" for name in FEATURES for kind in kinds)]
    table = []
    for quantity in dict.fromkeys(row["quantity"] for row in rows):
        cells = {(r["features"], r["probe"]): r for r in rows if r["quantity"] == quantity}
        shown = [cells[name, kind] for name in FEATURES for kind in kinds]
        table.append([quantity, *(f"{r['r2']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in shown)])
    lines = [f"# What {task}'s model has understood", "", *provenance_lines(record), ""]
    lines += [
        "R2 of physical quantities, read by a probe from frozen features on episodes that it has not seen: 1 "
        "is perfect, 0 no better than the mean. In brackets the 95 % interval (bootstrap over episodes).",
        "",
        *(f"- {name}: {what}." for name, what in FEATURES.items()),
        "",
        *markdown_table(header, table),
        "",
        "![R2 of each quantity](probe.png)",
        "",
    ]
    path = write_all(
        make_folder(str(folder)),
        "probe",
        rows=rows,
        record=record,
        figure=_figure(rows, task, kinds[-1]),
        page="\n".join(lines),
    )
    console.print("\n".join(markdown_table(header, table)))
    console.print(f"report in {path}")


def _figure(rows: Sequence[Row], task: str, kind: str) -> Figure:
    names = list(dict.fromkeys(row["quantity"] for row in rows))
    figure = Figure(figsize=(8, 1 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    colors = ("#e4572e", "#9aa5b1", "#1f3b57", "#d9d2c3")
    for offset, (features, color) in enumerate(zip(FEATURES, colors, strict=True)):
        chosen = {r["quantity"]: r for r in rows if r["features"] == features and r["probe"] == kind}
        places = np.arange(len(names)) + 0.2 * (offset - 1.5)
        values = np.array([chosen[name]["r2"] for name in names]).clip(0, 1)
        axes.barh(places, values, height=0.18, color=color, label=features)
    axes.set(
        yticks=range(len(names)), yticklabels=names, xlim=(0, 1), xlabel=f"R2 ({kind} probe)", title=task
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
