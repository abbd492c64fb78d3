"""kill -9 at random moments, until the work is done all the same: what must hold, and how to count it.

    python tests/reliability/kills.py job=collect kills=100 output=docs/results/reliability/kills.csv

One row for every `BATCH` kills; the same command goes on where it was stopped. Jobs: `JOBS`.
"""

import csv
import hashlib
import random
import shutil
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import toy_tasks
from warm_process import Warm, command

from worldmodel.apps.bench.cells import KEY
from worldmodel.apps.provenance import commit
from worldmodel.data import EpisodeDataset
from worldmodel.data.shard import episode_arrays
from worldmodel.errors import RemoteError
from worldmodel.remote import Client
from worldmodel.training import load_checkpoint

BATCH = 20
MAX_LIFE_S = 600.0
GONE_S = 10.0  # in which what a killed process has started must be gone


@dataclass
class Count:
    """What came of it: kills, works that were done in the end, finished pieces that were there at kills."""

    kills: int = 0
    works: int = 0
    pieces: int = 0


class Job(ABC):
    """Some work in a folder, which is done by one command again and again.

    `piece`: what counts as finished, one by one: it may neither go nor change.
    """

    piece: str

    def prepare(self, folder: Path) -> None:  # noqa: B027  (most need nothing)
        """What all runs share."""

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """The command that begins, or goes on."""

    @abstractmethod
    def finished(self, folder: Path) -> dict[str, str]:
        """What is finished: a name and a digest for each piece. Reading it must work after any kill."""

    @abstractmethod
    def result(self, folder: Path) -> Any:
        """What the work comes to: without kills and with any number of them the same."""


def episodes_of(path: Path) -> dict[str, str]:
    """The episodes of a dataset in the order of their numbers, or of their recording, and their digests."""
    if not (path / "dataset.json").exists():
        return {}
    found = {}
    for index, episode in enumerate(EpisodeDataset.open(path)):
        arrays = episode_arrays(episode)
        content = b"".join(arrays[name].tobytes() for name in sorted(arrays))
        name = str(episode.info.get("number", index))
        assert name not in found, "an episode is there twice"
        found[name] = hashlib.sha256(content).hexdigest()
    return found


class Collecting(Job):
    """`collect`: the episodes are those of a collection that nobody killed, to the bit."""

    piece = "episodes"

    def arguments(self, folder: Path) -> list[str]:
        words = ["num_envs=4", "policy=colored", "episodes=200", "env.action_repeat=1"]
        return ["collect", f"task={toy_tasks.POINT}", f"dataset={folder / 'data'}", *words]

    def finished(self, folder: Path) -> dict[str, str]:
        return episodes_of(folder / "data")

    def result(self, folder: Path) -> Any:
        return episodes_of(folder / "data")


class Training(Job):
    """`train`: while it learns; a checkpoint is whole whenever the process is killed."""

    def resumed(self, folder: Path) -> list[str]:
        """The command that goes on, or none where nothing has begun."""
        run_dir = folder / "run"
        if not (run_dir / "config.json").exists():
            return []
        return ["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "resume=true"]

    def checkpoint(self, folder: Path) -> Any:
        """The newest, which can be gone on from; None before the first."""
        if not any((folder / "run/checkpoints").glob("step_*")):
            return None
        checkpoint = load_checkpoint(folder / "run")
        checkpoint.trainer()
        return checkpoint


class TrainingOnline(Training):
    """`train`: no episode is lost, and each is learned from; an episode under way is dropped."""

    piece = "episodes"

    def arguments(self, folder: Path) -> list[str]:
        words = [f"task={toy_tasks.POINT}", f"run_dir={folder / 'run'}", *toy_tasks.TINY_TRAINING]
        words += ["env_steps=600", "eval_every=300", "checkpoint_every=60"]
        return self.resumed(folder) or ["train", *words]

    def finished(self, folder: Path) -> dict[str, str]:
        self.checkpoint(folder)
        return episodes_of(folder / "run/dataset")

    def result(self, folder: Path) -> Any:
        checkpoint, dataset = self.checkpoint(folder), EpisodeDataset.open(folder / "run/dataset")
        seen = sum(episode.num_steps + 1 for episode in dataset)
        assert checkpoint.info["num_episodes"] == len(dataset)
        # Of every episode just once, whatever was recorded after the last checkpoint.
        assert checkpoint.model.encoder.normalizer.count.item() == seen
        return checkpoint.info["env_steps"], checkpoint.state["trainer"]["num_updates"]


class TrainingFromDataset(Training):
    """`train dataset=`: weights, optimizers and chance in the end are those of a run that nobody killed."""

    piece = "checkpoints"

    def prepare(self, folder: Path) -> None:
        self._dataset = folder / "shared/data"
        words = ["num_envs=4", "policy=colored", "episodes=20", "env.action_repeat=1"]
        arguments = ["collect", f"task={toy_tasks.POINT}", f"dataset={self._dataset}", *words]
        assert Warm(command, *arguments, log=folder / "log").wait() == 0

    def arguments(self, folder: Path) -> list[str]:
        words = [f"dataset={self._dataset}", f"run_dir={folder / 'run'}", *toy_tasks.TINY_TRAINING]
        words += [f"task={toy_tasks.POINT}", "num_updates=150", "eval_every=100", "checkpoint_every=15"]
        return self.resumed(folder) or ["train", *words, "keep_checkpoints=1000"]

    def finished(self, folder: Path) -> dict[str, str]:
        self.checkpoint(folder)
        return {
            path.name: hashlib.sha256((path / "trainer.safetensors").read_bytes()).hexdigest()
            for path in (folder / "run/checkpoints").glob("step_*")
        }

    def result(self, folder: Path) -> Any:
        return self.finished(folder)


class Benchmarking(Job):
    """`bench planners`: every cell is measured once; the numbers that are no times are the same."""

    piece = "cells"
    _MEASURED = ("return", "cost_ratio", "evaluations", "decisions", "effective_sample_size", "std")

    def arguments(self, folder: Path) -> list[str]:
        words = ["problems=[lqr]", "planners=[mppi,cem,icem]", "budgets.lqr=[8x1x3,16x2x3]", "seeds=[0,1,2]"]
        return ["bench", "planners", f"output={folder / 'bench'}", "num_workers=1", *words]

    def _rows(self, folder: Path) -> list[dict[str, str]]:
        path = folder / "bench/planners.csv"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        return list(csv.DictReader(whole.splitlines()))

    def finished(self, folder: Path) -> dict[str, str]:
        return {" ".join(row[name] for name in KEY): str(row) for row in self._rows(folder)}

    def result(self, folder: Path) -> Any:
        rows = self._rows(folder)
        assert len(rows) == 18
        assert (folder / "bench/planners.md").exists()
        return sorted([*(row[name] for name in (*KEY, *self._MEASURED))] for row in rows)


JOBS: dict[str, Callable[[], Job]] = {
    "collect": Collecting,
    "train": TrainingOnline,
    "train dataset": TrainingFromDataset,
    "bench planners": Benchmarking,
}


def kill_again_and_again(job: Job, num_kills: int, seed: int, folder: Path) -> Count:
    """Kill, go on, kill; every work that was done, the last one too, is compared with one nobody killed."""
    chance, count = random.Random(seed), Count()
    (folder / "shared").mkdir(parents=True)
    job.prepare(folder)
    whole = folder / "whole"
    whole.mkdir()
    _done(Warm(command, "--version", log=folder / "log"))  # whoever is first waits for the imports
    began = time.monotonic()
    _done(Warm(command, *job.arguments(whole), log=folder / "log"))
    expected, window_s = job.result(whole), time.monotonic() - began
    there: dict[str, str] | None = None  # None between two works
    while count.kills < num_kills or there is not None:
        current = folder / f"work-{count.works}"
        current.mkdir(exist_ok=True)
        life = Warm(command, *job.arguments(current), log=folder / "log")
        code = life.wait(chance.uniform(0.0, window_s) if count.kills < num_kills else MAX_LIFE_S)
        if code is None:
            assert count.kills < num_kills, "it does not end"
            life.kill()
            count.kills += 1
        _nothing_left_behind(life)
        now = job.finished(current)
        lost = {name for name, digest in (there or {}).items() if now.get(name) != digest}
        assert not lost, f"{job.piece} that are gone, or another: {sorted(lost)}"
        if code is None:
            if len(now) == len(there or {}):
                window_s *= 1.1  # the machine has become slower: it shall get further now and then
            count.pieces, there = count.pieces + len(now), now
            continue
        assert code == 0, life.log.read_text()[-3000:]
        found = job.result(current)
        assert found == expected, f"{found} instead of {expected}"
        count.works, there = count.works + 1, None
        window_s *= 0.8
        shutil.rmtree(current)
    return count


class Robot:
    """Asks one server after the other without a pause, in a thread.

    `unanswered`: where the server was killed, and the next one too before it had answered.
    """

    def __init__(self, uri: str) -> None:
        self.answered = self.unanswered = 0
        self._uri, self._stop = uri, threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._failure: Exception | None = None
        self._thread.start()

    def _live(self) -> None:
        try:
            with Client(self._uri, patience_s=MAX_LIFE_S, timeout_s=MAX_LIFE_S) as client:
                while not self._stop.is_set():
                    try:
                        client.act({"state": np.zeros(2, np.float32)})
                        self.answered += 1
                    except RemoteError as error:
                        if "connection is lost" not in str(error):
                            raise
                        self.unanswered += 1
        except Exception as error:
            self._failure = error

    def stop(self) -> None:
        """Errors: what went wrong."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def kill_a_server(run_dir: Path, num_kills: int, seed: int, folder: Path) -> Count:
    """A robot asks on, whenever its server is killed and another takes its place: it is always answered.

    The server that comes last plans as one does that nobody killed.
    """
    chance, count = random.Random(seed), Count()
    folder.mkdir(parents=True)
    words = [f"checkpoint={run_dir}", f"task={toy_tasks.POINT}", "log=warning"]
    server = Warm(command, "serve", *words, "port=0", log=folder / "log")
    port = _port(server)
    uri = f"ws://127.0.0.1:{port}"

    def replaced() -> Warm:
        server.kill()
        _nothing_left_behind(server)
        return Warm(command, "serve", *words, f"port={port}", log=folder / "log")

    expected = _plans(uri)
    robot = Robot(uri)
    while count.kills < num_kills:
        before, answers = robot.answered, chance.randrange(20)
        if chance.random() < 0.7:  # else also before it has begun to listen
            until = time.monotonic() + MAX_LIFE_S
            while robot.answered <= before + answers:
                assert time.monotonic() < until, "the robot is not answered any more"
                time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.05))
        server = replaced()
        count.kills += 1
    robot.stop()
    server = replaced()
    np.testing.assert_array_equal(_plans(uri), expected)
    server.terminate()
    assert server.wait(MAX_LIFE_S) == 0, server.log.read_text()[-3000:]
    count.pieces, count.works = robot.answered, 1
    return count


def _plans(uri: str) -> list[np.ndarray]:
    """The first that a server makes."""
    with Client(uri, patience_s=MAX_LIFE_S, timeout_s=MAX_LIFE_S) as client:
        return [client.act({"state": np.full(2, step, np.float32)}) for step in range(3)]


def _port(server: Warm) -> int:
    until = time.monotonic() + MAX_LIFE_S
    while time.monotonic() < until:
        text = server.log.read_text() if server.log.exists() else ""
        if "ws://127.0.0.1:" in text:
            return int(text.partition("ws://127.0.0.1:")[2].split()[0])
        assert server.wait(0.05) is None, text
    raise AssertionError(f"no server: {text}")


def _done(life: Warm) -> None:
    assert life.wait(MAX_LIFE_S) == 0, life.log.read_text()[-3000:]


def _nothing_left_behind(life: Warm) -> None:
    until = time.monotonic() + GONE_S
    while left := life.left_behind():
        assert time.monotonic() < until, f"{left} go on without the process that was killed"
        time.sleep(0.02)


COLUMNS = ("job", "seed", "kills", "works", "pieces", "piece", "commit", "date")


def count_kills(name: str, num_kills: int, seed: int, run_dir: Path | None = None) -> dict[str, Any]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "kills"
        if name == "serve":
            if run_dir is None:
                run_dir = Path(scratch) / "run"
                words = [f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING]
                _done(Warm(command, "train", *words, log=Path(scratch) / "log"))
            count, piece = kill_a_server(run_dir, num_kills, seed, folder), "answers"
        else:
            job = JOBS[name]()
            count, piece = kill_again_and_again(job, num_kills, seed, folder), job.piece
    told = {"job": name, "seed": seed, "kills": count.kills, "works": count.works, "pieces": count.pieces}
    return told | {"piece": piece, "commit": commit(), "date": datetime.now(UTC).date().isoformat()}


def main(name: str, num_kills: int, output: Path) -> None:
    """Count in batches; those that are in the table are not counted again."""
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(output.open())) if output.exists() else []
    there = {(row["job"], int(row["seed"])) for row in rows}
    for seed in range(-(-num_kills // BATCH)):
        if (name, seed) in there:
            continue
        row = count_kills(name, BATCH, seed)
        print(row, flush=True)
        is_new = not output.exists()
        with output.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(given["job"], int(given["kills"]), Path(given["output"]))
