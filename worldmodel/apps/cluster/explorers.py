"""Workers that act for experience, each in its own environments, with weights fetched by version."""

import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
from safetensors.torch import load, save

from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.cluster.messages import packed_episode, unpacked_episode
from worldmodel.apps.exploration import Exploration, Explored, Explorer
from worldmodel.apps.foresight import LearnedForesight
from worldmodel.data import Episode
from worldmodel.model import LatentModel, WorldModel, WorldModelSize
from worldmodel.remote.codec import pack, unpack
from worldmodel.training import make_model
from worldmodel.training.trainer_state import on_cpu

# Of a training run's configuration: what a worker needs.
_NEEDED = ("task", "env", "num_envs", "planner", "max_staleness", "stretch_steps")


def packed_weights(model: LatentModel) -> bytes:
    """What decides how a model plans: weights and the statistics of observations, as safetensors."""
    return save(on_cpu(model.state_dict()))


def told(config: dict[str, Any], model: LatentModel, discount: float) -> str:
    """All that a worker is told when it is made, as JSON."""
    needed = {key: config[key] for key in _NEEDED}
    return json.dumps({"config": needed, "size": model.config(), "discount": discount})


class ActingWorker:
    """What such a worker is. Where it dies it is made again with the same `facts`, and begins anew."""

    def __init__(self, facts: str) -> None:
        self._facts = json.loads(facts)
        self._config: dict[str, Any] = self._facts["config"]
        self._explorer: Explorer | None = None
        self._version = -1

    def explore(self, how: str, version: int, weights: list[Any], seed: list[int]) -> bytes:
        """Act for `stretch_steps` agent steps, or until episodes end; what came of it, as a message.

        - `how`: an `Exploration`, as JSON.
        - `version`: of the newest weights, which lie at the reference in `weights`; they are fetched where
          those here are more than `max_staleness` versions older.
        - `seed`: of all chance, where this is the first stretch.
        """
        if self._explorer is None:
            self._begin(seed)
        assert self._explorer is not None
        exploration, num_fetched = Exploration(**json.loads(how)), 0
        plans = exploration.policy == "planner"
        if plans and (self._version < 0 or version - self._version > self._config["max_staleness"]):
            content = ray.get(weights[0])
            self._model.load_state_dict(load(content))
            self._version, num_fetched = version, len(content)
        used = self._version if plans else version
        env_steps, episodes, began = 0, list[Episode](), time.process_time()
        for _ in range(self._config["stretch_steps"]):
            explored = self._explorer.step(exploration)
            env_steps += explored.env_steps
            episodes += explored.episodes
            if episodes:  # at once: from now on the learner has them, whatever becomes of this process
                break
        return pack(
            {
                "env_steps": env_steps,
                "version": used,
                "behind": version - used,
                "num_fetched": num_fetched,
                "cpu_seconds": time.process_time() - began,
                "episodes": [packed_episode(episode) for episode in episodes],
            }
        )

    def _begin(self, seed: list[int]) -> None:
        config, model = self._config, make_model(WorldModelSize(**self._facts["size"]))
        assert isinstance(model, WorldModel)
        self._model = model
        words = [int(word) for word in np.random.SeedSequence(seed).generate_state(2 + config["num_envs"])]
        env = build_env(config["task"], config["env"], num_envs=config["num_envs"], seed=words[0])
        foresight = LearnedForesight(model, discount=self._facts["discount"])
        agent = build_planning_agent(foresight, config["planner"], seed=words[1])
        self._explorer = Explorer(env, agent, np.random.default_rng(seed), words[2:])


class Stretch:
    """A message of `ActingWorker.explore`, opened."""

    def __init__(self, message: bytes) -> None:
        content = unpack(message)
        self.num_bytes = len(message)
        self.num_fetched: int = content["num_fetched"]
        self.version: int = content["version"]
        self.behind: int = content["behind"]  # versions, when it began
        self.cpu_seconds: float = content["cpu_seconds"]
        self.explored = Explored(
            env_steps=content["env_steps"],
            episodes=[unpacked_episode(episode) for episode in content["episodes"]],
        )


def as_json(how: Exploration) -> str:
    """How to act, as a worker is told."""
    return json.dumps(asdict(how))
