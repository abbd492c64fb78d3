"""What workers on a cluster bring: steps and updates per second, bytes that are moved, stale weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    markdown_table,
    provenance,
    provenance_lines,
    write_all,
)
from worldmodel.apps.collect import collect
from worldmodel.apps.config import compose_config, not_negative, positive, quoted, to_dict
from worldmodel.apps.launcher import check_place
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.train import make_training
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError
from worldmodel.training import read_metrics

KINDS = ("collect", "train")
HEADERS = {
    "env_steps_per_s": "env steps/s",
    "updates_per_s": "updates/s",
    "received_bytes": "bytes received / env step",
    "fetched_bytes": "bytes of weights / env step",
    "staleness": "versions behind",
    "waiting": "learner waits",
    "acting_cpu_ms": "CPU ms to act / env step",
    "update_cpu_ms": "CPU ms / update",
}


def bench_scaling(config: dict[str, Any], given: set[str]) -> Path:
    """Collect and train with each number of workers, then write `scaling.csv`, `.json` and `.md`.

    `config` is that of `configs/bench_scaling.yaml`. All share one cluster, whose start is not counted, and
    repeats take turns. Returns the path of the page.
    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake, before anything is measured.
    """
    check_names("kinds", config["kinds"], KINDS)
    check_counts("workers", config["workers"])
    positive(config, "num_envs", "episodes", "env_steps", "random_steps", "repeats")
    not_negative(config, "seed")
    check_place("launcher", "ray", config["ray_address"])
    if config["episodes"] < (least := 2 * config["num_envs"] * (max(config["workers"]) + 1)):
        raise ConfigError(f"episodes={config['episodes']}: must be at least {least}, to have a middle")
    from worldmodel.apps.cluster.connection import connected

    measures: dict[str, Callable[[dict[str, Any], int, Path], Row]] = {
        "collect": _collected,
        "train": _trained,
    }
    folder = make_folder(config["output"])
    record = provenance("bench scaling", config, given, torch.device("cpu"), (*PACKAGES, "ray"))
    rows: list[Row] = []
    plan = [
        (kind, workers, repeat)
        for repeat in range(config["repeats"])
        for kind in config["kinds"]
        for workers in (0, *config["workers"])
    ]
    with (
        TemporaryDirectory() as scratch,
        connected(config["ray_address"], max(config["workers"])),
        ProgressDisplay("bench scaling", len(plan), "runs") as display,
    ):
        for number, (kind, workers, repeat) in enumerate(plan):
            row = measures[kind](config, workers, Path(scratch) / str(number))
            rows.append({"kind": kind, "workers": workers, "repeat": repeat, **dict.fromkeys(HEADERS), **row})
            display.update(len(rows), {"env steps/s": f"{row['env_steps_per_s']:.0f}"})
    return write_all(folder, "scaling", rows=rows, record=record, page=_page(rows, record))


def _collected(config: dict[str, Any], workers: int, path: Path) -> Row:
    """From the first shard to the last: workers that are only beginning are not counted."""
    asked = [quoted("task", config["task"]), quoted("dataset", path), "policy=random"]
    asked += [f"{key}={config[key]}" for key in ("num_envs", "episodes", "seed")]
    asked += [f"num_workers={max(1, workers)}", f"launcher={'ray' if workers else 'local'}"]
    collection = to_dict(compose_config("collect", asked)) | {"ray_address": _address(config, workers)}
    collect(collection)
    store = EpisodeStore(path)
    headers = [store.header(name) for name in store.shard_names()]
    times = [int(name.partition("-")[0]) for name in store.shard_names()]  # nanoseconds
    num_steps = sum(sum(header.lengths) for header in headers[1:])
    num_bytes = sum(store.num_raw_bytes(header) for header in headers[1:])
    repeat = store.info["action_repeat"]
    return {
        "env_steps_per_s": repeat * num_steps * 1e9 / (times[-1] - times[0]),
        "received_bytes": num_bytes / (repeat * num_steps) if workers else 0.0,
    }


def _trained(config: dict[str, Any], workers: int, path: Path) -> Row:
    """The second half of a run, by its own metrics."""
    asked = [quoted("task", config["task"]), quoted("run_dir", path), f"experiment={config['preset']}"]
    asked += [f"{key}={config[key]}" for key in ("num_envs", "env_steps", "random_steps", "compile", "seed")]
    asked += ["eval_episodes=1", "eval_every=1000000000", "checkpoint_every=1000000000"]
    asked += [f"num_workers={max(1, workers)}", f"collector={'ray' if workers else 'local'}"]
    training = to_dict(compose_config("train", asked)) | {"ray_address": _address(config, workers)}
    path.mkdir(parents=True)
    make_training(path, training).run()
    told = [
        row
        for row in read_metrics(path)
        if row["env_steps"] >= config["env_steps"] / 2
        and "train/update_cpu_seconds" in row
        and "eval/seconds" not in row
    ]
    if len(told) < 2:
        raise ConfigError(f"env_steps={config['env_steps']}: too few to measure; give more")
    first, last = told[0], told[-1]
    num_steps = last["env_steps"] - first["env_steps"]

    def grown(name: str) -> float:
        return float(last.get(f"train/{name}", 0.0) - first.get(f"train/{name}", 0.0))

    row = {
        "env_steps_per_s": num_steps / grown("seconds"),
        "updates_per_s": grown("num_updates") / grown("seconds"),
        "update_cpu_ms": 1e3 * grown("update_cpu_seconds") / grown("num_updates"),
    }
    if not workers:  # what is neither an update nor waited for is acting
        acting_s = grown("cpu_seconds") - grown("update_cpu_seconds")
        return row | {"acting_cpu_ms": 1e3 * acting_s / num_steps}
    return row | {
        "received_bytes": grown("received_bytes") / num_steps,
        "fetched_bytes": grown("fetched_bytes") / num_steps,
        "staleness": sum(each["train/staleness"] for each in told) / len(told),
        "waiting": grown("waited_seconds") / grown("seconds"),
        "acting_cpu_ms": 1e3 * grown("acting_cpu_seconds") / num_steps,
    }


def _address(config: dict[str, Any], workers: int) -> str | None:
    return config["ray_address"] if workers else None


def _page(rows: list[Row], record: dict[str, Any]) -> str:
    lines = ["# Workers on a cluster", "", *provenance_lines(record), ""]
    lines += [
        "Median of the repeats, and the lowest and the highest. 0 workers: this process, without Ray.",
        "",
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        shown = [name for name in HEADERS if any(row[name] is not None for row in mine)]
        cells = []
        for workers in dict.fromkeys(row["workers"] for row in mine):
            repeats = [row for row in mine if row["workers"] == workers]
            cells.append([workers, *(_spread([row[name] for row in repeats]) for name in shown)])
        lines += [
            f"## {kind}",
            "",
            *markdown_table(["workers", *(HEADERS[name] for name in shown)], cells),
            "",
        ]
    return "\n".join(lines)


def _spread(values: list[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    return f"{median(numbers):.3g} [{min(numbers):.3g}, {max(numbers):.3g}]"
