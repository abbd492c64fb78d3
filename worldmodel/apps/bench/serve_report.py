"""What `bench serve` found, as a page and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from worldmodel.apps.bench.output import Row, markdown_table, provenance_lines

LATENCIES = {"p50_ms": ("p50", "#1f3b57"), "p99_ms": ("p99", "#e4572e")}


def page(rows: Sequence[Row], config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Markdown."""
    total = sum(row["requests"] for row in rows)
    lost, wrong = (sum(row[key] for row in rows) for key in ("lost", "wrong"))
    lines = [f"# How many robots a policy server answers: {config['checkpoint']}", ""]
    lines += [*provenance_lines(record), ""]
    lines += [
        "The server is a process of its own, as `worldmodel serve` starts it; the clients share another "
        f"one, and each asks again as soon as it is answered, for {config['seconds']:g} s. Latency: on the "
        "client, from the observation to its plan. Batch: robots that shared a decision, in the mean; "
        "decision: its time on the wall. CPU: of the whole server process, for each request; it tells what a "
        "decision costs where other work makes everybody wait.",
        "",
        *_busy(record),
        f"Of {total:,} requests {lost} were not answered, and {wrong} answered twice, out of order or in "
        "another shape (each carries a number that its answer must bring back).",
        "",
    ]
    header = ["clients", "requests/s", "p50", "p95", "p99", "max", "batch", "decision", "CPU", "lost"]
    cells = [
        [
            row["clients"],
            f"{row['requests_per_s']:.0f}",
            *(f"{row[key]:.1f} ms" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
            f"{row['mean_batch']:.1f}",
            *(f"{row[key]:.1f} ms" for key in ("decision_ms", "cpu_ms_per_request")),
            row["lost"],
        ]
        for row in rows
    ]
    return "\n".join([*lines, *markdown_table(header, cells), "", "![latency and requests](serve.png)", ""])


def _busy(record: Mapping[str, Any]) -> list[str]:
    """A warning, where others worked on the machine too."""
    load, cores = record["load_average_1_min"], record["cores"]
    if load < cores / 2:
        return []
    return [
        f"**The machine was busy**: a load average of {load:g} on {cores} cores before it began. Latencies "
        "and rates are those of the part of a core that was left; on a free machine they are better.",
        "",
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """Latency, and requests per second with the batch that made them, over the number of clients."""
    result = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = result.subplots(1, 2)
    clients = [row["clients"] for row in rows]
    places = range(len(rows))
    for key, (label, color) in LATENCIES.items():
        left.plot(places, [row[key] for row in rows], marker="o", color=color, label=label)
    left.set(xlabel="clients", ylabel="ms from observation to plan", ylim=(0, None))
    left.legend(frameon=False)
    right.bar(places, [row["requests_per_s"] for row in rows], color="#9aa5b1", width=0.6)
    for place, row in zip(places, rows, strict=True):
        right.text(
            place,
            row["requests_per_s"],
            f"batch {row['mean_batch']:.1f}",
            ha="center",
            va="bottom",
            fontsize=9,
        )
    right.set(xlabel="clients", ylabel="requests per second")
    right.margins(y=0.12)
    for axes in (left, right):
        axes.set_xticks(places, clients)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, axis="y")
    return result
