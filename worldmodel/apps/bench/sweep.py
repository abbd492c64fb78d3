"""A sweep: cells measured one by one; finished ones are kept, and the same command goes on."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        with self._missing(cells) as missing:
            if missing:
                # No core waits for a long one in the end.
                missing.sort(key=lambda cell: -cost(cell))
                self._run(missing, run_cell, len(cells), launch)

    def run_here(
        self,
        cells: Sequence[AnyCell],
        run_cell: Callable[[AnyCell, Callable[[str], None]], dict[str, Any]],
        *,
        within: AbstractContextManager[object] | None = None,
    ) -> None:
        """Run what is not there yet one after the other, in this process.

        `run_cell` gets a cell, and whom to tell how far it is; `within`: what they need, if any is missing.
        """
        with (
            self._missing(cells) as missing,
            within if within and missing else nullcontext(),
            self._appended(len(cells), len(missing)) as (keep, display),
        ):
            for done, cell in enumerate(missing, start=len(cells) - len(missing)):

                def tell(what: str, done: int = done) -> None:
                    display.update(done, {"now": what})

                keep(run_cell(cell, tell) | _measured_with())
                display.update(done + 1)

    @contextmanager
    def _missing(self, cells: Sequence[AnyCell]) -> Iterator[list[AnyCell]]:
        """What is not there yet; the table is whole, and nobody else's meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_run(self.path.parent)
        try:
            rows = self.rows()
            self._write(rows)
            done = {self.key_of(row) for row in rows}
            yield [cell for cell in cells if cell.key not in done]
        finally:
            lock.release()

    @contextmanager
    def _appended(
        self, num_cells: int, num_missing: int
    ) -> Iterator[tuple[Callable[[dict[str, Any]], None], ProgressDisplay]]:
        """What keeps a row for good, and a display of how many there are."""
        with (
            self.path.open("a", newline="") as file,
            ProgressDisplay(self.verb, num_cells, "cells", done=num_cells - num_missing) as display,
        ):
            writer = csv.DictWriter(file, self.columns)

            def keep(row: dict[str, Any]) -> None:
                writer.writerow(row)
                file.flush()
                os.fsync(file.fileno())

            try:
                yield keep, display
            except KeyboardInterrupt:
                display.note(f"stopped: finished cells are kept in {self.path}, the same command goes on")
                raise

    def _run(
        self,
        missing: Sequence[AnyCell],
        run_cell: Callable[[AnyCell], dict[str, Any]],
        num_cells: int,
        launch: Launch,
    ) -> None:
        failures: list[str] = []
        with self._appended(num_cells, len(missing)) as (keep, display), launch.workers() as workers:
            running = {workers.submit(_measured, run_cell, cell): cell for cell in missing}
            for done, future in enumerate(as_completed(running), start=num_cells - len(missing) + 1):
                display.update(done)
                try:
                    row = future.result()
                except BrokenExecutor as error:
                    raise RunError("a process of the sweep was killed; the same command goes on") from error
                except Exception as error:
                    failures.append(f"{' '.join(running[future].key[:-1])}: {error}")
                    display.note(f"failed: {failures[-1]}")
                else:
                    keep(row)
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


def settings_digest(told: Any) -> str:
    """The last part of a cell's key, of all its settings: with others it is another cell."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _measured(run_cell: Callable[[AnyCell], dict[str, Any]], cell: AnyCell) -> dict[str, Any]:
    """A cell's row, and with what it was measured."""
    return run_cell(cell) | _measured_with()


@cache
def _measured_with() -> dict[str, str]:
    return {"commit": provenance.commit(), "machine": provenance.machine()}
