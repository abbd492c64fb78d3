"""Metrics: numbers over time, as JSON lines and for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from worldmodel.errors import RunError

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
            self._board = SummaryWriter(str(directory / "tensorboard"))
        except OSError as error:
            raise RunError(f"cannot write metrics to {directory}: {error}") from error

    def log(self, env_steps: int, metrics: Mapping[str, int | float]) -> None:
        """Record metrics at a number of env steps. Errors: `RunError` where the disk is full."""
        try:
            self._lines.write(json.dumps({"env_steps": env_steps, **metrics}) + "\n")
            self._lines.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error}. Free some space, then resume") from error
        for name, value in metrics.items():
            self._board.add_scalar(name, value, env_steps)

    def close(self) -> None:
        """Write what is still held back."""
        self._lines.close()
        self._board.close()

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
