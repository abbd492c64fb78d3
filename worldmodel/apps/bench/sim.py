"""How fast environments step on this machine: ours, dm_control's, EnvPool's and bare physics in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

import envs
from worldmodel.apps.bench.contenders import failure
from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    provenance,
    tell_who_failed,
    write_all,
)
from worldmodel.apps.bench.sim_contenders import CONTENDERS, PACKAGES, Contender, build
from worldmodel.apps.bench.sim_report import figure, page
from worldmodel.apps.bench.timing import Sample, Spread, take_turns
from worldmodel.apps.bench.turns import Turn, missing
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES as OWN_PACKAGES
from worldmodel.errors import ConfigError

NUM_PREPARED = 64  # calls whose actions are drawn before anything is timed
CPU = torch.device("cpu")
# Those whose steps `num_threads` threads share.
_THREADED = ("batch", "rollout", "envpool")
_EMPTY = dict.fromkeys(
    (
        "steps_per_core_s",
        "steps_per_core_s_q25",
        "steps_per_core_s_q75",
        "steps_per_wall_s",
        "ratio_to_dm_control",
        "share_of_rollout",
    )
)


def bench_sim(config: dict[str, Any], given: set[str]) -> Path:
    """Measure, then write `sim.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_sim.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake, before anything is measured.
    """
    tasks = _check(config)
    folder = make_folder(config["output"])
    torch.set_num_threads(config["num_threads"])
    record = provenance("bench sim", config, given, CPU, (*OWN_PACKAGES, *PACKAGES.values()))
    rows: list[Row] = []
    total = len(tasks) * len(entries(config)) * config["repeats"]
    with ProgressDisplay("bench sim", total, "timings") as display:
        done = 0

        def advance(task: str, count: int) -> None:
            nonlocal done
            done += count
            display.update(done, {"now": task})

        for task in tasks:
            rows += _measure(task, config, advance)
    tell_who_failed(rows)
    return write_all(
        folder, "sim", rows=rows, record=record, figure=figure(rows, config), page=page(rows, config, record)
    )


def entries(config: dict[str, Any]) -> list[tuple[str, int]]:
    """Who is measured, and with how many environments; in the order of the page."""
    found = []
    for kind in CONTENDERS:
        if kind in config["contenders"]:
            loops = [1] if kind == "dm_control" else [config["num_loop_envs"]]
            found += [(kind, count) for count in (config["num_envs"] if kind in _THREADED else loops)]
    return found


def _check(config: dict[str, Any]) -> list[str]:
    """Errors: see `bench_sim`. Returns the tasks by their canonical names."""
    check_names("contenders", config["contenders"], list(CONTENDERS))
    if not config["tasks"]:
        raise ConfigError("tasks=[]: must name at least one, such as cheetah-run")
    for task in config["tasks"]:
        envs.batch_task(str(task))
    tasks = [envs.canonical_task(task) for task in config["tasks"]]
    check_names("tasks", tasks, envs.batch_task_names())
    check_counts("num_envs", config["num_envs"])
    positive(config, "num_loop_envs", "warmup_steps", "repeats", "num_threads")
    not_negative(config, "seed")
    if not config["seconds"] > 0:
        raise ConfigError(f"seconds={config['seconds']}: must be more than 0")
    return tasks


def _measure(task: str, config: dict[str, Any], advance: Callable[[str, int], None]) -> list[Row]:
    """All contenders of one task, taking turns."""
    with envs.make(task) as task_env:
        shape = task_env.action_space.shape
    assert shape is not None
    rng = np.random.default_rng(config["seed"])
    statuses: dict[tuple[str, int], str] = {}
    turns: dict[tuple[str, int], Turn] = {}
    with ExitStack() as stack:
        for kind, num_envs in entries(config):
            advance(task, 0)
            reason = missing(PACKAGES.get(kind))
            if reason is not None:
                statuses[kind, num_envs] = reason
                continue
            actions = rng.uniform(-1, 1, (NUM_PREPARED, num_envs, *shape)).astype(np.float32)
            num_threads = config["num_threads"] if kind in _THREADED else 1
            try:
                contender = build(kind, task, actions, seed=config["seed"], num_threads=num_threads)
                stack.callback(contender.close)
                turns[kind, num_envs] = _warmed_up(contender, config["warmup_steps"], config["seconds"])
            except Exception as error:
                statuses[kind, num_envs] = failure(error)
        advance(task, len(statuses) * config["repeats"])
        samples = take_turns(
            {str(key): turn for key, turn in turns.items()},
            CPU,
            repeats=config["repeats"],
            seed=config["seed"],
            after_each=lambda name: advance(task, 1),
        )
    rows = []
    for kind, num_envs in entries(config):
        turn = turns.get((kind, num_envs))
        row: Row = {
            "task": task,
            "contender": kind,
            "num_envs": num_envs,
            "num_threads": config["num_threads"] if kind in _THREADED else 1,
            "status": turn.status if turn else statuses[kind, num_envs],
            "repeats": config["repeats"],
            "steps": turn.num_calls * num_envs if turn else None,
            **_EMPTY,
        }
        if turn and turn.status == "ok":
            row |= _rates(kind, row["steps"], samples[str((kind, num_envs))])
        rows.append(row)
    _compare(rows)
    return rows


def _warmed_up(contender: Contender, num_calls: int, seconds: float) -> Turn:
    """Step away from how episodes start, where robots stand or fall and touch nothing.

    Errors: `RuntimeError` for a contender that steps otherwise than it says.
    """
    began = time.perf_counter()
    for _ in range(num_calls):
        contender()
    seconds_per_call = (time.perf_counter() - began) / num_calls
    ages, due = contender.ages(), contender.due_ages()
    if not np.allclose(ages, due, rtol=0, atol=0.01):
        wrong = int(np.argmax(np.abs(ages - due)))
        raise RuntimeError(f"environment {wrong} is at step {ages[wrong]:g}, not at {due[wrong]}")
    return Turn.lasting(seconds, contender, seconds_per_call)


def _rates(kind: str, num_steps: int, samples: list[Sample]) -> Row:
    row: Row = {"steps_per_wall_s": Spread.of([num_steps / s.wall_ms * 1e3 for s in samples]).median}
    if kind == "async":  # its work is done in other processes, whose time nobody tells
        return row
    spread = Spread.of([num_steps / s.cpu_ms * 1e3 for s in samples])
    return row | {
        "steps_per_core_s": spread.median,
        "steps_per_core_s_q25": spread.low,
        "steps_per_core_s_q75": spread.high,
    }


def _compare(rows: list[Row]) -> None:
    """Fill in what follows from two rows of one task."""
    rates = {(row["contender"], row["num_envs"]): row["steps_per_core_s"] for row in rows}
    own = rates.get(("dm_control", 1))
    for row in rows:
        rate, floor = row["steps_per_core_s"], rates.get(("rollout", row["num_envs"]))
        row["ratio_to_dm_control"] = rate / own if rate and own else None
        row["share_of_rollout"] = rate / floor if rate and floor else None
