"""A disk that fills up, or is read-only, at any place of any write: told in a line, and nothing is lost."""

import errno
import os
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import toy_tasks
from kills import Benchmarking, Collecting, TrainingFromDataset, TrainingOnline, episodes_of
from small_disk import SmallDisk, small_disk
from warm_process import Warm, command

from worldmodel.apps.bench.output import write_all
from worldmodel.apps.cli import main
from worldmodel.apps.datasets.exchange import export_dataset
from worldmodel.apps.page import write_document
from worldmodel.apps.video import ControlVideo
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import WorldModelError
from worldmodel.files import FORBIDDEN, FULL
from worldmodel.training import ReturnTrainer, TrainerSettings, load_checkpoint, save_checkpoint
from worldmodel.training.metrics import MetricLogger, read_metrics

MAX_S = 600.0
STRIDE = int(os.environ.get("RELIABILITY_STRIDE", "10"))  # pages of the disk, from one try to the next


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path) as made:
        yield made


def episode(number: int, num_steps: int = 6) -> Episode:
    state = np.full((num_steps + 1, 3), number, np.float32)
    pixels = np.random.default_rng(number).integers(0, 255, (num_steps + 1, 3, 16, 16), np.uint8)
    return Episode(
        observation={"state": state, "pixels": pixels},
        action=np.zeros((num_steps, 2), np.float32),
        reward=np.full(num_steps, number, np.float32),
        terminated=False,
        truncated=True,
        info={"number": number},
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


class Checkpointing:
    """Over a checkpoint of the same step, the worst case."""

    def __init__(self, tiny_model) -> None:
        self.trainer = ReturnTrainer(tiny_model(), TrainerSettings(), seed=0)

    def write(self, folder: Path) -> None:
        save_checkpoint(folder, self.trainer, {"env_steps": 7, "weights": 1})

    def check(self, folder: Path) -> None:
        load_checkpoint(folder).trainer()


class Appending:
    def write(self, folder: Path) -> None:
        dataset = EpisodeDataset(folder / "data", mode="a")
        dataset.append(episode(len(dataset)))

    def check(self, folder: Path) -> None:
        found = EpisodeDataset.open(folder / "data")
        assert [each.info["number"] for each in found] == list(range(len(found)))


class Logging:
    def write(self, folder: Path) -> None:
        with MetricLogger(folder) as metrics:
            for step in range(400):
                metrics.log(step, {"train/some_metric_with_a_long_name": 1 / 3, "train/another": step})

    def check(self, folder: Path) -> None:
        assert read_metrics(folder)[0] == {
            "env_steps": 0, "train/some_metric_with_a_long_name": 1 / 3, "train/another": 0
        }  # fmt: skip


class Reporting:
    def write(self, folder: Path) -> None:
        figure, axes = plt.subplots()
        axes.plot(range(5))
        rows = [{"number": number, "text": "x" * 50} for number in range(200)]
        write_all(folder, "report", rows=rows, record={"a": 1}, figure=figure, page="# Page\n" * 2000)

    def check(self, folder: Path) -> None:
        for name in ("report.csv", "report.json", "report.png", "report.md"):
            assert (folder / name).stat().st_size > 0
        assert (folder / "report.md").read_text() == "# Page\n" * 2000
        assert len((folder / "report.csv").read_text().splitlines()) == 201
        plt.imread(folder / "report.png")


class Page:
    def write(self, folder: Path) -> None:
        write_document(folder / "index.html", "title", ["<p>x</p>" * 3000])

    def check(self, folder: Path) -> None:
        assert (folder / "index.html").read_text().endswith("</html>\n")


class Video:
    def write(self, folder: Path) -> None:
        chance = np.random.default_rng(0)
        with ControlVideo(folder / "a.mp4", "title", 0.05) as video:
            for _ in range(8):
                video.add(chance.integers(0, 255, (64, 64, 3), np.uint8), 0.0, 0.01)

    def check(self, folder: Path) -> None:
        import imageio.v3

        assert imageio.v3.immeta(folder / "a.mp4")["fps"] > 0


class Export:
    def __init__(self, form: str, tmp_path: Path) -> None:
        self.form, self.source = form, tmp_path / "source"
        if not self.source.exists():
            info = {"task": "walker-walk", "control_period_s": 0.05}
            dataset = EpisodeDataset(self.source, mode="a", info=info)
            for number in range(3):
                dataset.append(episode(number))

    def write(self, folder: Path) -> None:
        name = {"minari": "a/b-v0", "lerobot": "b", "stable-worldmodel": "b.h5"}[self.form]
        output = folder / "exported" / name
        if output.exists():
            shutil.rmtree(folder / "exported")
        config = {"format": self.form, "output": str(output), "dataset": str(self.source)}
        export_dataset(config)

    def check(self, folder: Path) -> None:
        assert any((folder / "exported").iterdir())


REPLACE = ("checkpoint", "dataset", "metrics", "report", "page", "video")
NEW = ("lerobot", "minari", "stable-worldmodel")


def writer(name: str, tmp_path: Path, tiny_model):
    made = {
        "checkpoint": lambda: Checkpointing(tiny_model), "dataset": Appending, "metrics": Logging,
        "report": Reporting, "page": Page, "video": Video,
    }  # fmt: skip
    return Export(name, tmp_path) if name in NEW else made[name]()


def failure_of(work, folder: Path) -> Exception | None:
    """What becomes of writing."""
    try:
        work.write(folder)
    except Exception as error:
        return error
    return None


def is_told(error: BaseException, folder: Path) -> bool:
    """By our own error, in a line with the path and the way out; or by one that the command line makes so."""
    if isinstance(error, WorldModelError):
        return str(folder) in str(error) and bool(re.search("space|permissions", str(error)))
    return isinstance(error, OSError) and error.errno in FULL | FORBIDDEN


@pytest.mark.parametrize("name", [*REPLACE, *NEW])
def test_a_disk_that_fills_up_at_any_page(disk: SmallDisk, tmp_path, tiny_model, name):
    work = writer(name, tmp_path, tiny_model)
    if name in REPLACE:  # what is there must stay
        work.write(disk.folder)
    num_pages, num_failures = 0, 0
    while True:
        disk.leave(num_pages)
        error = failure_of(work, disk.folder)
        if error is None:
            break
        assert is_told(error, disk.folder), (num_pages, repr(error))
        if name in REPLACE:
            work.check(disk.folder)
        else:
            assert not [path for path in content(disk.folder) if ".tmp-" in path]
        num_failures += 1
        num_pages += 1 if num_pages < 12 else 5
        assert num_pages < 4000
    assert num_failures >= 2
    work.check(disk.folder)
    disk.free()
    if name != "metrics":
        work.write(disk.folder)
    work.check(disk.folder)


@pytest.mark.parametrize("name", [*REPLACE, *NEW])
def test_a_disk_that_is_read_only(disk: SmallDisk, tmp_path, tiny_model, name):
    work = writer(name, tmp_path, tiny_model)
    if name in REPLACE:
        work.write(disk.folder)
    before = content(disk.folder)
    with disk.read_only(), pytest.raises((WorldModelError, OSError)) as caught:
        work.write(disk.folder)
    assert is_told(caught.value, disk.folder), repr(caught.value)
    assert content(disk.folder) == before
    work.write(disk.folder)
    work.check(disk.folder)


# The whole of a command: at every fifth page of the disk at the least, and never with anything lost.

JOBS = {
    "collect": Collecting, "train": TrainingOnline, "train dataset": TrainingFromDataset,
    "bench planners": Benchmarking,
}  # fmt: skip


def run(job, folder: Path, log: Path) -> int:
    log.unlink(missing_ok=True)
    code = Warm(command, *job.arguments(folder), log=log).wait(MAX_S)
    assert code is not None, "it does not end"
    return code


def told(log: Path) -> str:
    """The one line of a user's mistake; no traceback."""
    text = log.read_text()
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("worldmodel: ")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(JOBS))
def test_a_command_whose_disk_fills_up_goes_on_when_there_is_space(disk: SmallDisk, tmp_path, name):
    job, log = JOBS[name](), tmp_path / "log"
    job.prepare(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(job, whole, log) == 0, log.read_text()
    expected, num_pages, num_full = job.result(whole), 0, 0
    while True:
        folder = disk.folder / f"with-{num_pages}-pages"
        folder.mkdir()
        disk.leave(num_pages)
        code = run(job, folder, log)
        if code == 0:
            break
        assert code == 2, log.read_text()
        assert str(disk.folder) in told(log)
        assert re.search("space", told(log))
        there = job.finished(folder)
        disk.free()
        assert run(job, folder, log) == 0, log.read_text()
        found = job.finished(folder)
        assert there.items() <= found.items()
        assert job.result(folder) == expected
        shutil.rmtree(folder)
        num_pages, num_full = num_pages + STRIDE, num_full + 1
    assert num_full >= 3
    assert job.result(folder) == expected
    print(f"{name}: full at {num_full} places")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(JOBS))
def test_a_command_whose_disk_is_read_only_goes_on_when_it_is_not(disk: SmallDisk, tmp_path, name):
    job, log = JOBS[name](), tmp_path / "log"
    job.prepare(tmp_path)
    for has_begun in (False, True):
        if has_begun:
            assert run(job, disk.folder, log) == 0, log.read_text()
        before = content(disk.folder)
        with disk.read_only():
            code = run(job, disk.folder, log)
        if has_begun and code == 0:
            continue  # there was nothing left to do
        assert code == 2, log.read_text()
        assert str(disk.folder) in told(log)
        assert re.search("permissions", told(log))
        assert content(disk.folder) == before


def test_what_is_only_read_may_be_read_only(disk: SmallDisk, tmp_path):
    """A dataset and a run on a disk that nobody can write to are trained from, and act."""
    data, run_dir = disk.folder / "data", disk.folder / "run"
    task = [f"task={toy_tasks.POINT}"]
    words = ["episodes=4", "policy=random", "env.action_repeat=1"]
    assert main(["collect", *task, f"dataset={data}", *words]) == 0
    assert main(["train", *task, f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING]) == 0
    offline = [f"run_dir={tmp_path / 'run'}", "num_updates=3", *toy_tasks.TINY_TRAINING]
    with disk.read_only():
        assert main(["train", *task, f"dataset={data}", *offline]) == 0
        words = [f"checkpoint={run_dir}", "episodes=1", "video=false", f"output={tmp_path / 'out'}"]
        assert main(["control", *task, *words]) == 0
        assert main(["data", "info", f"dataset={data}"]) == 0
    assert load_checkpoint(tmp_path / "run").info["env_steps"] == 3


def test_a_mount_that_is_refused_skips_a_test_or_fails_where_it_must_not(tmp_path, monkeypatch):
    def is_skipped(name: str) -> bool:
        try:
            with small_disk(tmp_path / name):
                return False
        except pytest.skip.Exception:
            return True

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", "")  # nothing can be mounted
    monkeypatch.delenv("RELIABILITY_MUST_MOUNT", raising=False)
    assert is_skipped("a")
    monkeypatch.setenv("RELIABILITY_MUST_MOUNT", "1")
    with pytest.raises(FileNotFoundError):
        is_skipped("b")


class FailingCall:
    """A call of the system that fails the n-th time."""

    def __init__(self, name: str, number: int, reason: int) -> None:
        self.num_calls = 0
        self._original, self._number, self._reason = getattr(os, name), number, reason

    def __call__(self, *arguments, **keywords):
        self.num_calls += 1
        if self.num_calls == self._number:
            raise OSError(self._reason, os.strerror(self._reason))
        return self._original(*arguments, **keywords)


@pytest.mark.parametrize("call", ["fsync", "rename", "replace", "mkdir"])
def test_any_call_that_fails_while_collecting_costs_nothing_finished(tmp_path, monkeypatch, capsys, call):
    """Beyond a quota, or on a network disk, such calls fail by themselves: each in turn."""
    words = [f"task={toy_tasks.POINT}", "episodes=4", "num_envs=2", "policy=random", "env.action_repeat=1"]
    assert main(["collect", *words, f"dataset={tmp_path / 'whole'}"]) == 0
    expected, number = episodes_of(tmp_path / "whole"), 0
    while True:
        number += 1
        data = tmp_path / f"data-{number}"
        failing = FailingCall(call, number, (errno.ENOSPC, errno.EROFS)[number % 2])
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            code = main(["collect", *words, f"dataset={data}"])
        if failing.num_calls < number:
            break
        if code == 0:  # somebody does without: a library without its cache
            assert episodes_of(data) == expected
            continue
        printed = capsys.readouterr().err
        assert code == 2, printed
        assert re.fullmatch(r"worldmodel: [^\n]+\n", printed), printed
        assert re.search("space|permissions", printed), printed
        assert str(data) in printed
        there = episodes_of(data)
        assert main(["collect", *words, f"dataset={data}"]) == 0
        assert there.items() <= expected.items()
        assert episodes_of(data) == expected
    assert code == 0
    assert number > 2
