"""Metrics: numbers over time, as JSON lines and for TensorBoard."""

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from worldmodel.errors import RunError
from worldmodel.files import reason_of

METRICS_FILE = "metrics.jsonl"


class MetricLogger:
    """Writes each record to `metrics.jsonl` and to TensorBoard events in `directory/tensorboard`.

    A record carries `env_steps` and any number of metrics named `group/name`. A line is on its way to the
    disk when `log` returns, so a crash costs none.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / METRICS_FILE
        try:
            starts_inside_a_line = _ends_inside_a_line(self._path)
            self._lines = self._path.open("a")
            if starts_inside_a_line:
                self._lines.write("\n")  # else the first new record would be lost with the broken one
            self._board = _Board(directory / "tensorboard")
        except OSError as error:
            raise RunError(f"cannot write metrics to {directory}: {reason_of(error)}") from error

    def log(self, env_steps: int, metrics: Mapping[str, int | float]) -> None:
        """Record metrics at a number of env steps. Errors: `RunError` where the disk is full."""
        try:
            self._lines.write(json.dumps({"env_steps": env_steps, **metrics}) + "\n")
            self._lines.flush()
            self._board.add(env_steps, metrics)
        except OSError as error:
            raise RunError(f"cannot write metrics to {self._path}: {reason_of(error)}") from error

    def close(self) -> None:
        """Free the files."""
        with suppress(OSError):  # nothing is held back but what could not be written, as `log` has told
            self._lines.close()
        self._board.close()

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Board:
    """Event files of TensorBoard, written at once, as `metrics.jsonl` is.

    TensorBoard's own writer has a thread, which loses what it holds back when the process is killed, and
    prints a traceback where the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, which a clock that is set back must not change.
        numbers = [int(path.name.split(".")[3]) for path in directory.glob("events.out.tfevents.[0-9]*")]
        number = max([int(time.time()), *(number + 1 for number in numbers)])
        name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("xb")
        self._records = RecordWriter(self._file)

    def add(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Numbers of one moment. Errors: `OSError`."""
        if not self._file.tell():
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Free the file."""
        with suppress(OSError):
            self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def _ends_inside_a_line(path: Path) -> bool:
    """Whether a crash cut the last line short."""
    return path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """All records of a run, oldest first; a line cut short by a crash is left out.

    After a resume the steps that were redone are counted once: later records win.
    """
    records: list[dict[str, Any]] = []
    path = directory / METRICS_FILE
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            env_steps = record["env_steps"]
        except (ValueError, KeyError, TypeError):
            continue
        while records and records[-1]["env_steps"] > env_steps:
            records.pop()
        records.append(record)
    return records
