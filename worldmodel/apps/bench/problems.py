"""Planning problems to be timed on: a linear plant, a latent MLP, a world model, the simulator itself.

A problem costs what it costs in practice, and it is the same for all planners and for other libraries. How
well a plan does is measured where the optimum is known: on the linear plant alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from planners import Scorer, shooting
from worldmodel.apps.bench.linear import NUM_ACTIONS, NUM_STATES, LinearPlant
from worldmodel.model import WorldModel, WorldModelSize, estimate_return

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# The latent problem has the sizes of a small learned model with six motors.
LATENT_DIM, HIDDEN_DIM, LATENT_ACTIONS = 64, 256, 6
# A world model that was never trained has those of cheetah-run.
MODEL_STATES, MODEL_ACTIONS = 17, 6
DISCOUNT = 0.98


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is planned for.

    - `states`: where planning starts: (B, S) for a batch size B.
    - `score`: returns (B, N) from states and candidates (B, N, H, A).
    - `bare_rollout`: of a simulator: given a decision, its physics again without anything around it, and how
      many physics steps that are.
    - `step`, `value`: the same in pieces, for those who want a model step by step: next states (M, S) and
      rewards (M,); the value of the last states (M,), None for 0. `step` is None where there are no pieces.
    """

    name: str
    action_dim: int
    states: Callable[[int], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    step: Step | None = None
    value: Callable[[Tensor], Tensor] | None = None
    close: Callable[[], None] = lambda: None
    bare_rollout: Callable[[Callable[[], None]], tuple[Callable[[], None], int]] | None = None

    def scorer(self, states: Tensor) -> Scorer:
        """The one function that a planner knows."""
        return partial(self.score, states)


def linear(device: torch.device, seed: int) -> Problem:
    """`LinearPlant` with its exact cost-to-go as value: so little work that the planner's own shows."""
    plant = LinearPlant()
    # Its step is linear: the unit vectors give its matrices, which then lie on the device.
    a, _ = plant.step(torch.eye(NUM_STATES), torch.zeros(NUM_STATES, NUM_ACTIONS))
    b, _ = plant.step(torch.zeros(NUM_ACTIONS, NUM_STATES), torch.eye(NUM_ACTIONS))
    a, b = a.to(device), b.to(device)

    def step(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        rewards = -(states.square().sum(-1) + 0.1 * actions.square().sum(-1))
        return torch.addmm(actions @ b, states, a), rewards

    return Problem(
        name="linear",
        action_dim=NUM_ACTIONS,
        states=lambda count: plant.starts(seed, count).to(device),
        score=lambda states, candidates: shooting(step, states, terminal_value=plant.value)(candidates),
        step=step,
        value=plant.value,
    )


def latent(device: torch.device, seed: int) -> Problem:
    """Dynamics and reward as two-layer MLPs with SiLU: the model is most of the work."""
    both = LATENT_DIM + LATENT_ACTIONS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dynamics, reward = (_mlp(both, out).to(device).requires_grad_(False) for out in (LATENT_DIM, 1))

    def states(count: int) -> Tensor:  # the same for all who ask
        return torch.randn(count, LATENT_DIM, generator=torch.Generator().manual_seed(seed)).to(device)

    def step(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        inputs = torch.cat([states, actions], dim=-1)
        return dynamics(inputs), reward(inputs).squeeze(-1)

    return Problem(
        name="latent",
        action_dim=LATENT_ACTIONS,
        states=states,
        score=lambda states, candidates: shooting(step, states)(candidates),
        step=step,
    )


def world_model(device: torch.device, seed: int, model_config: Mapping[str, Any]) -> Problem:
    """A fresh `WorldModel` through `estimate_return`, as `PlanningAgent` plans with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = WorldModelSize(state_dim=MODEL_STATES, action_dim=MODEL_ACTIONS, **model_config)
        model = WorldModel(size).to(device).requires_grad_(False)

    def states(count: int) -> Tensor:
        observations = torch.randn(count, MODEL_STATES, generator=torch.Generator().manual_seed(seed))
        return model.encode({"state": observations.to(device)})

    return Problem(
        name="model",
        action_dim=MODEL_ACTIONS,
        states=states,
        score=partial(estimate_return, model, discount=DISCOUNT),
    )


def simulator(task: str, seed: int, num_threads: int, max_num_envs: int) -> Problem:
    """The oracle of a task. Errors: `EnvError` where it has none."""
    import envs

    oracle = envs.Oracle(task, num_threads=num_threads)
    tasks = [envs.make(task) for _ in range(max_num_envs)]
    for index, env in enumerate(tasks):
        env.reset(seed=seed + index)
    simulations = [env.simulation for env in tasks]
    recorded: list[np.ndarray] | None = None

    def score(states: Tensor, candidates: Tensor) -> Tensor:
        actions = candidates.detach().cpu().numpy()
        if recorded is not None:
            recorded.append(actions.copy())
        return torch.from_numpy(oracle.returns(simulations[: len(states)], actions)).to(candidates)

    def close() -> None:
        oracle.close()
        for env in tasks:
            env.close()

    def bare_rollout(decide: Callable[[], None]) -> tuple[Callable[[], None], int]:
        nonlocal recorded
        recorded, before = [], oracle.num_physics_steps
        decide()
        controls, recorded = [oracle.controls(actions) for actions in recorded], None
        num_steps = oracle.num_physics_steps - before
        per_row = num_steps // sum(len(c) * c.shape[1] for c in controls)
        return _bare_rollout(simulations, controls, per_row, num_threads), num_steps

    shape = tasks[0].action_space.shape
    assert shape is not None
    return Problem(
        name="simulator",
        action_dim=int(shape[0]),
        states=lambda count: torch.zeros(count, 1),
        score=score,
        close=close,
        bare_rollout=bare_rollout,
    )


def _bare_rollout(
    simulations: Sequence[Any], controls: Sequence[np.ndarray], num_steps: int, num_threads: int
) -> Callable[[], None]:
    """`mujoco.rollout` of the same motions and nothing else: no rewards, sensors as the models have them.

    `controls`: (B, N, control steps, nu) of each iteration of a decision. Contacts decide what a physics step
    costs, so start and controls must be those of the decision.
    """
    import mujoco
    from mujoco.rollout import Rollout

    model = simulations[0].model
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
    size = mujoco.mj_stateSize(model, spec)
    pool = Rollout(nthread=num_threads if num_threads > 1 else 0)
    data = [mujoco.MjData(model) for _ in range(num_threads)]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for batch in controls:
        num_envs, num_candidates, num_controls, _ = batch.shape
        start = np.empty((num_envs, size))
        for row, simulation in zip(start, simulations, strict=False):
            mujoco.mj_getState(simulation.model, simulation.data, row, spec)
        warmstart = np.stack([simulation.data.qacc_warmstart for simulation in simulations[:num_envs]])
        # The last control is held in the physics step more that the oracle plays to read its sensors.
        held = np.minimum(np.arange(num_steps) // (num_steps // num_controls), num_controls - 1)
        control = batch.reshape(num_envs * num_candidates, num_controls, -1)[:, held].astype(np.float64)
        models = [simulation.model for simulation in simulations[:num_envs] for _ in range(num_candidates)]
        options = {
            "nstep": num_steps,
            "initial_warmstart": np.repeat(warmstart, num_candidates, axis=0),
            "state": np.empty((len(control), num_steps, size)),
            "sensordata": np.empty((len(control), num_steps, model.nsensordata)),
            "skip_checks": True,
        }
        calls.append(((models, data, np.repeat(start, num_candidates, axis=0), control), options))

    def roll() -> None:
        for arguments, options in calls:
            pool.rollout(*arguments, **options)

    return roll


def _mlp(num_inputs: int, num_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(num_inputs, HIDDEN_DIM),
        nn.SiLU(),
        nn.Linear(HIDDEN_DIM, HIDDEN_DIM),
        nn.SiLU(),
        nn.Linear(HIDDEN_DIM, num_outputs),
    )
