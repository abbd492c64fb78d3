"""Planners of other libraries behind one small door: states (B, S) in, first actions (B, A) out.

Each is used as its own documentation does, with its own defaults, and is given its best case: model steps and
scores without its environment wrappers where it takes them so. What had to be chosen is said in `settings`.
Libraries are imported when they are asked for; none is a dependency of this project.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.apps.bench.problems import Problem

Act = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is imagined for a decision, and for how many environments at once."""

    num_candidates: int
    horizon: int
    num_iterations: int
    num_envs: int = 1


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A planner to be compared.

    - `build`: what acts, from problem, size and seed; where not `is_batched`, for one environment.
    - `install`: how its library is had; empty for what is part of this project.
    """

    name: str
    library: str
    build: Callable[[Problem, Size, int], Act]
    is_batched: bool = False
    settings: str = ""
    install: str = ""


class StepByStep:
    """A problem for libraries that ask for next states, and then for their rewards, in two calls."""

    def __init__(self, problem: Problem, horizon: int) -> None:
        assert problem.step is not None
        self._step, self._value, self._last = problem.step, problem.value, horizon - 1
        self._rewards: list[Tensor] = []

    def dynamics(self, states: Tensor, actions: Tensor, t: int = 0) -> Tensor:
        """Next states; the rewards wait for the next call."""
        states, rewards = self._step(states, actions)
        self._rewards.append(rewards)
        return states

    def cost(self, states: Tensor, actions: Tensor, t: int) -> Tensor:
        """Cost of the step that was just made, the last one with the value of where it leads."""
        rewards = self._rewards.pop()
        return -(rewards + self._value(states)) if self._value is not None and t == self._last else -rewards

    def trajectory_cost(self, states: Tensor, actions: Tensor) -> Tensor:
        """Cost of all steps since the last call."""
        rewards, self._rewards = torch.stack(self._rewards, -1).sum(-1), []
        return -rewards if self._value is None else -(rewards + self._value(states[:, -1]))


def pytorch_mppi_planner(kind: str, std: float, **settings: Any) -> Callable[[Problem, Size, int], Act]:
    """MPPI, SMPPI, KMPPI or MPPI_Batched; its noise has no default: `std`."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        import pytorch_mppi

        torch.manual_seed(seed)
        states = problem.states(1)
        steps = StepByStep(problem, size.horizon)
        one = torch.ones(problem.action_dim, device=states.device)
        bounds = {"u_min": -one, "u_max": one}
        num_candidates, num_commands = size.num_candidates, size.num_iterations
        if kind == "SMPPI":
            # Each command moves its actions on: the whole budget has to go into one.
            bounds = {"action_min": -one, "action_max": one}
            num_candidates, num_commands = num_candidates * num_commands, 1
        batch = {"num_envs": size.num_envs} if kind == "MPPI_Batched" else {}
        planner = getattr(pytorch_mppi, kind)(
            steps.dynamics,
            steps.cost,
            states.shape[1],
            noise_sigma=torch.diag(one * std**2),
            num_samples=num_candidates,
            horizon=size.horizon,
            step_dependent_dynamics=True,
            device=states.device,
            **bounds,
            **batch,
            **settings,
        )

        def act(states: Tensor) -> Tensor:
            states = states if batch else states[0]
            for index in range(num_commands):
                action = planner.command(states, shift_nominal_trajectory=index == 0)
            return action if batch else action[None]

        return act

    return build


def pytorch_icem_planner(problem: Problem, size: Size, seed: int) -> Act:
    """iCEM."""
    from pytorch_icem import iCEM

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 its noise is drawn from NumPy's global generator
    states, steps = problem.states(1), StepByStep(problem, size.horizon)
    planner = iCEM(
        steps.dynamics,
        steps.trajectory_cost,
        states.shape[1],
        problem.action_dim,
        # It wants as many axes as there are actions; the vector that its text asks for is given afterwards.
        sigma=torch.ones((1,) * problem.action_dim, device=states.device),
        num_samples=size.num_candidates,
        horizon=size.horizon,
        warmup_iters=size.num_iterations,
        online_iters=size.num_iterations,
        device=states.device,
    )
    planner.sigma = planner.std = torch.ones(problem.action_dim, device=states.device)
    return lambda states: planner.command(states[0])[None]


def mbrl_planner(kind: str, settings: dict[str, Any]) -> Callable[[Problem, Size, int], Act]:
    """One of its optimizers, moved on from decision to decision as its `TrajectoryOptimizer` does."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        from mbrl.planning import trajectory_opt

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        device = problem.states(1).device
        bound = np.ones((size.horizon, problem.action_dim)).tolist()
        optimizer = getattr(trajectory_opt, kind)(
            num_iterations=size.num_iterations,
            population_size=size.num_candidates,
            lower_bound=(-np.asarray(bound)).tolist(),
            upper_bound=bound,
            device=device,
            **settings,
        )
        previous = torch.zeros(size.horizon, problem.action_dim, device=device)

        def act(states: Tensor) -> Tensor:
            nonlocal previous
            best = optimizer.optimize(
                lambda population: problem.score(states, population[None])[0], x0=previous
            )
            # As its TrajectoryOptimizer does.
            previous = best.roll(-1, dims=0)
            previous[-1] = 0
            return best[:1]

        return act

    return build


def torchrl_planner(kind: str) -> Callable[[Problem, Size, int], Act]:
    """CEM or MPPI."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        from tensordict import TensorDict
        from torchrl.modules import CEMPlanner, MPPIPlanner

        from worldmodel.apps.bench.torchrl_env import RewardToGo, make_env

        torch.manual_seed(seed)
        env = make_env(problem, size.horizon)
        settings = {
            "planning_horizon": size.horizon,
            "optim_steps": size.num_iterations,
            "num_candidates": size.num_candidates,
            "top_k": max(2, size.num_candidates // 8),
        }
        if kind == "CEM":
            planner = CEMPlanner(env, **settings)
        else:
            planner = MPPIPlanner(env, RewardToGo(), temperature=1.0, **settings)

        def act(states: Tensor) -> Tensor:
            given = TensorDict({"state": states}, batch_size=[len(states)], device=states.device)
            return planner(given)["action"]

        return act

    return build


def stable_worldmodel_planner(kind: str) -> Callable[[Problem, Size, int], Act]:
    """One of its solvers, the last plan as its `init_action`."""

    def build(problem: Problem, size: Size, seed: int) -> Act:
        from gymnasium.spaces import Box

        solver_module = _without_front_door("stable_worldmodel", "solver")

        def get_cost(info: dict[str, Tensor], candidates: Tensor) -> Tensor:
            return -problem.score(info["state"][:, 0], candidates)

        device = problem.states(1).device
        solver = getattr(solver_module, kind)(
            SimpleNamespace(get_cost=get_cost),
            batch_size=size.num_envs,
            num_samples=size.num_candidates,
            n_steps=size.num_iterations,
            topk=min(30, size.num_candidates),
            device=device,
            seed=seed,
        )
        space = Box(-1.0, 1.0, (size.num_envs, problem.action_dim))
        config = SimpleNamespace(horizon=size.horizon, action_block=1, receding_horizon=1)
        solver.configure(action_space=space, n_envs=size.num_envs, config=config)
        previous: Tensor | None = None

        def act(states: Tensor) -> Tensor:
            nonlocal previous
            with redirect_stdout(io.StringIO()):  # it prints in every solve
                actions = solver.solve({"state": states}, init_action=previous)["actions"]
            previous = actions[:, 1:]
            return actions[:, 0].to(states.device)

        return act

    return build


def _without_front_door(package: str, module: str) -> ModuleType:
    """A package's module, without what its `__init__` imports: data formats and vision, needless to plan."""
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[package] = bare
    return importlib.import_module(f"{package}.{module}")
