"""Other libraries' planners beside ours: what a decision costs, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from planners import PLANNERS
from worldmodel.apps.bench import problems
from worldmodel.apps.bench.contenders import (
    Contender,
    closed_loop,
    contend,
    failure,
    hand_written,
    ours,
)
from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    provenance,
    write_all,
)
from worldmodel.apps.bench.peer_list import LIBRARIES, PEERS
from worldmodel.apps.bench.peer_planners import Peer, Size
from worldmodel.apps.bench.peers_report import figure, page
from worldmodel.apps.bench.timing import Spread, take_turns
from worldmodel.apps.build import build_device
from worldmodel.apps.config import positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.apps.statistics import mean_interval

PROBLEMS = {"linear": problems.linear, "latent": problems.latent}
MEASURES = ("overhead", "quality", "batch")
# What a cost is to be seen against.
IDLE = Peer(
    name="no action",
    library="none",
    build=lambda problem, size, seed: lambda states: states.new_zeros(len(states), problem.action_dim),
    is_batched=True,
)
# What a library's package is called; only those that are installed are named.
_DISTRIBUTIONS = ("pytorch-mppi", "pytorch-icem", "torchrl", "tensordict", "mbrl", "stable-worldmodel")
_EMPTY = dict.fromkeys(
    ("cpu_ms", "cpu_ms_q25", "cpu_ms_q75", "wall_ms", "ratio", "ratio_low", "ratio_high", "model_steps")
)


def bench_peers(config: dict[str, Any], given: set[str]) -> Path:
    """Measure, then write `peers.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_peers.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError` or `RunError` for a user's mistake, before anything is measured.
    """
    device = _check(config)
    folder = make_folder(config["output"])
    torch.set_num_threads(config["num_threads"])
    record = provenance("bench peers", config, given, device, (*PACKAGES, *_DISTRIBUTIONS))
    peers = contestants(config)
    measures = [m for m in config["measures"] if m != "overhead"]
    measures = [*config["problems"]] * ("overhead" in config["measures"]) + measures
    rows: list[Row] = []
    total = len(peers) * sum(_num_rounds(measure, config) for measure in measures)
    total += len(config["seeds"]) if "quality" in measures else 0
    with ProgressDisplay("bench peers", total, "timings and seeds") as display, torch.no_grad():
        done = 0

        def advance(count: int = 1) -> None:
            nonlocal done
            done += count
            display.update(done)

        for measure in measures:
            display.update(done, {"now": measure})
            if measure == "quality":
                rows += _quality(peers, config, device, advance)
            else:
                rows += _overhead(measure, peers, config, device, advance)
    text = page(rows, config, record)
    return write_all(folder, "peers", rows=rows, record=record, figure=figure(rows), page=text)


def contestants(config: dict[str, Any]) -> list[Peer]:
    """Hand-written loops, ours, then those of the libraries that were asked for."""
    peers = [hand_written(is_mppi=False), hand_written(is_mppi=True)]
    peers += [ours(name) for name in config["planners"]]
    if config["compile"]:
        peers += [ours(name, is_compiled=True) for name in config["planners"]]
    return peers + [peer for peer in PEERS if peer.library in config["libraries"]]


def _overhead(
    measure: str,
    peers: Sequence[Peer],
    config: dict[str, Any],
    device: torch.device,
    advance: Callable[[int], None],
) -> list[Row]:
    """`measure` is a problem's name, or "batch"."""
    seed, num_rounds = config["seeds"][0], _num_rounds(measure, config)
    problem = PROBLEMS["linear" if measure == "batch" else measure](device, seed)
    contenders = {peer.name: contend(peer, problem, Size(**config[measure]), seed) for peer in peers}
    works = {name: contender for name, contender in contenders.items() if contender.act is not None}
    advance(num_rounds * (len(contenders) - len(works)))
    samples = take_turns(
        works,
        device,
        repeats=num_rounds,
        calls=3 if measure == "linear" else 1,
        seed=seed,
        after_each=lambda name: advance(1),
    )
    times = {
        name: Spread.of([s.cpu_ms if device.type == "cpu" else s.wall_ms for s in found])
        for name, found in samples.items()
    }
    floor = min(spread.median for name, spread in times.items() if works[name].peer.library == "hand-written")
    rows = []
    for name, contender in contenders.items():
        row = _row("batch" if measure == "batch" else "overhead", problem.name, contender)
        if name in times:
            spread = times[name]
            row |= {
                "cpu_ms": Spread.of([s.cpu_ms for s in samples[name]]).median,
                "cpu_ms_q25": Spread.of([s.cpu_ms for s in samples[name]]).low,
                "cpu_ms_q75": Spread.of([s.cpu_ms for s in samples[name]]).high,
                "wall_ms": Spread.of([s.wall_ms for s in samples[name]]).median,
                "ratio": spread.median / floor,
                "ratio_low": spread.low / floor,
                "ratio_high": spread.high / floor,
            }
        rows.append(row)
    return rows


def _quality(
    peers: Sequence[Peer], config: dict[str, Any], device: torch.device, advance: Callable[[int], None]
) -> list[Row]:
    rows = []
    size = Size(**config["linear"], num_envs=config["quality"]["num_starts"])
    for peer in [*peers, IDLE]:
        contender, ratios = Contender(peer, size), []
        for seed in config["seeds"]:
            problem = problems.linear(device, seed)
            contender = contend(peer, problem, size, seed)
            if contender.act is None:
                break
            try:
                ratio, contender.status = closed_loop(contender, problem, config["quality"]["num_steps"])
            except Exception as error:
                contender.status = failure(error)
                break
            ratios.append(ratio)
            advance(1)
        row = _row("quality", "linear", contender)
        if len(ratios) == len(config["seeds"]):
            mean = mean_interval(ratios)
            row |= {"ratio": mean.mean, "ratio_low": mean.low, "ratio_high": mean.high}
        rows.append(row)
        advance(len(config["seeds"]) - len(ratios))
    return rows


def _num_rounds(measure: str, config: dict[str, Any]) -> int:
    """A decision with the latent model takes long, and varies little."""
    if measure == "quality":
        return len(config["seeds"])
    return max(3, config["repeats"] // 3) if measure == "latent" else int(config["repeats"])


def _row(measure: str, problem: str, contender: Contender) -> Row:
    peer, size = contender.peer, contender.size
    facts: Row = {
        "measure": measure,
        "problem": problem,
        "planner": peer.name,
        "library": peer.library,
        "status": contender.status,
        "one_call": size.num_envs == 1 or peer.is_batched,
        "num_envs": size.num_envs,
        "num_candidates": size.num_candidates,
        "horizon": size.horizon,
        "num_iterations": size.num_iterations,
        "settings": peer.settings,
    }
    return facts | _EMPTY | {"model_steps": contender.model_steps}


def _check(config: dict[str, Any]) -> torch.device:
    check_names("problems", config["problems"], list(PROBLEMS))
    check_names("planners", config["planners"], list(PLANNERS))
    if config["libraries"]:
        check_names("libraries", config["libraries"], LIBRARIES)
    check_names("measures", config["measures"], MEASURES)
    check_counts("seeds", config["seeds"], least=0)
    positive(config, "repeats", "num_threads")
    for group in ("linear", "latent", "quality", "batch"):
        for key, value in config[group].items():
            check_counts(f"{group}.{key}", [value], least=16 if key == "num_candidates" else 1)
    return build_device(config["device"])
