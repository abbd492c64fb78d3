"""A sweep: cells measured in processes of their own; finished ones are kept, and the same command goes on."""

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from worldmodel.apps import provenance
from worldmodel.apps.launcher import Launch
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.run import lock_run
from worldmodel.errors import RunError
from worldmodel.files import fsync


@runtime_checkable
class Cell(Protocol):
    """What is measured at once; it is sent to another process."""

    @property
    def key(self) -> tuple[str, ...]:
        """Which cell of the sweep it is, as text; last a digest of its settings."""


AnyCell = TypeVar("AnyCell", bound=Cell)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A table of finished cells, and how they are measured.

    - `verb`: whose sweep it is.
    - `path`: of the table (CSV), one row for each finished cell.
    - `columns`: of the table; `key`: those that say which cell a row is of, as `Cell.key`.
    """

    verb: str
    path: Path
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """The finished cells. A line that was cut by a crash is left out. Errors: `RunError`."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(whole.splitlines())
        if tuple(reader.fieldnames or ()) != self.columns:
            raise RunError(f"{self.path} has other columns than this version writes: choose another output=")
        return [row for row in reader if None not in row.values()]

    def key_of(self, row: dict[str, str]) -> tuple[str, ...]:
        """Which cell a row is of."""
        return tuple(row[name] for name in self.key)

    def run_missing(
        self,
        cells: Sequence[AnyCell],
        run_cell: Callable[[AnyCell], dict[str, Any]],
        *,
        launch: Launch,
        cost: Callable[[AnyCell], float],
    ) -> None:
        """Run what is not there yet; `cost`: about how long each takes, and the long ones go first.

        Errors: `RunError` in the end, if cells failed; the others are kept.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_run(self.path.parent)
        try:
            rows = self.rows()
            self._write(rows)
            done = {self.key_of(row) for row in rows}
            # No core waits for a long one in the end.
            missing = sorted((cell for cell in cells if cell.key not in done), key=lambda cell: -cost(cell))
            if missing:
                self._run(missing, run_cell, len(cells), launch)
        finally:
            lock.release()

    def _run(
        self,
        missing: Sequence[AnyCell],
        run_cell: Callable[[AnyCell], dict[str, Any]],
        num_cells: int,
        launch: Launch,
    ) -> None:
        failures: list[str] = []
        num_done = num_cells - len(missing)
        with (
            self.path.open("a", newline="") as file,
            ProgressDisplay(self.verb, num_cells, "cells", done=num_done) as display,
        ):
            writer = csv.DictWriter(file, self.columns)
            try:
                with launch.workers() as workers:
                    running = {workers.submit(_measured, run_cell, cell): cell for cell in missing}
                    for count, future in enumerate(as_completed(running), start=1):
                        display.update(num_done + count)
                        try:
                            row = future.result()
                        except BrokenExecutor as error:
                            raise RunError(
                                "a process of the sweep was killed; the same command goes on"
                            ) from error
                        except Exception as error:
                            failures.append(f"{' '.join(running[future].key[:-1])}: {error}")
                            display.note(f"failed: {failures[-1]}")
                            continue
                        writer.writerow(row)
                        file.flush()
                        os.fsync(file.fileno())
            except KeyboardInterrupt:
                display.note(f"stopped: finished cells are kept in {self.path}, the same command goes on")
                raise
        if failures:
            raise RunError(f"{len(failures)} cells failed, the others are kept; the first: {failures[0]}")

    def _write(self, rows: Iterable[dict[str, str]]) -> None:
        """Replace the file by its whole lines."""
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        fsync(part)
        part.replace(self.path)


def _measured(run_cell: Callable[[AnyCell], dict[str, Any]], cell: AnyCell) -> dict[str, Any]:
    """A cell's row, and with what it was measured."""
    return run_cell(cell) | _measured_with()


@cache
def _measured_with() -> dict[str, str]:
    return {"commit": provenance.commit(), "machine": provenance.machine()}
