"""`worldmodel train` in two processes: what one would have made, whatever happens to them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_tasks
from safetensors.torch import load_file

from worldmodel.apps import following, learner
from worldmodel.apps.build import build_device
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.train import make_training
from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError, DatasetError
from worldmodel.training import Processes, find_checkpoint, load_checkpoint, read_metrics

GUIDE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
BLOCKS = re.findall(r"(<!-- The tests run these commands. -->\n)?```\n(.*?)```", GUIDE, re.DOTALL)
# What makes a command of the guide short, after what stands there.
SHORT = {
    "collect": ["episodes=12", "num_envs=6"],
    "train": ["eval_every=9", "eval_episodes=1", "num_updates=4", "training.batch_size=8"],
    "resume": ["num_updates=6"],  # it keeps the rest
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class First(Processes):
    """The first of three, which never meet."""

    count = 3


class Neighbour(First):
    """The same, on one machine."""

    num_local = 3


def launched(*arguments: str, restarts: int = 0) -> list[str]:
    """The command line, to be started in two processes."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    return [sys.executable, "-m", *launcher, "-m", "worldmodel", *arguments]


def torchrun(*arguments: str, restarts: int = 0) -> str:
    """Run it to its end; what it printed."""
    command = launched(*arguments, restarts=restarts)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def assert_close(first: Path, second: Path) -> None:
    """Of two checkpoints: all numbers."""
    for name in ("model.safetensors", "trainer.safetensors"):
        left, right = load_file(first / name), load_file(second / name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(
                right[key], value, atol=1e-4, rtol=1e-3, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mortal") / "data"
    command = ["collect", f"task={toy_tasks.MORTAL}", "env.action_repeat=1", "episodes=4", f"dataset={path}"]
    assert main(command) == 0
    return path


@pytest.mark.slow
def test_a_run_whose_first_process_is_killed_starts_again_and_ends_as_one_process_would(dataset, tmp_path):
    """After 4 updates it is saved, after 6 its evaluation kills it; 8 are wanted."""
    offline = ["train", f"task={toy_tasks.MORTAL}", f"dataset={dataset}", *toy_tasks.TINY_TRAINING]
    offline += ["num_updates=8", "eval_every=6", "checkpoint_every=4"]
    printed = torchrun(*offline, f"run_dir={tmp_path / 'two'}", restarts=1)
    assert "one of the 2 processes is gone without a word" in printed
    assert printed.count("trained; see it act with") == 1
    saved = sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert saved == ["step_000000004", "step_000000008"]
    assert [r["env_steps"] for r in read_metrics(tmp_path / "two") if "eval/return" in r] == [6, 8]
    assert main([*offline, f"run_dir={tmp_path / 'one'}"]) == 0
    assert_close(*(find_checkpoint(tmp_path / name) for name in ("one", "two")))


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two(tmp_path):
    data = tmp_path / "data"
    words = [f"task={toy_tasks.POINT}", "env.action_repeat=1", "episodes=6", "num_envs=6"]
    assert main(["collect", *words, f"dataset={data}"]) == 0
    offline = ["train", f"task={toy_tasks.POINT}", f"dataset={data}", *toy_tasks.TINY_TRAINING]
    offline += ["eval_every=1000000", "checkpoint_every=1000000"]
    assert main([*offline, "num_updates=8", f"run_dir={tmp_path / 'one'}"]) == 0
    assert main([*offline, "num_updates=3", f"run_dir={tmp_path / 'two'}"]) == 0
    again = ["train", f"task={toy_tasks.POINT}", f"run_dir={tmp_path / 'two'}", "resume=true"]
    torchrun(*again, "num_updates=8")
    saved = [load_checkpoint(tmp_path / name) for name in ("one", "two")]
    assert [each.state["trainer"]["num_updates"] for each in saved] == [8, 8]
    assert_close(*(find_checkpoint(tmp_path / name) for name in ("one", "two")))


def test_several_tasks_are_learned_as_one_process_would(tmp_path):
    tasks, paths = (toy_tasks.POINT, toy_tasks.PLANE), (tmp_path / "point", tmp_path / "plane")
    for task, path in zip(tasks, paths, strict=True):
        words = [f"task={task}", "env.action_repeat=1", "episodes=6", "num_envs=6", f"dataset={path}"]
        assert main(["collect", *words]) == 0
    several = ["train", f"datasets=[{paths[0]},{paths[1]}]", f"tasks=[{tasks[0]},{tasks[1]}]"]
    several += [*toy_tasks.TINY, "num_updates=4", "eval_every=4", "eval_episodes=1", "training.batch_size=8"]
    torchrun(*several, f"run_dir={tmp_path / 'two'}")
    assert main([*several, f"run_dir={tmp_path / 'one'}"]) == 0
    assert_close(*(find_checkpoint(tmp_path / name) for name in ("one", "two")))


def test_acting_in_one_process_all_learn_the_same_and_an_interrupted_run_goes_on_in_one(tmp_path):
    """The first 40 env steps are random, then there are 10 updates; later, planners magnify rounding."""
    online = ["train", f"task={toy_tasks.POINT}", *toy_tasks.TINY_TRAINING, "eval_every=1000000"]
    online += ["checkpoint_every=42", "keep_checkpoints=1000"]
    one, two, early = tmp_path / "one", tmp_path / "two", Path("checkpoints/step_000000042")
    process = subprocess.Popen(
        launched(*online, "env_steps=1000000", f"run_dir={two}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 300
    while not (two / early).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no checkpoint in time"
        time.sleep(0.05)
    shutil.copytree(two / early, tmp_path / "early")  # where it stops before the next step, it is saved anew
    process.terminate()
    _, printed = process.communicate(timeout=300)
    assert printed.count("saved; go on with:  worldmodel train") == 1, printed
    assert main([*online, "env_steps=42", f"run_dir={one}"]) == 0
    assert load_checkpoint(one / early).state["trainer"]["num_updates"] == 10
    assert_close(one / early, tmp_path / "early")
    saved = load_checkpoint(two)
    assert saved.info["num_episodes"] == len(EpisodeDataset.open(two / "dataset"))
    target = saved.info["env_steps"] + 40
    again = ["train", f"run_dir={two}", "resume=true", f"task={toy_tasks.POINT}", f"env_steps={target}"]
    assert main(again) == 0
    assert load_checkpoint(two).info["env_steps"] == target


def commands(block: str) -> list[list[str]]:
    """The words of each command."""
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_guide_run_in_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = [block for mark, block in BLOCKS if mark]
    for words in commands(block):
        launcher, arguments = words[: words.index("worldmodel")], words[words.index("worldmodel") + 1 :]
        short = SHORT["resume" if "resume=true" in words else arguments[0]]
        replaced = {each.partition("=")[0] for each in short}
        arguments = [word for word in arguments if word.partition("=")[0] not in replaced] + short
        if launcher:
            assert launcher == ["torchrun", "--standalone", "--nproc-per-node=2", "-m"]
            torchrun(*arguments)
        else:
            assert main(arguments) == 0
    assert load_checkpoint("runs/rooms").state["trainer"]["num_updates"] == 6


def test_every_command_of_the_guide_is_one():
    found = [words for _, block in BLOCKS for words in commands(block) if "worldmodel" in words]
    assert len(found) == 11
    for words in found:
        verb, *overrides = words[words.index("worldmodel") + 1 :]
        if verb == "bench":
            verb, *overrides = f"bench_{overrides[0]}", *overrides[1:]
        compose_config(verb, overrides)


def test_a_batch_that_cannot_be_shared_is_refused_as_the_guide_says(point_run, tmp_path):
    config = json.loads((point_run / "config.json").read_text())
    config["training"]["batch_size"] = 128
    with pytest.raises(ConfigError) as refusal:
        make_training(tmp_path, config, First())
    assert f"worldmodel: {refusal.value}\n" in GUIDE


def test_all_must_see_the_same_dataset(dataset):
    path, seen = str(dataset), "4 episodes of 80 steps"
    config = {"dataset": path, "datasets": []}
    opened = following._opened(config, seen, First())
    assert opened is not None
    assert len(opened) == 4
    assert opened.in_memory
    assert not learner.open_dataset(path, Neighbour()).in_memory
    with pytest.raises(DatasetError, match=f"process 0 of 3 sees {seen} there, the first one 5 episodes of"):
        following._opened(config, "5 episodes of 100 steps", First())
    assert following._opened(config | {"dataset": None}, "nothing that is looked at", First()) is None


def test_each_process_has_a_gpu_and_cores_of_its_own(monkeypatch):
    with pytest.raises(ConfigError, match=r"device=cuda:1: each of 3 processes needs .* give device=cuda"):
        build_device("cuda:1", First())
    assert build_device("cpu", First()) == torch.device("cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert [default_num_threads(8, count) for count in (1, 4, 32)] == [8, 4, 1]


@pytest.mark.parametrize("verb", ["control", "data info"])
def test_only_training_is_for_several_processes(monkeypatch, refused, verb):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = refused(*verb.split())
    assert f"worldmodel {verb} was started in 2 processes" in line
    assert "without torchrun (which is for train)" in line
