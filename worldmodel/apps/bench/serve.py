"""How many robots a policy server answers, and how fast: clients that ask without a pause."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.apps.bench.output import Row, check_counts, make_folder, provenance, write_all
from worldmodel.apps.bench.serve_report import figure, page
from worldmodel.apps.config import compose_config, not_negative, positive, to_dict
from worldmodel.apps.interruption import end_with_parent
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.serve import serve
from worldmodel.apps.serving import check_installed
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError, RunError

_START_S = 120.0  # of a server: it loads torch and the simulator
_ANSWER_S = 60.0
_QUIET_S = 0.05  # in which nothing may come that nobody asked for
_NUM_OBSERVATIONS = 64
# What is read from /metrics, as sums since the server's start.
_TOTALS = {
    "decisions": "worldmodel_batch_size_count",
    "decided": "worldmodel_batch_size_sum",
    "decision_s": "worldmodel_decision_seconds_sum",
    "cpu_s": "process_cpu_seconds_total",
}


@dataclass
class Told:
    """What one client was told: the seconds of each answer, and how many were none, or another's."""

    seconds: list[float] = field(default_factory=list)
    num_lost: int = 0
    num_wrong: int = 0


def bench_serve(config: dict[str, Any], given: set[str]) -> Path:
    """Ask, then write `serve.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_serve.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError`, `CheckpointError` or `RunError` for a user's mistake, before anything is measured.
    """
    check_installed("bench serve")
    check_counts("clients", config["clients"])
    positive(config, "max_batch", "num_threads")
    not_negative(config, "seed", "warmup_s", "batch_window_ms")
    if not config["seconds"] > 0:
        raise ConfigError(f"seconds={config['seconds']}: must be above 0")
    open_run(config["checkpoint"], task=config["task"])
    folder = make_folder(config["output"])
    record = provenance(
        "bench serve", config, given, torch.device("cpu"), (*PACKAGES, "websockets", "msgpack")
    )
    rows: list[Row] = []
    with (
        _served(config) as uri,
        ProgressDisplay("bench serve", len(config["clients"]), "rounds") as display,
    ):
        for done, num_clients in enumerate(config["clients"]):
            display.update(done, {"clients": str(num_clients)})
            rows.append(asyncio.run(_round(uri, num_clients, config)))
            display.note(
                f"{num_clients} clients: {rows[-1]['requests_per_s']:.0f} requests/s, "
                f"p50 {rows[-1]['p50_ms']:.1f} ms, p99 {rows[-1]['p99_ms']:.1f} ms"
            )
    text = page(rows, config, record)
    return write_all(folder, "serve", rows=rows, record=record, figure=figure(rows), page=text)


@contextmanager
def _served(config: dict[str, Any]) -> Iterator[str]:
    """The address of a server in a process of its own: it shares no interpreter with those who ask."""
    most = max(config["clients"]) + 1
    words = ["checkpoint=-", "port=0", "log=error", "limits.requests_per_s=1e9", f"limits.connections={most}"]
    asked = to_dict(compose_config("serve", words))
    same = ("checkpoint", "task", "max_batch", "batch_window_ms", "num_threads", "seed", "planner")
    asked |= {key: config[key] for key in same if key in config}
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(asked, sender.send), daemon=True)
    process.start()
    sender.close()
    try:
        try:
            if not receiver.poll(_START_S):
                raise EOFError
            uri = receiver.recv()
        except EOFError:
            raise RunError("the server did not start: try `worldmodel serve` with the same keys") from None
        yield uri
    finally:
        process.terminate()  # politely: it answers what is under way
        process.join(_START_S)


def _serve(config: dict[str, Any], tell: Callable[[str], None]) -> None:
    end_with_parent()
    serve(config, tell)


async def _round(uri: str, num_clients: int, config: dict[str, Any]) -> Row:
    """So many clients, for the time that is asked for."""
    await _ask_together(uri, num_clients, config["warmup_s"], config["seed"])
    before = await asyncio.to_thread(_totals, uri)
    began = time.perf_counter()
    told = await _ask_together(uri, num_clients, config["seconds"], config["seed"])
    wall_s = time.perf_counter() - began
    after = await asyncio.to_thread(_totals, uri)
    spent = {key: after[key] - before[key] for key in after}
    seconds = np.array([each for one in told for each in one.seconds])
    if not len(seconds):
        raise RunError(f"{num_clients} clients: nobody was answered")
    p50, p95, p99 = np.percentile(seconds * 1e3, [50, 95, 99])
    return {
        "clients": num_clients,
        "seconds": wall_s,
        "requests": len(seconds),
        "requests_per_s": len(seconds) / wall_s,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": float(seconds.max() * 1e3),
        "mean_batch": spent["decided"] / spent["decisions"],
        "decision_ms": spent["decision_s"] / spent["decisions"] * 1e3,
        "cpu_ms_per_request": spent["cpu_s"] / len(seconds) * 1e3,
        "fewest_of_a_client": min(len(one.seconds) for one in told),
        "most_of_a_client": max(len(one.seconds) for one in told),
        "lost": sum(one.num_lost for one in told),
        "wrong": sum(one.num_wrong for one in told),
    }


async def _ask_together(uri: str, num_clients: int, seconds: float, seed: int) -> list[Told]:
    """All connect first, then all ask until the time is over."""
    ready = asyncio.Barrier(num_clients)
    return await asyncio.gather(*(_ask(uri, ready, seconds, seed + n) for n in range(num_clients)))


async def _ask(uri: str, ready: asyncio.Barrier, seconds: float, seed: int) -> Told:
    """One client: a request follows each answer, which must be that of the request before it."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    from worldmodel.remote.codec import pack, unpack

    told = Told()
    async with connect(uri, compression=None) as connection:
        first = await connection.recv()
        assert isinstance(first, bytes)
        metadata = unpack(first)
        observations = _observations(metadata, seed)
        shape = metadata["horizon"], metadata["action_dim"]
        await ready.wait()
        until, number = time.perf_counter() + seconds, 0
        while not told.seconds or time.perf_counter() < until:
            number += 1
            began = time.perf_counter()
            try:
                await connection.send(pack(observations[number % _NUM_OBSERVATIONS] | {"request_id": number}))
                received = await asyncio.wait_for(connection.recv(), _ANSWER_S)
            except (ConnectionClosed, TimeoutError):
                received = ""
            if isinstance(received, str):  # refused, or nothing at all
                told.num_lost += 1
                return told
            told.seconds.append(time.perf_counter() - began)
            answer = unpack(received)
            told.num_wrong += answer["request_id"] != number or answer["actions"].shape != shape
        with suppress(TimeoutError):
            await asyncio.wait_for(connection.recv(), _QUIET_S)
            told.num_wrong += 1
    return told


def _observations(metadata: dict[str, Any], seed: int) -> list[dict[str, np.ndarray]]:
    """Random ones, of the shapes that the server tells."""
    rng, entries = np.random.default_rng(seed), metadata["observation"].items()

    def drawn(key: str, shape: list[int]) -> np.ndarray:
        if key == "pixels":
            return rng.integers(0, 256, shape, np.uint8)
        return rng.normal(size=shape).astype(np.float32)

    goal = {f"goal/{key}": drawn(key, entry["shape"]) for key, entry in entries if metadata["takes_goal"]}
    return [
        {key: drawn(key, entry["shape"]) for key, entry in entries} | goal for _ in range(_NUM_OBSERVATIONS)
    ]


def _totals(uri: str) -> dict[str, float]:
    """The server's own counts."""
    with urllib.request.urlopen(uri.replace("ws://", "http://") + "/metrics", timeout=_ANSWER_S) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {key: float(values[name]) for key, name in _TOTALS.items()}
