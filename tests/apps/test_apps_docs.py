"""Commands and blocks of Python on the pages are known, and ours are run, with smaller numbers."""

import json
import multiprocessing.connection
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from guide_commands import PAGES, ROOT, Command, Drawing, Python, blocks, shortened
from PIL import Image

import envs
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.realtime.robot import RobotInterface, Sighting
from worldmodel.apps.verbs import VERBS

BLOCKS = {page: blocks(page) for page in PAGES}
COMMANDS = [block for found in BLOCKS.values() for block in found if isinstance(block, Command)]
# Python that another test runs with what it needs around it, or that needs a package which is not ours.
RUN_ELSEWHERE = {
    "README.md": "tests/apps/test_apps_results.py::test_python_in_the_readme_runs",
    "planners.md": "tests/planners/test_planner_guide.py::test_each_block_of_the_guide_runs",
}
LAYOUTS = {
    "architecture.md": 3,
    "datasets.md": 1,
    "distributed.md": 4,
    "serving.md": 1,
}  # figures, a folder, another's client


def named(page: Path) -> str:
    return page.name


def test_the_pages_have_commands_and_python_and_few_drawings():
    assert len(COMMANDS) > 70
    drawings = {
        page.name: sum(isinstance(block, Drawing) for block in found) for page, found in BLOCKS.items()
    }
    assert {name: number for name, number in drawings.items() if number} == LAYOUTS


def verb_of(words: list[str]) -> str:
    return next(verb for verb in VERBS if words[: len(verb.split())] == verb.split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page.stem}: {command.line[:60]}")
def test_every_command_is_one(command):
    """As it stands, and in short: verbs, keys, options and types."""
    words = command.words
    if words[0] == "worldmodel":
        for given in (words[1:], shortened(words[1:])):
            verb = verb_of(given)
            rest = VERBS[verb].overrides_of(given[len(verb.split()) :])
            compose_config(verb.replace(" ", "_"), [*VERBS[verb].implied(rest), *rest])
    elif words[0] == "make":
        targets = set(re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(), re.M))
        assert {word.replace(".venv", "$(VENV)") for word in words[1:]} <= targets
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[1] == "install"
        assert set(re.findall(r"\[([\w-]+)\]", " ".join(words[2:]))) <= extras.keys()
    else:
        assert words[0] in ("curl", "export", "torchrun", "ray")


@pytest.mark.parametrize("name", RUN_ELSEWHERE)
def test_what_is_run_elsewhere_is(name):
    file, _, test = RUN_ELSEWHERE[name].partition("::")
    assert f"def {test}(" in (ROOT / file).read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Run folders that pages take for granted, each as small as they come."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = shortened(["train", "task=cartpole-swingup", "run_dir=runs/demo"])
        assert main(tiny) == 0
    return folder


def made_goal_run(folder: Path, task: str, run: str, observe: str = "[state,pixels]") -> None:
    """A model without rewards in runs/`run`."""
    images = ["env.image_size=32", f"env.observe={observe}"]
    assert (
        main(["collect", f"task={task}", *images, "policy=colored", "episodes=6", f"dataset={folder}/{run}"])
        == 0
    )
    words = ["train", f"dataset={folder}/{run}", "experiment=jepa", *images, "model.observes=[pixels]"]
    assert main(shortened([*words, "model.history=2", f"run_dir=runs/{run}"])) == 0


def prepare(page: Path, made: Path, folder: Path) -> None:
    """What a reader of this page has already."""
    for block in BLOCKS[page]:
        if isinstance(block, Python) and block.file:
            (folder / block.file).write_text(block.source)
    if page.name in ("datasets.md", "serving.md", "planners.md", "cockpit.md"):
        for name in ("demo", "my-run", "cartpole"):
            shutil.copytree(made / "runs" / "demo", folder / "runs" / name)
    if page.name == "datasets.md":
        np.savetxt(folder / "actions.csv", np.zeros((5, 6)), delimiter=",")
        (folder / "logs").mkdir()
        chance = np.random.default_rng(0)
        np.savez(folder / "logs" / "run.npz", state=chance.normal(size=(21, 4)), torque=np.ones((20, 2)))
    if page.name == "understanding.md":
        env = envs.make("tworoom", observe=["state", "pixels"])
        observation, _ = env.reset(seed=0)
        Image.fromarray(observation["pixels"].transpose(1, 2, 0)).save(folder / "there.png")
        np.savez(folder / "there.npz", physics_state=env.physics_state())
        env.close()


class Reader:
    """Does what a page says, in order: its server runs beside it, at whatever port is free."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder, self.address = page, folder, ""
        self.names: dict = {"__name__": "guide"}
        self.server: subprocess.Popen | None = None

    def do(self, block: Command | Python) -> None:
        if isinstance(block, Python):
            if self.page.name not in RUN_ELSEWHERE and not block.file:
                self.run(block.source)
        elif block.words[0] == "curl":
            with urllib.request.urlopen(self.replaced(block.words[1])) as answer:
                assert answer.status == 200
        elif block.is_ours and block.words[1] == "serve":
            self.serve(shortened(block.words[1:])[1:])
        elif block.words[0] == "torchrun" and "device=cuda" not in block.words:
            # In one process; that several do the same is tested by tests/training/test_training_processes.py.
            assert main(shortened(block.words[block.words.index("worldmodel") + 1 :])) == 0
        elif block.is_ours:
            words = [self.replaced(word) for word in shortened(block.words[1:])]
            assert main(words) == 0, words

    def replaced(self, text: str) -> str:
        return text.replace("127.0.0.1:8000", self.address) if self.address else text

    def run(self, source: str) -> None:
        exec(compile(self.replaced(source), str(self.page), "exec"), self.names)

    def serve(self, words: list[str]) -> None:
        command = [sys.executable, "-m", "worldmodel", "serve", *words]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.server.stdout is not None
        self.address = re.search(r"ws://(\S+)", self.server.stdout.readline())[1]

    def close(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            self.server.wait(timeout=60)


@contextmanager
def reading(page: Path, made: Path, folder: Path) -> Iterator[Reader]:
    """A reader of the page in an empty folder, in which what the page takes for granted is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
        (folder / "docs").symlink_to(ROOT / "docs")  # of a clone
        prepare(page, made, folder)
        reader = Reader(page, folder)
        try:
            yield reader
        finally:
            reader.close()
            for block in BLOCKS[page]:
                if isinstance(block, Python) and block.file:
                    sys.modules.pop(block.file.removesuffix(".py"), None)


# Python of these pages needs names that stand for the reader's own, or runs below.
SKETCHES = {
    "realtime.md": ("RosRobot", "LoopSettings"),
    "understanding.md": ("monitor = Monitor",),
}


def is_sketch(block: Command | Python | Drawing) -> bool:
    return isinstance(block, Python) and any(
        word in block.source for word in SKETCHES.get(block.page.name, ())
    )


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.name == "CONTRIBUTING.md" else pytest.mark.slow) for page in PAGES],
    ids=named,
)
def test_a_page_does_what_it_says(page, made, tmp_path, capsys):
    with reading(page, made, tmp_path) as reader:
        for block in BLOCKS[page]:
            if not isinstance(block, Drawing) and not is_sketch(block):
                reader.do(block)


class RosNode:
    """Of `rclpy`, what the outline of a robot asks for."""

    def __init__(self) -> None:
        self.published: list[list[float]] = []

    def create_publisher(self, kind, topic, depth):
        return self

    def create_subscription(self, kind, topic, callback, depth):
        self.seen = callback

    def publish(self, message):
        self.published.append(message.data)


def test_the_outline_of_a_robot_is_one():
    page = ROOT / "docs" / "realtime.md"
    (block,) = [b for b in BLOCKS[page] if isinstance(b, Python) and "class RosRobot" in b.source]
    names = {"multiprocessing": multiprocessing, "time": time, "np": np, "Sighting": Sighting}
    names |= {"JointState": SimpleNamespace, "Float64MultiArray": SimpleNamespace}
    exec(compile(block.source, str(page), "exec"), names)
    node, bound = RosNode(), np.array([2.0])
    robot = names["RosRobot"](node, 10.0, -bound, bound)
    assert isinstance(robot, RobotInterface)
    for position in (1.0, 3.0, 5.0):
        node.seen(SimpleNamespace(position=[position], velocity=[2.0]))
        if position == 1.0:
            first = robot.start()
            robot.send(np.array([0.5]))
    assert (first.step, first.observation["state"].tolist()) == (0, [1.0, 2.0])
    assert multiprocessing.connection.wait([robot.readable], 5)
    second, third = robot.read(), robot.read()
    assert second.observation["state"].tolist() == [3.0, 2.0]
    assert third.observation["state"].tolist() == [5.0, 2.0]
    assert third.time_s >= second.time_s >= first.time_s
    assert robot.read() is None
    assert not robot.is_over
    robot.close()
    assert robot.is_over
    assert node.published == [[0.5], [0.0]]


def test_the_jobs_of_an_array_are_commands_that_begin_runs_and_go_on_with_them(tmp_path):
    page = ROOT / "docs" / "distributed.md"
    (script,) = [b.text for b in BLOCKS[page] if isinstance(b, Drawing) and "#SBATCH" in b.text]
    script = f'srun() {{ printf "%s\\n" "$@"; }}\n{script}'

    def job(number: int) -> dict:
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(number)}
        done = subprocess.run(
            ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        program, verb, *overrides = done.stdout.split()
        assert (program, verb) == ("worldmodel", "train")
        return to_dict(compose_config("train", overrides))

    first, last = job(0), job(5)
    assert (first["task"], first["seed"], first["resume"]) == ("cartpole-swingup", 0, False)
    assert (last["task"], last["seed"], last["run_dir"]) == ("walker-walk", 2, "runs/walker-walk/seed-2")
    (tmp_path / last["run_dir"]).mkdir(parents=True)
    (tmp_path / last["run_dir"] / "config.json").touch()
    assert (job(5)["resume"], job(5)["run_dir"]) == (True, last["run_dir"])


def test_the_format_of_the_contributors_page_is_read_back_to_the_bit(tmp_path, monkeypatch):
    from types import ModuleType

    from worldmodel.data import EpisodeDataset
    from worldmodel.errors import DatasetError

    (block,) = [
        block
        for block in BLOCKS[ROOT / "CONTRIBUTING.md"]
        if isinstance(block, Python) and block.file == "one_file_each.py"
    ]
    module = ModuleType("one_file_each")
    exec(compile(block.source, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "task=tworoom", "policy=colored", "episodes=2", "dataset=data"]) == 0
    dataset = EpisodeDataset.open("data")
    module.write(tmp_path / "files", dataset, dataset.info)
    info, episodes = module.read(tmp_path / "files")
    assert info == json.loads(json.dumps(dataset.info))
    for found, episode in zip(episodes, dataset, strict=True):
        assert found.info == episode.info
        np.testing.assert_array_equal(found.action, episode.action)
        np.testing.assert_array_equal(found.observation["state"], episode.observation["state"])
    (tmp_path / "files" / "000000.npz").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="000000"):
        list(module.read(tmp_path / "files")[1])
