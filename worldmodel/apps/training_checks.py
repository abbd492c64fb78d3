"""What the configuration of a training run must hold, checked before anything is made."""

from typing import Any

from worldmodel.apps.config import not_negative, positive
from worldmodel.errors import ConfigError


def check_training(config: dict[str, Any]) -> None:
    """Check the numbers of `configs/train.yaml`. Errors: `ConfigError` for those that make no sense."""
    counts = ["num_envs", "random_steps", "max_random_steps", "exploration_steps", "env_steps"]
    counts += [
        "num_updates",
        "num_threads",
        "eval_every",
        "eval_episodes",
        "checkpoint_every",
        "keep_checkpoints",
    ]
    positive(config, *counts)
    not_negative(config, "seed", "exploration_std", "first_exploration_std")
    if missing := {"batch_size", "update_ratio"} - config["training"].keys():
        raise ConfigError(f"training.{min(missing)} is missing: give training.{min(missing)}=")
    positive(config["training"], "batch_size")
    if not config["training"]["update_ratio"] > 0:
        raise ConfigError(f"training.update_ratio={config['training']['update_ratio']}: must be above 0")


def check_shares(batch_size: int, num_tasks: int, num_processes: int) -> None:
    """Each update learns as much of each task, in each process. Errors: `ConfigError`."""
    if num_tasks > 1 and batch_size % (least := num_tasks * num_processes):
        among = f"{num_tasks} tasks" + (f" and {num_processes} processes" if num_processes > 1 else "")
        nearest = max(1, round(batch_size / least)) * least
        raise ConfigError(
            f"training.batch_size={batch_size}: {among} need equal shares; give training.batch_size={nearest}"
        )
