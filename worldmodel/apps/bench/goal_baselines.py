"""What reaches goals without search: learned from the dataset that the model learned from."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worldmodel.apps.agent import Decision
from worldmodel.apps.build import build_env
from worldmodel.apps.config import positive
from worldmodel.apps.goals import Goals
from worldmodel.apps.memory import Memory, Observation, to_tensors
from worldmodel.apps.offline import check_dataset
from worldmodel.apps.trained import TrainedRun
from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError, DatasetError
from worldmodel.model import GoalPolicy
from worldmodel.training import clone_behaviour, learn_inverse_dynamics

BASELINES = {
    "inverse_dynamics": "guesses the action that leads to the goal, from the model's frozen latent",
    "behaviour_cloning": "does what was done towards such goals; learned end to end, without the model",
}


class GoalPolicyAgent:
    """Acts as a goal-conditioned policy says."""

    def __init__(self, policy: GoalPolicy, goals: Goals) -> None:
        self._policy, self._goals, self._memory = policy, goals, Memory(policy.model)
        self._goal: torch.Tensor | None = None

    def reset(self, is_new: np.ndarray | None = None) -> None:
        """Forget the past of these environments, and ask for goals again."""
        self._memory.reset(is_new)
        self._goal = None

    @torch.no_grad()
    def act(self, observation: Observation) -> Decision:
        """The policy's action."""
        model = self._policy.model
        device = next(model.parameters()).device
        latent = self._memory.see(to_tensors(observation, device))
        if self._goal is None:
            self._goal = model.embed(to_tensors(self._goals(), device))
        action = self._policy(latent, self._goal.expand(len(latent), -1)).cpu().numpy()
        self._memory.note(action)
        return Decision(action=action, mean=action, std=np.zeros_like(action))


class Baselines:
    """Trains baselines as they are asked for; what it needs is checked before.

    `config` is that of `configs/bench_goals.yaml`.
    Errors: `ConfigError` for a dataset that is not there, or not of the run's task.
    """

    def __init__(self, run: TrainedRun, config: dict[str, Any]) -> None:
        positive(config, "cloning_updates", "inverse_updates")
        self._run, self._config = run, config
        self._dataset: EpisodeDataset | None = None
        if named := [name for name in config["agents"] if name in BASELINES]:
            self._dataset = _dataset(run, config, named)
        self.cpu_seconds: dict[str, float] = {}

    def agent(self, name: str, goals: Goals, tell: Callable[[str], None]) -> GoalPolicyAgent:
        """One of `BASELINES`, trained; `tell` hears how far that is."""
        model, config, dataset = self._run.model, self._config, self._dataset
        assert dataset is not None
        began = time.process_time()
        key = "cloning_updates" if name == "behaviour_cloning" else "inverse_updates"
        common: dict[str, Any] = {
            "num_updates": config[key],
            "seed": config["seed"],
            "progress": lambda done: tell(f"training {name}, {done} of {config[key]} updates"),
        }
        if name == "behaviour_cloning":
            policy = clone_behaviour(model, dataset, **common)
        else:
            horizon = self._run.planner_config(config.get("planner"))["horizon"]
            policy = learn_inverse_dynamics(model, dataset, horizon=horizon, **common)
        self.cpu_seconds[name] = time.process_time() - began
        return GoalPolicyAgent(policy, goals)


def _dataset(run: TrainedRun, config: dict[str, Any], named: list[str]) -> EpisodeDataset:
    others = [name for name in config["agents"] if name not in BASELINES]
    way_out = f"give dataset=, or leave them out: agents=[{','.join(others)}]"
    who = f"{' and '.join(named)} learn{'s' * (len(named) == 1)} from the dataset that the model learned from"
    path = config["dataset"] or run.config.get("dataset")
    if path is None:
        raise ConfigError(f"{who}, and {run.checkpoint.path} names none: {way_out}")
    try:
        dataset = EpisodeDataset.open(path)
    except DatasetError as error:
        raise ConfigError(f"{who}: {error}; {way_out}") from error
    env = build_env(run.task, run.config["env"], num_envs=1, seed=0, how="sync")
    try:
        check_dataset(dataset, env, path, run.model.size.observes)
    finally:
        env.close()
    return dataset
