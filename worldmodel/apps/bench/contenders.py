"""Who is compared: hand-written loops, ours and the peers, each tried once before it is timed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from planners import PLANNERS, Plan
from worldmodel.apps.bench.linear import LinearPlant
from worldmodel.apps.bench.loops import BatchLoop, Loop, num_elites
from worldmodel.apps.bench.peer_planners import Act, Peer, Size
from worldmodel.apps.bench.problems import Problem

_IN_BOUNDS = 1 + 1e-5


@dataclass
class Contender:
    """A peer that was tried once on a problem: what acts, or why it does not."""

    peer: Peer
    size: Size
    status: str = "ok"
    act: Act | None = None
    model_steps: int | None = None
    states: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self) -> None:
        """One decision for all environments."""
        assert self.act is not None
        self.act(self.states)


def ours(name: str, *, is_compiled: bool = False) -> Peer:
    """A planner of this project with its own defaults."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        planner = PLANNERS[name](
            action_dim=problem.action_dim,
            horizon=size.horizon,
            num_candidates=size.num_candidates,
            num_iterations=size.num_iterations,
            num_elites=num_elites(size.num_candidates),
        )
        score = problem.score
        if is_compiled:
            score = torch.compile(lambda states, candidates: problem.score(states, candidates), dynamic=False)
        generator = torch.Generator().manual_seed(seed)
        plan: Plan | None = None

        def act(states: Tensor) -> Tensor:
            nonlocal plan
            start = (
                planner.initial_plan(len(states), states.device) if plan is None else planner.warm_start(plan)
            )
            plan = planner.plan(lambda candidates: score(states, candidates), start, generator=generator)
            return plan.actions[:, 0]

        return act

    compiled = ", scorer compiled" if is_compiled else ""
    return Peer(name=f"worldmodel {name}{compiled}", library="worldmodel", build=build, is_batched=True)


def hand_written(*, is_mppi: bool) -> Peer:
    """The loop that all are measured against."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        sizes = size.num_candidates, size.horizon, size.num_iterations
        if size.num_envs > 1:
            return BatchLoop(problem, *sizes, is_mppi=is_mppi, seed=seed).act
        loop = Loop(problem, *sizes, is_mppi=is_mppi, seed=seed)
        return lambda states: loop.act(states[0])[None]

    kind = "MPPI" if is_mppi else "CEM"
    return Peer(name=f"hand-written {kind}", library="hand-written", build=build, is_batched=True)


def contend(peer: Peer, problem: Problem, size: Size, seed: int) -> Contender:
    """Build and try a peer; what it raises becomes its status. Where it takes no batch: one for each row."""
    contender = Contender(peer, size, states=problem.states(size.num_envs))
    counts = [0]
    try:
        counted = _act(peer, _counting(problem, counts), size, seed)
        action = counted(contender.states)
        contender.model_steps = counts[0]
        contender.act = _act(peer, problem, size, seed)
        contender.status = status_of(action)
    except ImportError as error:
        missing = f"not installed: {peer.install}" if peer.install else f"cannot be imported: {error}"
        contender.status = missing
    except Exception as error:
        contender.status = failure(error)
    return contender


def status_of(actions: Tensor) -> str:
    """What is wrong with actions, or ok."""
    if not actions.isfinite().all():
        return "non-finite action"
    most = float(actions.abs().max())
    return "ok" if most <= _IN_BOUNDS else f"breaks the bounds [-1, 1]: action of {most:.3g}"


def _act(peer: Peer, problem: Problem, size: Size, seed: int) -> Act:
    if peer.is_batched or size.num_envs == 1:
        return peer.build(problem, size, seed)
    single = replace(size, num_envs=1)
    acts = [peer.build(problem, single, seed + index) for index in range(size.num_envs)]
    return lambda states: torch.cat([act(states[i : i + 1]) for i, act in enumerate(acts)])


def _counting(problem: Problem, counts: list[int]) -> Problem:
    """The same problem, model steps counted."""
    assert problem.step is not None
    plain_step, plain_score = problem.step, problem.score

    def step(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        counts[0] += len(states)
        return plain_step(states, actions)

    def score(states: Tensor, candidates: Tensor) -> Tensor:
        counts[0] += candidates.shape[0] * candidates.shape[1] * candidates.shape[2]
        return plain_score(states, candidates)

    return replace(problem, step=step, score=score)


def failure(error: Exception) -> str:
    """What went wrong, in one line."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def closed_loop(contender: Contender, problem: Problem, num_steps: int) -> tuple[float, str]:
    """Cost over that of the exact controller, from the same states; and what was wrong with any action.

    What leaves the bounds is clamped before it acts, for the exact controller too.
    """
    plant = LinearPlant()
    assert contender.act is not None
    assert problem.step is not None
    states, exact = contender.states, contender.states
    cost = exact_cost = 0.0
    all_actions = []
    for _ in range(num_steps):
        actions = contender.act(states)
        all_actions.append(actions)
        states, rewards = problem.step(states, actions.clamp(-1, 1))
        exact, exact_rewards = problem.step(exact, plant.exact_action(exact).clamp(-1, 1))
        cost, exact_cost = cost - float(rewards.sum()), exact_cost - float(exact_rewards.sum())
    # What remains in the end counts too: else one could save by leaving it.
    cost, exact_cost = cost - float(plant.value(states).sum()), exact_cost - float(plant.value(exact).sum())
    return cost / exact_cost, status_of(torch.stack(all_actions))
