"""The report of `worldmodel bench learning`: curves, tables, and what they were measured with."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps import plots, provenance
from worldmodel.apps.control import CONTROL_FILE
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.errors import RunError
from worldmodel.training import read_metrics

AGENTS = {
    "planner": "planner on the learned model",
    "policy": "policy prior alone",
    "zero": "no action",
    "random": "random actions",
}

Curve = dict[int, list[float]]  # env steps -> one evaluation for each seed


def write_report(output: Path, config: dict[str, Any]) -> Path:
    """Write `report.md`, `curves.csv`, `controls.csv` and `curves.png` from the runs in `output`."""
    runs = {task: run_dirs(output, task) for task in config["tasks"]}
    if not any(runs.values()):
        raise RunError(f"output={output} holds no runs of {', '.join(config['tasks'])}")
    records = {(task, run.name): read_metrics(run) for task, paths in runs.items() for run in paths}
    curves = {
        task: _curve([records[task, run.name] for run in paths], "eval/return")
        for task, paths in runs.items()
    }
    references = {task: _references(config["reference"], task) for task in runs}
    controls = {task: _controls(paths) for task, paths in runs.items()}
    _write_curves(output / "curves.csv", records)
    _write_controls(output / "controls.csv", controls)
    shown = {task: summary(curve) for task, curve in curves.items()}
    published = {
        task: {method: summary(curve) for method, curve in methods.items()}
        for task, methods in references.items()
    }
    plots.save(plots.learning_curves(shown, published), output / "curves.png")
    path = output / "report.md"
    path.write_text(
        "\n".join(
            [
                "![learning curves](curves.png)",
                "",
                *_agent_table(controls),
                "",
                *_cost_table(records, controls),
                "",
                *_provenance(config, [run for paths in runs.values() for run in paths]),
                "",
            ]
        )
    )
    return path


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


def _curve(runs: Sequence[list[dict[str, Any]]], name: str) -> Curve:
    curve: Curve = defaultdict(list)
    for records in runs:
        for record in records:
            if name in record:
                curve[record["env_steps"]].append(record[name])
    return curve


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


def _agent_table(controls: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[str]:
    lines = [
        "Return of an episode: mean over seeds and its 95 % interval (Student's t over the seeds' means).",
        "",
        "| task | " + " | ".join(AGENTS.values()) + " |",
        "|---|" + "---|" * len(AGENTS),
    ]
    for task, agents in controls.items():
        cells = [
            str(mean_interval([run["return"]["mean"] for run in runs])) if runs else "-"
            for runs in agents.values()
        ]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return lines


def _cost_table(
    records: Mapping[tuple[str, str], list[dict[str, Any]]],
    controls: Mapping[str, Mapping[str, list[dict[str, Any]]]],
) -> list[str]:
    lines = [
        "Cost, median over seeds: training without evaluation; a decision of the planner on one thread.",
        "",
        "| task | env steps | updates | training, wall | training, CPU | decision p50 / p95 / p99 | period |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, agents in controls.items():
        runs = [found for (name, _), found in records.items() if name == task]
        latencies = [run["latency"] for run in agents["planner"]]
        if not runs or not latencies:
            continue
        last = {
            key: float(np.median([max(r.get(key, 0) for r in run) for run in runs]))
            for key in ("env_steps", "train/num_updates", "train/seconds", "train/cpu_seconds")
        }
        p50, p95, p99 = (float(np.median([entry[f"p{q}_ms"] for entry in latencies])) for q in (50, 95, 99))
        period = latencies[0]["control_period_ms"]
        lines.append(
            f"| {task} | {last['env_steps']:.0f} | {last['train/num_updates']:.0f} "
            f"| {last['train/seconds'] / 60:.1f} min | {last['train/cpu_seconds'] / 60:.1f} min "
            f"| {p50:.1f} / {p95:.1f} / {p99:.1f} ms | {'-' if period is None else f'{period:.0f} ms'} |"
        )
    return lines


def _provenance(config: dict[str, Any], runs: Sequence[Path]) -> list[str]:
    overrides = " ".join(
        f"{key}={'[' + ','.join(map(str, value)) + ']' if isinstance(value, list) else value}"
        for key, value in config.items()
        if key in ("tasks", "seeds", "recipe", "episodes")
    )
    seeds = sorted({int(run.name.removeprefix("seed-")) for run in runs})
    lines = [
        f"Command: `worldmodel bench learning {overrides}`; seeds {', '.join(map(str, seeds))}.",
        *provenance.summary(runs),
    ]
    return [line for entry in lines for line in (entry, "")][:-1]


def _write_curves(path: Path, records: Mapping[tuple[str, str], list[dict[str, Any]]]) -> None:
    columns = ["env_steps", "eval/return", "train/seconds", "train/cpu_seconds"]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["task", "seed", *columns])
        for (task, run), rows in records.items():
            for row in rows:
                if "eval/return" in row:
                    values = [round(row.get(column, float("nan")), 1) for column in columns]
                    writer.writerow([task, run.removeprefix("seed-"), *values])


def _write_controls(path: Path, controls: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["task", "agent", "seed", "episode", "return", "p50_ms", "p95_ms", "p99_ms"])
        for task, agents in controls.items():
            for agent, runs in agents.items():
                for run in runs:
                    latency = [round(run["latency"][f"p{q}_ms"], 3) for q in (50, 95, 99)]
                    for episode, value in enumerate(run["returns"]):
                        writer.writerow([task, agent, run["seed"], episode, round(value, 1), *latency])
