"""A few kills of some in the ordinary tests; `RELIABILITY_KILLS` (a hundred) of each in the slow ones."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_tasks
from kills import JOBS, Collecting, Job, TrainingOnline, count_kills
from warm_process import Warm, command, command_killed_at

NUM_KILLS = int(os.environ.get("RELIABILITY_KILLS", "100"))
NAMES = [*JOBS, "serve"]


@pytest.mark.parametrize(("name", "kills"), [("train", 2), ("collect", 1), ("serve", 1)])
def test_a_few_kills_cost_nothing_finished(name, kills):
    count = count_kills(name, kills, seed=1000)
    assert count["kills"] == kills
    assert count["works"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_kills_cost_nothing_finished(name):
    count = count_kills(name, NUM_KILLS, seed=2000)
    assert count["kills"] >= NUM_KILLS
    assert count["pieces"] > 0


def killed_at_each_call(job: Job, folder: Path, numbers) -> int:
    """At each of these calls that change the disk; the same command goes on. How many there were."""
    num_killed = 0
    for number in numbers:
        current = folder / str(number)
        current.mkdir()
        code = Warm(command_killed_at, number, *job.arguments(current), log=folder / "log").wait(600)
        if code == 0:
            break
        assert code == -9, (folder / "log").read_text()[-2000:]
        num_killed += 1
        there = job.finished(current)
        life = Warm(command, *job.arguments(current), log=folder / "log")
        assert life.wait(600) == 0, (folder / "log").read_text()[-2000:]
        assert there.items() <= job.finished(current).items()
        job.result(current)
    return num_killed


class ShortTraining(TrainingOnline):
    def arguments(self, folder: Path) -> list[str]:
        return [*super().arguments(folder), "env_steps=80"]


@pytest.mark.slow
@pytest.mark.parametrize("job", [ShortTraining(), Collecting()], ids=["train", "collect"])
def test_killed_at_any_of_the_first_steps_the_same_command_goes_on(job, tmp_path):
    """Before there is a configuration or a description, too: what is left behind is in nobody's way."""
    assert killed_at_each_call(job, tmp_path, range(1, 6)) == 5


@pytest.mark.slow
def test_killed_at_any_step_of_training_at_all(tmp_path):
    assert killed_at_each_call(ShortTraining(), tmp_path, range(1, 1000)) > 20


def test_a_run_that_was_killed_near_its_end_learns_what_was_due(tmp_path):
    """The last checkpoint is far behind the last episode: those updates are made up for."""
    run_dir = tmp_path / "run"
    words = [f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING, "env_steps=120"]
    life = Warm(command, "train", *words, "checkpoint_every=1000", "eval_every=1000", log=tmp_path / "log")
    until = time.monotonic() + 600
    while len(list((run_dir / "dataset/shards").glob("[!.]*"))) < 5:
        assert time.monotonic() < until
        assert life.wait(0.0) is None, "it was to be killed before"
    life.kill()
    again = ["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "resume=true", "env_steps=100"]
    assert Warm(command, *again, log=tmp_path / "log").wait(600) == 0
    from worldmodel.training import load_checkpoint

    checkpoint = load_checkpoint(run_dir)
    assert checkpoint.state["trainer"]["num_updates"] >= 25  # a quarter of the steps


def test_what_bench_learning_starts_ends_with_it(tmp_path):
    """Its runs hold a pipe to it: where it is killed they end, and are not in the way of the next."""
    words = ["collect", f"dataset={tmp_path / 'data'}", f"task={toy_tasks.POINT}", "episodes=100000"]
    words += ["policy=toy_tasks:slow_push", "env.action_repeat=1"]
    child = subprocess.Popen(
        [sys.executable, "-m", "worldmodel.apps.child", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while not list((tmp_path / "data/shards").glob("[!.]*")):
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.05)
    assert child.stdin is not None
    child.stdin.close()  # as it is closed where the other end is killed
    assert child.wait(60) == 1
