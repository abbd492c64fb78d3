"""Recording rollouts into a dataset."""

from typing import Any

from worldmodel.apps.build import action_dim, build_env
from worldmodel.apps.config import positive
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.rollout import rollouts
from worldmodel.apps.statistics import Mean, mean_interval
from worldmodel.apps.trained import make_agent, open_run
from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError


def collect(config: dict[str, Any]) -> Mean:
    """Record until the dataset holds `episodes` more; returns their mean return.

    `config` is that of `configs/collect.yaml`. Each episode is safe on the disk when it ends.
    """
    positive(config, "episodes", "num_envs")
    run = None if config["checkpoint"] is None else open_run(config["checkpoint"], task=config["task"])
    task = config["task"] or (run.task if run else None)
    if task is None:
        raise ConfigError("task= is missing: name a task, such as task=cartpole-swingup, or give checkpoint=")
    # What the recorded data depend on besides the policy; a dataset keeps to one of each.
    env = build_env(
        task, config["env"], num_envs=min(config["num_envs"], config["episodes"]), seed=config["seed"]
    )
    try:
        info = {
            "task": env.task,
            "action_repeat": env.action_repeat,
            "control_period_s": env.control_period_s,
        }
        dataset = EpisodeDataset(config["dataset"], mode="a", info=info)
        agent = make_agent(
            config["policy"],
            action_dim(env),
            seed=config["seed"],
            run=run,
            planner_config=config.get("planner"),
        )
        returns: list[float] = []
        episode_info = {"policy": config["policy"], "seed": config["seed"]}
        with ProgressDisplay(f"collect {task}", config["episodes"], "episodes") as display:
            for episode in rollouts(env, agent, config["episodes"], info=episode_info):
                dataset.append(episode)
                returns.append(episode.total_reward)
                display.update(len(returns), {"return": f"{episode.total_reward:.0f}"})
    finally:
        env.close()
    return mean_interval(returns)
