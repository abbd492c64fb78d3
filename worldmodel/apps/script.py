"""Episodes that are played again: the same start and actions, as they happen or violated."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import envs
from envs.violations import Violation
from worldmodel.apps.simple_agents import ColoredNoiseAgent


@dataclass(frozen=True)
class Break:
    """A violation, and the step before which it comes."""

    violation: Violation
    at: int


@dataclass(frozen=True)
class Script:
    """What decides an episode: the seed of its start, and its actions (T, A)."""

    seed: int
    actions: np.ndarray

    @classmethod
    def drawn(cls, env: envs.TaskEnv, seed: int) -> "Script":
        """An episode of coloured noise, as long as the task's are."""
        assert env.action_space.shape is not None
        assert env.episode_length is not None
        agent = ColoredNoiseAgent(env.action_space.shape[0], np.random.default_rng(seed))
        nothing = {"state": np.zeros((1, 1), np.float32)}  # noise does not look
        actions = [agent.act(nothing).action[0] for _ in range(env.episode_length)]
        return cls(seed, np.stack(actions).astype(np.float32))

    def play(self, env: envs.TaskEnv, broken: Break | None = None) -> Iterator[envs.Observation]:
        """What is observed at the start and after each step, while the environment is there.

        It ends early where the simulation diverges, and leaves the environment's model as it was.
        """
        observation, _ = env.reset(seed=self.seed)
        simulation = env.simulation
        before = copy.copy(simulation.model)
        try:
            yield observation
            for index, action in enumerate(self.actions):
                if broken is not None and index == broken.at:
                    chance = np.random.default_rng(self.seed)
                    broken.violation.apply(simulation.model, simulation.data, chance)
                    env.set_physics_state(env.physics_state())  # what follows from it
                observation, *_ = env.step(action)
                yield observation
        except envs.SimulationError:
            return
        finally:
            envs.copy_model(before, simulation.model)
