"""The report of `worldmodel bench learning`: curves, tables, and what they were measured with."""

import csv
import hashlib
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps import plots, provenance
from worldmodel.apps.control import CONTROL_FILE
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.errors import RunError
from worldmodel.files import committed_file, write_text
from worldmodel.training import read_metrics

AGENTS = {
    "planner": "planner on the learned model",
    "policy": "policy prior alone",
    "zero": "no action",
    "random": "random actions",
}

MILESTONES = (25_000, 50_000, 100_000)  # env steps of the table of returns
_MAX_NAME = 100  # letters of a folder's name

Curve = dict[int, list[float]]  # env steps -> one evaluation for each seed


@dataclass(frozen=True, kw_only=True)
class Learned:
    """All runs of a preset on a task, and what they wrote, by seed."""

    preset: str
    task: str
    runs: list[Path]
    records: list[list[dict[str, Any]]]
    controls: dict[str, list[dict[str, Any]]]  # of each agent

    @property
    def curve(self) -> Curve:
        """Evaluations while training."""
        curve: Curve = defaultdict(list)
        for records in self.records:
            for record in records:
                if "eval/return" in record:
                    curve[record["env_steps"]].append(record["eval/return"])
        return curve

    def last(self, name: str) -> float:
        """The median over seeds of what a metric came to."""
        return float(
            np.median([max((r.get(name, 0) for r in records), default=0) for records in self.records])
        )


def write_report(output: Path, config: dict[str, Any]) -> Path:
    """Write `report.md`, `curves.csv`, `controls.csv` and `curves.png` from the runs in `output`."""
    cells = [_read(output, preset, task) for preset in config["presets"] for task in config["tasks"]]
    cells = [cell for cell in cells if cell.runs]
    if not cells:
        raise RunError(f"output={output} holds no runs of {', '.join(config['tasks'])}")
    tasks = [task for task in config["tasks"] if any(cell.task == task for cell in cells)]
    published = {
        task: {method: summary(curve) for method, curve in _references(config["reference"], task).items()}
        for task in tasks
    }
    ours = {task: {cell.preset: summary(cell.curve) for cell in cells if cell.task == task} for task in tasks}
    _write_curves(output / "curves.csv", cells)
    _write_controls(output / "controls.csv", cells)
    plots.save(plots.learning_curves(ours, published), output / "curves.png")
    parts = [
        ["![learning curves](curves.png)"],
        _return_table(cells, published),
        _agent_table(cells),
        _cost_table(cells),
        _provenance(config, [run for cell in cells for run in cell.runs]),
    ]
    path = output / "report.md"
    write_text(path, "\n\n".join("\n".join(part) for part in parts) + "\n")
    return path


def preset_dir(output: Path, preset: str) -> Path:
    """Where a preset's runs are: a folder's name has no spaces and slashes, and an end of its own if cut."""
    name = re.sub(r"[^\w.=+-]+", "-", preset).strip("-")
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 9]}-{hashlib.sha256(preset.encode()).hexdigest()[:8]}"
    return output / name


def run_dirs(output: Path, task: str) -> list[Path]:
    """The runs of a task, by seed."""
    found = {
        int(path.name.removeprefix("seed-")): path
        for path in (output / task).glob("seed-*/")
        if path.name.removeprefix("seed-").isdecimal()
    }
    return [found[seed] for seed in sorted(found)]


def summary(curve: Curve) -> dict[int, Mean]:
    """Mean and 95 % interval over seeds at each number of env steps that all seeds reached."""
    num_seeds = max((len(values) for values in curve.values()), default=0)
    return {
        steps: mean_interval(values) for steps, values in sorted(curve.items()) if len(values) == num_seeds
    }


def _read(output: Path, preset: str, task: str) -> Learned:
    runs = run_dirs(preset_dir(output, preset), task)
    return Learned(
        preset=preset,
        task=task,
        runs=runs,
        records=[read_metrics(run) for run in runs],
        controls=_controls(runs),
    )


def _references(folder: str | None, task: str) -> dict[str, Curve]:
    """Published curves by method; empty where there are none."""
    curves: dict[str, Curve] = {}
    for path in sorted(Path(folder).glob(f"*/{task}.csv")) if folder else []:
        curve: Curve = defaultdict(list)
        with path.open() as stream:
            for row in csv.DictReader(stream):
                curve[int(row["step"])].append(float(row["reward"]))
        curves[path.parent.name] = curve
    return curves


def _controls(runs: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """What each agent's `control` wrote, one entry for each seed."""
    found: dict[str, list[dict[str, Any]]] = {agent: [] for agent in AGENTS}
    for run in runs:
        for agent in AGENTS:
            path = run / f"control-{agent}" / CONTROL_FILE
            if path.exists():
                found[agent].append(json.loads(path.read_text()))
    return found


def _return_table(
    cells: Sequence[Learned], published: Mapping[str, Mapping[str, Mapping[int, Mean]]]
) -> list[str]:
    """Ours at the milestones that were reached, beside what others published for the last one."""
    methods = sorted({method for curves in published.values() for method in curves})
    steps = [f"{milestone // 1000}k" for milestone in MILESTONES]
    header = ["task", "preset", "seeds", *steps, *(f"{method} at {steps[-1]}" for method in methods)]
    lines = [
        "Mean return of the evaluations while training, and its 95 % interval over seeds, at so many env",
        "steps (action repeat counted).",
        "",
        "| " + " | ".join(header) + " |",
        "|---" * len(header) + "|",
    ]
    for cell in cells:
        curve = summary(cell.curve)
        found = [str(_at(curve, milestone) or "-") for milestone in MILESTONES]
        theirs = [published[cell.task].get(method, {}).get(MILESTONES[-1]) for method in methods]
        shown = [f"{mean.mean:.0f}" if mean else "-" for mean in theirs]
        lines.append("| " + " | ".join([cell.task, cell.preset, str(len(cell.runs)), *found, *shown]) + " |")
    return lines


def _at(curve: Mapping[int, Mean], milestone: int) -> Mean | None:
    """The first evaluation from a milestone on, if it is near: environments of a batch step together."""
    return next((mean for steps, mean in curve.items() if 0 <= steps - milestone <= 0.01 * milestone), None)


def _agent_table(cells: Sequence[Learned]) -> list[str]:
    lines = [
        "Return of an episode after training: mean over seeds and its 95 % interval (Student's t over the",
        "seeds' means).",
        "",
        "| task | preset | " + " | ".join(AGENTS.values()) + " |",
        "|---|---" + "|---" * len(AGENTS) + "|",
    ]
    for cell in cells:
        means = [
            str(mean_interval([run["return"]["mean"] for run in runs])) if runs else "-"
            for runs in cell.controls.values()
        ]
        lines.append(f"| {cell.task} | {cell.preset} | " + " | ".join(means) + " |")
    return lines


def _cost_table(cells: Sequence[Learned]) -> list[str]:
    lines = [
        "Cost, median over seeds: training without evaluation; updates in a second of CPU time spent on",
        "them; a decision of the planner on one thread, for one environment.",
        "",
        "| task | preset | env steps | updates | training, wall | training, CPU | updates/s "
        "| decision p50 / p95 / p99 | period |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        latencies = [run["latency"] for run in cell.controls["planner"]]
        if not latencies:
            continue
        num_updates, in_updates = cell.last("train/num_updates"), cell.last("train/update_cpu_seconds")
        p50, p95, p99 = (float(np.median([entry[f"p{q}_ms"] for entry in latencies])) for q in (50, 95, 99))
        period = latencies[0]["control_period_ms"]
        lines.append(
            f"| {cell.task} | {cell.preset} | {cell.last('env_steps'):.0f} | {num_updates:.0f} "
            f"| {cell.last('train/seconds') / 60:.1f} min | {cell.last('train/cpu_seconds') / 60:.1f} min "
            f"| {f'{num_updates / in_updates:.0f}' if in_updates else '-'} "
            f"| {p50:.1f} / {p95:.1f} / {p99:.1f} ms | {'-' if period is None else f'{period:.0f} ms'} |"
        )
    return lines


def _provenance(config: dict[str, Any], runs: Sequence[Path]) -> list[str]:
    shown = {key: config[key] for key in ("tasks", "presets", "episodes")}
    # A preset with spaces is one word of the shell and one item of the list: quotes within quotes.
    shown["presets"] = [f'"{preset}"' if " " in preset else preset for preset in config["presets"]]
    overrides = shlex.join(
        f"{key}={'[' + ','.join(map(str, value)) + ']' if isinstance(value, list) else value}"
        for key, value in shown.items()
    )
    seeds = sorted({int(run.name.removeprefix("seed-")) for run in runs})
    lines = [
        f"Command: `worldmodel bench learning {overrides}`; seeds {', '.join(map(str, seeds))}.",
        *provenance.summary(runs),
    ]
    return [line for entry in lines for line in (entry, "")][:-1]


def _write_curves(path: Path, cells: Sequence[Learned]) -> None:
    columns = ["env_steps", "eval/return", "train/num_updates", "train/seconds", "train/cpu_seconds"]
    with committed_file(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["task", "preset", "seed", *columns])
        for cell in cells:
            for run, records in zip(cell.runs, cell.records, strict=True):
                for record in records:
                    if "eval/return" in record:
                        values = [round(record.get(column, float("nan")), 1) for column in columns]
                        writer.writerow([cell.task, cell.preset, run.name.removeprefix("seed-"), *values])


def _write_controls(path: Path, cells: Sequence[Learned]) -> None:
    with committed_file(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["task", "preset", "agent", "seed", "episode", "return", "p50_ms", "p95_ms", "p99_ms"]
        )
        for cell in cells:
            for agent, runs in cell.controls.items():
                for run in runs:
                    latency = [round(run["latency"][f"p{q}_ms"], 3) for q in (50, 95, 99)]
                    for episode, value in enumerate(run["returns"]):
                        row = [cell.task, cell.preset, agent, run["seed"], episode, round(value, 1)]
                        writer.writerow([*row, *latency])
