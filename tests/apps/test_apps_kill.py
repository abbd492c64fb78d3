"""kill -9 at a hundred random moments: no finished episode is lost, and the work ends as if nothing was."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import toy_tasks
from processes import start

from worldmodel.apps.cli import main
from worldmodel.data import EpisodeDataset
from worldmodel.training import load_checkpoint

NUM_KILLS = 100
MAX_START_S = 120.0
pytestmark = pytest.mark.slow


def shards(dataset: Path) -> set[str]:
    return {path.name for path in dataset.glob("shards/[!.]*")}


def kill_again_and_again(arguments, dataset: Path, chance: random.Random) -> None:
    """Some time after the start, or (every other time) in the midst of the work."""
    for number in range(NUM_KILLS):
        before = shards(dataset)
        process = start(*arguments(dataset))
        if number % 2:
            deadline = time.monotonic() + MAX_START_S
            while shards(dataset) == before and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 1.0))
        else:
            time.sleep(chance.uniform(0.5, 6.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert before <= shards(dataset)
        if before:
            assert main(["data", "validate", f"dataset={dataset}"]) == 0


def test_collecting(tmp_path):
    dataset = tmp_path / "data"
    command = ["collect", f"dataset={dataset}", f"task={toy_tasks.POINT}", "env.action_repeat=1"]
    command += ["num_envs=4", "policy=toy_tasks:slow_push", "episodes=10000000"]
    kill_again_and_again(lambda dataset: command, dataset, random.Random(0))
    num_episodes = len(EpisodeDataset.open(dataset))
    command[-1] = f"episodes={num_episodes + 10}"
    assert main(command) == 0
    numbers = sorted(episode.info["number"] for episode in EpisodeDataset.open(dataset))
    assert numbers == list(range(num_episodes + 10))


def test_training(tmp_path):
    run_dir = tmp_path / "run"
    first = ["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING]
    first += ["env_steps=1000000", "eval_every=2000"]
    resume = ["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "resume=true"]

    def arguments(dataset: Path) -> list[str]:
        return resume if (run_dir / "config.json").exists() else first

    kill_again_and_again(arguments, run_dir / "dataset", random.Random(1))
    num_episodes = len(shards(run_dir / "dataset"))
    assert num_episodes > 0
    reached = load_checkpoint(run_dir).info["env_steps"]
    target = max(reached, num_episodes * toy_tasks.POINT_STEPS) + 200
    assert main([*resume, f"env_steps={target}"]) == 0
    checkpoint = load_checkpoint(run_dir)
    assert checkpoint.info["env_steps"] >= target
    assert checkpoint.info["num_episodes"] == len(EpisodeDataset.open(run_dir / "dataset"))
