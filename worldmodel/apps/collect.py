"""Recording rollouts into a dataset."""

from functools import partial
from typing import Any

import numpy as np

from worldmodel.apps.build import action_dim, build_env
from worldmodel.apps.config import not_negative, positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.apps.trained import make_agent, open_accelerated
from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError


def collect(config: dict[str, Any]) -> Mean:
    """Record until the dataset holds `episodes` more; returns their mean return.

    `config` is that of `configs/collect.yaml`. Each episode is safe on the disk when it ends.
    """
    positive(config, "episodes", "num_envs")
    not_negative(config, "seed")
    run = open_accelerated(config)
    task = config["task"] or (run.task if run else None)
    if task is None:
        raise ConfigError("task= is missing: name a task, such as task=cartpole-swingup, or give checkpoint=")
    repeat, trained_repeat = (c["env"]["action_repeat"] for c in (config, run.config if run else config))
    if repeat != trained_repeat:
        raise ConfigError(
            f"env.action_repeat={repeat}, but {config['checkpoint']} was trained with {trained_repeat}: "
            f"give env.action_repeat={trained_repeat}"
        )
    env = build_env(
        task, config["env"], num_envs=min(config["num_envs"], config["episodes"]), seed=config["seed"]
    )
    try:
        agent_of = partial(
            make_agent, config["policy"], action_dim(env), run=run, planner_config=config.get("planner")
        )
        agent_of(seed=config["seed"])  # a mistake is told before there is a folder
        # What the recorded data depend on besides the policy; a dataset keeps to one of each.
        info = {
            "task": env.task,
            "action_repeat": env.action_repeat,
            "control_period_s": env.control_period_s,
        }
        dataset = EpisodeDataset(config["dataset"], mode="a", info=info)
        # The same command again records new episodes, not the same ones twice.
        chance = np.random.SeedSequence([config["seed"], len(dataset)])
        agent_seed, *seeds = (int(word) for word in chance.generate_state(1 + env.num_envs))
        agent = agent_of(seed=agent_seed)
        returns: list[float] = []
        episode_info = {"policy": config["policy"], "seed": config["seed"]}
        with ProgressDisplay(f"collect {task}", config["episodes"], "episodes") as display:
            for episode in rollouts(env, agent, config["episodes"], info=episode_info, seeds=seeds):
                dataset.append(episode)
                returns.append(episode.total_reward)
                display.update(len(returns), {"return": f"{episode.total_reward:.0f}"})
    finally:
        env.close()
    return mean_interval(returns)
