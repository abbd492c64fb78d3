"""How fast datasets are written and read here, and how large they are: ours and others, taking turns."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.apps.bench.contenders import failure
from worldmodel.apps.bench.data_contenders import CONTENDERS
from worldmodel.apps.bench.data_recording import Recording, Windows, made_up_recording
from worldmodel.apps.bench.data_report import figure, page
from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    provenance,
    tell_who_failed,
    write_all,
)
from worldmodel.apps.bench.timing import Sample, Spread, take_turns, timed
from worldmodel.apps.bench.turns import Turn, missing
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.errors import ConfigError

KINDS = ("state", "pixels")
NUM_PREPARED = 64  # batches whose windows are drawn before anything is timed
CPU = torch.device("cpu")
_PACKAGES = ("numpy", "torch", "h5py", "minari", "lerobot")
_Advance = Callable[[str, int], None]
_MEASURED = (
    "write_steps_per_s",
    "write_steps_per_s_q25",
    "write_steps_per_s_q75",
    "write_steps_per_cpu_s",
    "write_episodes_per_s",
    "num_writes",
    "num_bytes",
    "open_s",
    "windows_per_cpu_s",
    "windows_per_cpu_s_q25",
    "windows_per_cpu_s_q75",
    "windows_per_wall_s",
    "share_of_numpy",
    "num_batches",
)


@dataclass
class Entry:
    """What is known of one contender so far."""

    status: str = "ok"
    measured: Row = field(default_factory=lambda: dict.fromkeys(_MEASURED))


def bench_data(config: dict[str, Any], given: set[str]) -> Path:
    """Measure, then write `data.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_data.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError` or `RunError` for a user's mistake, before anything is measured.
    """
    _check(config)
    folder = make_folder(config["output"])
    torch.set_num_threads(config["num_threads"])
    provenant = provenance("bench data", config, given, CPU, _PACKAGES)
    rows: list[Row] = []
    per_contender = config["write_repeats"] + config["repeats"]
    total = len(config["kinds"]) * len(config["contenders"]) * per_contender
    with ProgressDisplay("bench data", total, "timings") as display:
        done = 0

        def advance(now: str, count: int) -> None:
            nonlocal done
            done += count
            display.update(done, {"now": now})

        for kind in config["kinds"]:
            rows += _measure(kind, config, folder, advance)
    tell_who_failed(rows)
    return write_all(
        folder,
        "data",
        rows=rows,
        record=provenant,
        figure=figure(rows, config),
        page=page(rows, config, provenant),
    )


def draw_starts(
    recording: Recording, *, batch_size: int, horizon: int, rng: np.random.Generator
) -> np.ndarray:
    """Where windows start: any step of any episode that has a whole window after it."""
    episodes = rng.integers(len(recording.episodes), size=batch_size)
    return episodes * recording.episode_length + rng.integers(
        recording.episode_length - horizon + 1, size=batch_size
    )


def difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str | None:
    """What is not as it was written, if anything."""
    for name, array in expected.items():
        forms = [f"{each.dtype}{list(each.shape)}" for each in (found[name], array)]
        if forms[0] != forms[1]:
            return f"{name} is {forms[0]}, not {forms[1]}"
        if not np.array_equal(found[name], array):
            return f"{name} holds other numbers than were written"
    return None


def _check(config: dict[str, Any]) -> None:
    check_names("kinds", config["kinds"], KINDS)
    check_names("contenders", config["contenders"], list(CONTENDERS))
    positive(config, "horizon", "batch_size", "repeats", "write_repeats", "num_threads")
    not_negative(config, "seed")
    for key in ("seconds", "slow_s", "max_megabytes"):
        if not config[key] > 0:
            raise ConfigError(f"{key}={config[key]}: must be more than 0")
    for kind in KINDS:
        for key, value in config[kind].items():
            check_counts(f"{kind}.{key}", [value])
        if config["horizon"] > config[kind]["steps"]:
            raise ConfigError(
                f"horizon={config['horizon']}: no window fits into {kind}.steps={config[kind]['steps']}"
            )


def _measure(kind: str, config: dict[str, Any], folder: Path, advance: _Advance) -> list[Row]:
    """All contenders, with the steps of one kind; what they write is gone afterwards."""
    recording = made_up_recording(
        kind,
        config[kind],
        max_shard_bytes=int(config["max_megabytes"] * 2**20),
        seed=config["seed"],
    )
    names = [name for name in CONTENDERS if name in config["contenders"]]
    entries = {name: Entry(missing(CONTENDERS[name].package) or "ok") for name in names}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".bench-") as scratch:
        _write(entries, recording, config, Path(scratch), advance)
        _read(entries, recording, config, Path(scratch), advance)
    rows: list[Row] = []
    for name, entry in entries.items():
        row: Row = {
            "kind": kind,
            "contender": name,
            "status": entry.status,
            "num_episodes": len(recording.episodes),
            "num_steps": recording.num_steps,
            "raw_bytes": recording.num_bytes,
            "horizon": config["horizon"],
            "batch_size": config["batch_size"],
            "repeats": config["repeats"],
        }
        rows.append(row | entry.measured)
    reference = next((row["windows_per_cpu_s"] for row in rows if row["contender"] == "numpy"), None)
    for row in rows:
        if reference and row["windows_per_cpu_s"]:
            row["share_of_numpy"] = row["windows_per_cpu_s"] / reference
    return rows


def _write(
    entries: dict[str, Entry], recording: Recording, config: dict[str, Any], scratch: Path, advance: _Advance
) -> None:
    """In turns, each time into a new folder; the last one stays."""
    order, shuffle = list(entries), random.Random(config["seed"])
    samples: dict[str, list[Sample]] = {name: [] for name in order}
    for _ in range(config["write_repeats"]):
        shuffle.shuffle(order)
        for name in order:
            advance(f"writing {recording.kind}", 1)
            is_slow = bool(samples[name]) and samples[name][0].wall_ms > config["slow_s"] * 1e3
            if entries[name].status != "ok" or is_slow:
                continue
            shutil.rmtree(scratch / name, ignore_errors=True)
            try:
                (scratch / name).mkdir()
                write = partial(CONTENDERS[name].write, scratch / name, recording)
                samples[name].append(timed(write, CPU))
            except Exception as error:
                entries[name].status = failure(error)
    for name, found in samples.items():
        if entries[name].status != "ok":
            continue
        wall = Spread.of([recording.num_steps / s.wall_ms * 1e3 for s in found])
        files = (path for path in (scratch / name).rglob("*") if path.is_file())
        entries[name].measured |= {
            "write_steps_per_s": wall.median,
            "write_steps_per_s_q25": wall.low,
            "write_steps_per_s_q75": wall.high,
            "write_steps_per_cpu_s": Spread.of([recording.num_steps / s.cpu_ms * 1e3 for s in found]).median,
            "write_episodes_per_s": wall.median / recording.episode_length,
            "num_writes": len(found),
            "num_bytes": sum(path.stat().st_size for path in files),
        }


def _read(
    entries: dict[str, Entry], recording: Recording, config: dict[str, Any], scratch: Path, advance: _Advance
) -> None:
    """Windows, in turns; whoever finds other numbers than were written takes no part."""
    rng, horizon, batch_size = np.random.default_rng(config["seed"]), config["horizon"], config["batch_size"]
    batches = [
        draw_starts(recording, batch_size=batch_size, horizon=horizon, rng=rng) for _ in range(NUM_PREPARED)
    ]
    turns: dict[str, Turn] = {}
    now = f"reading {recording.kind}"
    with ExitStack() as stack:
        for name, entry in entries.items():
            if entry.status != "ok":
                continue
            try:
                began = time.perf_counter()
                windows = stack.enter_context(CONTENDERS[name].open(scratch / name, recording, horizon))
                entry.measured["open_s"] = time.perf_counter() - began
                _require_equal(windows, recording, batches[:1], horizon)
                next_batch = _cycling(windows, batches)
                seconds_per_call = timed(next_batch, CPU).wall_ms / 1e3
                turn = Turn.lasting(config["seconds"], next_batch, seconds_per_call)
                # Whoever is slow is timed with few of them.
                _require_equal(
                    windows, recording, batches[1 : 1 + config["repeats"] * turn.num_calls], horizon
                )
                turns[name] = turn
            except Exception as error:
                entry.status = failure(error)
        advance(now, config["repeats"] * (len(entries) - len(turns)))
        samples = take_turns(
            turns,
            CPU,
            repeats=config["repeats"],
            seed=config["seed"],
            after_each=lambda name: advance(now, 1),
        )
    for name, turn in turns.items():
        entries[name].status = turn.status
        if turn.status == "ok":
            count = turn.num_calls * batch_size
            cpu = Spread.of([count / s.cpu_ms * 1e3 for s in samples[name]])
            entries[name].measured |= {
                "windows_per_cpu_s": cpu.median,
                "windows_per_cpu_s_q25": cpu.low,
                "windows_per_cpu_s_q75": cpu.high,
                "windows_per_wall_s": Spread.of([count / s.wall_ms * 1e3 for s in samples[name]]).median,
                "num_batches": turn.num_calls,
            }


def _require_equal(windows: Windows, recording: Recording, batches: list[np.ndarray], horizon: int) -> None:
    """Errors: `ValueError` that tells the first difference."""
    for starts in batches:
        wrong = difference(windows(starts), recording.windows(starts, horizon))
        if wrong is not None:
            raise ValueError(wrong)


def _cycling(windows: Windows, batches: list[np.ndarray]) -> Callable[[], None]:
    """One batch after the other, again and again."""
    num_calls = 0

    def next_batch() -> None:
        nonlocal num_calls
        windows(batches[num_calls % len(batches)])
        num_calls += 1

    return next_batch
