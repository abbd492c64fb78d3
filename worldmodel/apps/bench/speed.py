"""How fast planning is on this machine, for each planner, and how it grows with each size of the problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planners import PLANNERS, Plan, SamplingPlanner
from worldmodel.apps.bench import problems
from worldmodel.apps.bench.cells import NEED_GRADIENTS
from worldmodel.apps.bench.loops import num_elites
from worldmodel.apps.bench.output import (
    Row,
    check_counts,
    check_names,
    make_folder,
    provenance,
    write_all,
)
from worldmodel.apps.bench.problems import Problem
from worldmodel.apps.bench.speed_report import figure, page
from worldmodel.apps.bench.timing import MatrixProducts, Spread, Work, take_turns
from worldmodel.apps.build import build_acceleration, build_device
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.outlook import Outlook, RecordedPlanner
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.provenance import PACKAGES
from worldmodel.errors import ConfigError
from worldmodel.model import PRECISIONS, Acceleration

PROBLEMS = ("linear", "latent", "model")
FACTORS = {
    "scale_candidates": "num_candidates",
    "scale_horizon": "horizon",
    "scale_iterations": "num_iterations",
    "scale_envs": "num_envs",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that is timed: a planner at a size."""

    planner: str
    num_envs: int
    num_candidates: int
    horizon: int
    num_iterations: int
    varied: str = "base"
    acceleration: Acceleration = field(default_factory=Acceleration)

    @property
    def scorer(self) -> str:
        """How the scorer is computed."""
        return "compiled" if self.acceleration.is_compiled else "eager"

    @property
    def name(self) -> str:
        """Tells cases apart."""
        sizes = (self.num_envs, self.num_candidates, self.horizon, self.num_iterations)
        return f"{self.planner} {sizes} {self.varied} {self.scorer}"

    def build(self, action_dim: int) -> SamplingPlanner:
        """The planner with its own defaults at this size."""
        return PLANNERS[self.planner](
            action_dim=action_dim,
            horizon=self.horizon,
            num_candidates=self.num_candidates,
            num_iterations=self.num_iterations,
            num_elites=num_elites(self.num_candidates),
        )


@dataclass
class Decision:
    """A decision that can be made again and again, each on from the plan before."""

    planner: SamplingPlanner
    problem: Problem
    states: Tensor
    score: Callable[[Tensor, Tensor], Tensor]
    generator: torch.Generator
    recorded: RecordedPlanner | None = None
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = self.planner.initial_plan(len(self.states), self.states.device)

    @torch.no_grad()
    def __call__(self) -> None:
        """Plan once."""
        start = self.planner.warm_start(self.plan)
        noise = self.planner.draw_noise(len(self.states), self.generator, self.states.device)
        if self.recorded is not None:
            self.plan = self.recorded.plan((self.states,), start, noise)
        else:
            self.plan = self.planner.plan(partial(self.score, self.states), start, noise=noise)


def bench_speed(config: dict[str, Any], given: set[str]) -> Path:
    """Measure, then write `speed.csv`, `.md`, `.png` and `.json`; returns the path of the page.

    `config` is that of `configs/bench_speed.yaml`; `given` are the keys that the user named.
    Errors: `ConfigError`, `EnvError` or `RunError` for a user's mistake, before anything is measured.
    """
    device = _check(config)
    folder = make_folder(config["output"])
    torch.set_num_threads(config["num_threads"])
    record = provenance("bench speed", config, given, device, PACKAGES)
    rows: list[Row] = []
    total = len(config["problems"]) * len(_cases(config))
    total += len(_cases(config, is_simulated=True)) if config["task"] is not None else 0
    with ProgressDisplay("bench speed", total, "cases") as display:
        for problem in _problems(config, device):
            try:
                rows += _measure(problem, config, device, display, done=len(rows))
            finally:
                problem.close()
    text = page(rows, config, record)
    return write_all(folder, "speed", rows=rows, record=record, figure=figure(rows, config), page=text)


def _check(config: dict[str, Any]) -> torch.device:
    check_names("problems", config["problems"], PROBLEMS)
    check_names("planners", config["planners"], list(PLANNERS))
    positive(config, "horizon", "num_iterations", "num_envs", "repeats", "num_threads")
    not_negative(config, "seed")
    check_counts("num_candidates", [config["num_candidates"]], least=2)
    for key in FACTORS:
        check_counts(key, config[key], least=2 if key == "scale_candidates" else 1)
    if config["task"] is not None and not set(config["planners"]) - set(NEED_GRADIENTS):
        raise ConfigError(
            f"planners={config['planners']}: a simulator has no gradient; add one that samples, such as cem"
        )
    device = build_device(config["device"])
    build_acceleration(config, device)
    return device


def _problems(config: dict[str, Any], device: torch.device) -> Iterator[Problem]:
    """One after the other, so that only one is in memory."""
    if config["task"] is not None:  # first: an unknown task is told before anything is measured
        most = max(config["num_envs"], *config["scale_envs"])
        yield problems.simulator(config["task"], config["seed"], config["num_threads"], most)
    for name in config["problems"]:
        if name == "model":
            yield problems.world_model(device, config["seed"], config["model"])
        else:
            yield {"linear": problems.linear, "latent": problems.latent}[name](device, config["seed"])


def _cases(config: dict[str, Any], *, is_simulated: bool = False) -> list[Case]:
    """All that is timed on a problem; in a simulator there is nothing to differentiate or to compile."""
    sizes = {key: config[key] for key in FACTORS.values()}
    plain, compiled = (
        Acceleration(is_compiled=is_compiled, precision=PRECISIONS[config["precision"]])
        for is_compiled in (False, True)
    )
    planners = [name for name in config["planners"] if not (is_simulated and name in NEED_GRADIENTS)]
    cases = [Case(planner=planner, acceleration=plain, **sizes) for planner in planners]
    if config["compile"] and not is_simulated:
        cases += [replace(case, acceleration=compiled) for case in cases]
    for key, name in FACTORS.items():
        cases += [replace(cases[0], varied=name, **{name: value}) for value in config[key]]
    return cases


def _measure(
    problem: Problem, config: dict[str, Any], device: torch.device, display: ProgressDisplay, done: int
) -> list[Row]:
    """All cases of a problem; those that are compared with each other take turns."""
    rows: list[Row] = []
    cases = _cases(config, is_simulated=problem.bare_rollout is not None)
    for varied in ("base", *FACTORS.values()):
        group = [case for case in cases if case.varied == varied]
        prepared = {case.name: _prepare(problem, case, config["seed"], device) for case in group}
        works: dict[str, Work] = {}
        for name, (decision, floor, _) in prepared.items():
            works |= {name: decision, f"{name} floor": floor}
        samples = take_turns(works, device, repeats=config["repeats"], seed=config["seed"])
        for case in group:
            decision, _, facts = prepared[case.name]
            cpu = Spread.of([s.cpu_ms for s in samples[case.name]])
            wall = Spread.of([s.wall_ms for s in samples[case.name]])
            floors = samples[f"{case.name} floor"]
            on_cpu = device.type == "cpu" or problem.bare_rollout is not None
            ms = cpu.median if on_cpu else wall.median
            floor_ms = Spread.of([s.cpu_ms if on_cpu else s.wall_ms for s in floors]).median
            evaluations = decision.plan.num_evaluations * case.num_envs
            rows.append(
                {
                    "problem": problem.name,
                    "planner": case.planner,
                    "scorer": case.scorer,
                    "varied": case.varied,
                    **{size: getattr(case, size) for size in FACTORS.values()},
                    "repeats": config["repeats"],
                    "cpu_ms": cpu.median,
                    "cpu_ms_q25": cpu.low,
                    "cpu_ms_q75": cpu.high,
                    "wall_ms": wall.median,
                    "evaluations": evaluations,
                    "evaluations_per_s": evaluations / ms * 1e3,
                    "model_steps_per_s": evaluations * case.horizon / ms * 1e3,
                    "physics_steps_per_s": _rate(facts["physics_steps"], ms),
                    "bare_physics_steps_per_s": _rate(facts["physics_steps"], floor_ms),
                    "gflop": facts["gflop"],
                    "floor_ms": floor_ms,
                    "floor_fraction": floor_ms / ms,
                    "compile_s": facts["compile_s"],
                }
            )
            display.update(done + len(rows), {problem.name: f"{case.planner} {ms:.1f} ms"})
    return rows


def _prepare(
    problem: Problem, case: Case, seed: int, device: torch.device
) -> tuple[Decision, Work, dict[str, float | None]]:
    """The decision, the same work without any planning, and what is known about both."""
    states, generator = problem.states(case.num_envs), torch.Generator().manual_seed(seed)
    planner = case.build(problem.action_dim)
    decision = Decision(planner, problem, states, problem.score, generator)
    facts: dict[str, float | None] = {"gflop": None, "physics_steps": None, "compile_s": None}
    if problem.bare_rollout is not None:
        floor, num_steps = problem.bare_rollout(decision)
        return decision, floor, facts | {"physics_steps": float(num_steps)}
    with MatrixProducts() as products:  # of a first decision; shapes do not depend on what is found
        decision()
    facts["gflop"] = products.gflop
    score = problem.score

    def scored(states: Tensor, candidates: Tensor) -> Tensor:
        return score(states, candidates)

    decision.score = case.acceleration.of(scored, device)
    part = case.acceleration.fused(scored, device)
    if case.acceleration.records(device) and planner.is_recordable:
        decision.recorded = RecordedPlanner(planner, lambda states: Outlook(score=partial(part, states)))
    if case.acceleration.is_compiled:
        began = time.perf_counter()
        decision()
        facts["compile_s"] = time.perf_counter() - began
    return decision, products.bare(device, case.acceleration.precision), facts


def _rate(count: float | None, ms: float) -> float | None:
    return None if count is None else count / ms * 1e3
