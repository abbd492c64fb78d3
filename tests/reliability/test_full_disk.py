"""A disk that fills up, or is read-only, at any place of any write: told in a line, and nothing is lost."""

import errno
import os
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import toy_tasks
from kills import Benchmarking, Collecting, Training, TrainingFromDataset, TrainingOnline, episodes_of
from small_disk import SmallDisk, small_disk
from warm_process import Warm, command

from worldmodel.apps import plots
from worldmodel.apps.bench.output import write_all
from worldmodel.apps.cli import main
from worldmodel.apps.datasets.exchange import export_dataset
from worldmodel.apps.page import write_document
from worldmodel.apps.video import ControlVideo
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import WorldModelError
from worldmodel.files import FORBIDDEN, FULL, write_json
from worldmodel.model import ImageDecoder
from worldmodel.training import ReturnTrainer, TrainerSettings, load_checkpoint, save_checkpoint
from worldmodel.training.decoder import load_decoder, save_decoder
from worldmodel.training.metrics import MetricLogger, read_metrics

MAX_S = 600.0


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


class Decoder:
    identity = {"weights": "x"}

    def write(self, folder: Path) -> None:
        torch.manual_seed(0)
        save_decoder(folder, ImageDecoder(4, 16), self.identity)

    def check(self, folder: Path) -> None:
        assert load_decoder(folder, self.identity, embedding_dim=4, image_size=16) is not None


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


REPLACE = ("checkpoint", "dataset", "metrics", "report", "page", "decoder", "video")
NEW = ("lerobot", "minari", "stable-worldmodel")


def writer(name: str, tmp_path: Path, tiny_model):
    made = {
        "checkpoint": lambda: Checkpointing(tiny_model), "dataset": Appending, "metrics": Logging,
        "report": Reporting, "page": Page, "decoder": Decoder, "video": Video,
    }  # fmt: skip
    return Export(name, tmp_path) if name in NEW else made[name]()


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
        try:
            work.write(disk.folder)
        except Exception as error:
            assert is_told(error, disk.folder), (num_pages, repr(error))
        else:
            break
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
