"""What workers on a cluster bring: steps and updates per second, bytes that are moved, stale weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from worldmodel.apps.bench.output import Row, check_counts, check_names, make_folder, provenance
from worldmodel.apps.bench.scaling_report import HEADERS, write_report
from worldmodel.apps.bench.sweep import Sweep, settings_digest
from worldmodel.apps.build import build_env
from worldmodel.apps.collect import collect
from worldmodel.apps.config import compose_config, not_negative, positive, quoted, to_dict
from worldmodel.apps.launcher import check_place
from worldmodel.apps.learner import LOG_EVERY
from worldmodel.apps.progress import counted
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.train import make_training
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import reason_of
from worldmodel.training import read_metrics

KEY = ("kind", "workers", "repeat", "settings")
COLUMNS = (*KEY, *HEADERS, "commit", "machine")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured once.

    - `kind`: one of `KINDS`.
    - `workers`: of Ray; 0: this process alone.
    - `repeat`: which time it is.
    - `config`: of `collect` or `train` as plain values, but for the folder.
    """

    kind: str
    workers: int
    repeat: int
    config: dict[str, Any]

    @property
    def key(self) -> tuple[str, ...]:
        """Which cell of the sweep it is, as text."""
        return self.kind, str(self.workers), str(self.repeat), settings_digest(self.config)


def bench_scaling(config: dict[str, Any], given: set[str]) -> Path:
    """Measure what is missing in `scaling.csv`, then write `scaling.md` and `.json`.

    `config` is that of `configs/bench_scaling.yaml`; `given` are the keys that the user named. All share one
    cluster, whose start is not counted, and repeats take turns. Returns the path of the page.
    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake, before anything is measured.
    """
    cells = make_cells(config)
    folder = make_folder(config["output"])
    record = provenance("bench scaling", config, given, torch.device("cpu"), (*PACKAGES, "ray"))
    sweep = Sweep(verb="bench scaling", path=folder / "scaling.csv", columns=COLUMNS, key=KEY)
    from worldmodel.apps.cluster.connection import connected

    try:
        cluster = connected(config["ray_address"], max(config["workers"]))
        sweep.run_here(cells, _measured, within=cluster)
        found = {sweep.key_of(row): row for row in sweep.rows()}
        return write_report(folder, [found[cell.key] for cell in cells], record)
    except OSError as error:
        raise RunError(f"cannot write output={folder}: {reason_of(error)}") from error


def make_cells(config: dict[str, Any]) -> list[Cell]:
    """Every cell of the sweep, in turns.

    Errors: `ConfigError` or `EnvError` for what cannot be measured.
    """
    check_names("kinds", config["kinds"], KINDS)
    check_counts("workers", config["workers"])
    positive(config, "num_envs", "episodes", "env_steps", "random_steps", "repeats")
    not_negative(config, "seed")
    check_place("launcher", "ray", config["ray_address"])
    numbers = (0, *config["workers"])
    asked = {
        (kind, workers): _ASKED[kind](config, workers) for kind in config["kinds"] for workers in numbers
    }
    most = max(numbers)
    if "collect" in config["kinds"] and config["episodes"] < (least := 2 * config["num_envs"] * (most + 1)):
        raise ConfigError(f"episodes={config['episodes']}: must be at least {least}, to have a middle")
    if "train" in config["kinds"] and config["env_steps"] < (least := least_env_steps(asked["train", most])):
        raise ConfigError(
            f"env_steps={config['env_steps']}: must be at least {least}, so that the second half of a run "
            f"with {counted(most, 'worker')} can be measured; fewer workers= or num_envs= need less"
        )
    return [
        Cell(kind=kind, workers=workers, repeat=repeat, config=asked[kind, workers])
        for repeat in range(config["repeats"])
        for kind in config["kinds"]
        for workers in numbers
    ]


def least_env_steps(training: dict[str, Any]) -> int:
    """Env steps that surely suffice for a run's second half to hold rows of metrics at different env steps.

    `training`: of `configs/train.yaml` as plain values. It may be too few where rewards do not differ: then
    the model is trusted after `max_random_steps` only.
    Errors: `ConfigError` or `EnvError` for an environment that cannot be made.
    """
    env = build_env(training["task"], training["env"], num_envs=1, seed=0)
    episode_length = env.episode_length or 0
    env.close()
    num_envs = training["num_envs"]
    # In agent steps. A row is logged at an update that is due, while acting is at most so much ahead.
    interval = (LOG_EVERY + 1) / training["training"]["update_ratio"]
    ahead, num_workers = num_envs, 1
    if training["collector"] == "ray":
        ahead = training["max_ahead"] + num_envs * training["stretch_steps"]
        num_workers = training["num_workers"]
    # Updates begin once an episode has ended: that of one worker, at the latest when each could have.
    begin = max(training["random_steps"], num_workers * num_envs * episode_length)
    # The first row of the second half is logged at most an interval after its start, if updates have begun,
    # the last one less than an interval before the updates end: at those due before the last step.
    margin = 2 * interval + ahead + num_envs
    return math.ceil(max(2 * margin, begin + margin - interval) * env.action_repeat)


def _collection(config: dict[str, Any], workers: int) -> dict[str, Any]:
    asked = [quoted("task", config["task"]), "dataset=measured", "policy=random"]
    asked += [f"{key}={config[key]}" for key in ("num_envs", "episodes", "seed")]
    asked += [f"num_workers={max(1, workers)}", f"launcher={'ray' if workers else 'local'}"]
    return to_dict(compose_config("collect", asked)) | {"ray_address": _address(config, workers)}


def _training(config: dict[str, Any], workers: int) -> dict[str, Any]:
    asked = [quoted("task", config["task"]), "run_dir=measured", f"experiment={config['preset']}"]
    asked += [f"{key}={config[key]}" for key in ("num_envs", "env_steps", "random_steps", "compile", "seed")]
    asked += ["eval_episodes=1", "eval_every=1000000000", "checkpoint_every=1000000000"]
    asked += [f"num_workers={max(1, workers)}", f"collector={'ray' if workers else 'local'}"]
    return to_dict(compose_config("train", asked)) | {"ray_address": _address(config, workers)}


def _address(config: dict[str, Any], workers: int) -> str | None:
    return config["ray_address"] if workers else None


def _measured(cell: Cell, tell: Callable[[str], None]) -> Row:
    tell(f"{cell.kind}, {counted(cell.workers, 'worker')}")
    with TemporaryDirectory() as scratch:
        row = _MEASURES[cell.kind](cell, Path(scratch) / "measured")
    return dict(zip(KEY, cell.key, strict=True)) | row


def _collected(cell: Cell, path: Path) -> Row:
    """From the first shard to the last: workers that are only beginning are not counted."""
    collect(cell.config | {"dataset": str(path)})
    store = EpisodeStore(path)
    headers = [store.header(name) for name in store.shard_names()]
    times = [int(name.partition("-")[0]) for name in store.shard_names()]  # nanoseconds
    num_steps = sum(sum(header.lengths) for header in headers[1:])
    num_bytes = sum(store.num_raw_bytes(header) for header in headers[1:])
    repeat = store.info["action_repeat"]
    return {
        "env_steps_per_s": repeat * num_steps * 1e9 / (times[-1] - times[0]),
        "received_bytes": num_bytes / (repeat * num_steps) if cell.workers else 0.0,
    }


def _trained(cell: Cell, path: Path) -> Row:
    """The second half of a run, by its own metrics."""
    path.mkdir()
    make_training(path, cell.config | {"run_dir": str(path)}).run()
    env_steps = cell.config["env_steps"]
    told = [
        row
        for row in read_metrics(path)
        if row["env_steps"] >= env_steps / 2
        and "train/update_cpu_seconds" in row
        and "eval/seconds" not in row
    ]
    if len({row["env_steps"] for row in told}) < 2:
        raise ConfigError(
            f"env_steps={env_steps}: too few to measure with {counted(cell.workers, 'worker')}; give more. "
            "What is measured already is kept"
        )
    first, last = told[0], told[-1]
    num_steps = last["env_steps"] - first["env_steps"]

    def grown(name: str) -> float:
        return float(last.get(f"train/{name}", 0.0) - first.get(f"train/{name}", 0.0))

    row = {
        "env_steps_per_s": num_steps / grown("seconds"),
        "updates_per_s": grown("num_updates") / grown("seconds"),
        "update_cpu_ms": 1e3 * grown("update_cpu_seconds") / grown("num_updates"),
    }
    if not cell.workers:  # what is neither an update nor waited for is acting
        acting_s = grown("cpu_seconds") - grown("update_cpu_seconds")
        return row | {"acting_cpu_ms": 1e3 * acting_s / num_steps}
    return row | {
        "received_bytes": grown("received_bytes") / num_steps,
        "fetched_bytes": grown("fetched_bytes") / num_steps,
        "staleness": sum(each["train/staleness"] for each in told) / len(told),
        "waiting": grown("waited_seconds") / grown("seconds"),
        "acting_cpu_ms": 1e3 * grown("acting_cpu_seconds") / num_steps,
    }


_ASKED = {"collect": _collection, "train": _training}
_MEASURES = {"collect": _collected, "train": _trained}
KINDS = tuple(_ASKED)
