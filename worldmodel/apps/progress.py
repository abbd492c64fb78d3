"""Progress on the terminal: a bar with ETA where people watch, plain lines where a file does."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Lines are printed as they are: a path that is wrapped, or read as markup, cannot be copied.
console = Console(highlight=False, markup=False, soft_wrap=True)
LINE_EVERY_S = 30.0


def counted(count: int, noun: str) -> str:
    """`1 episode`, `2,000 episodes`."""
    return f"{count:,} {noun}{'s'[: count != 1]}"


def megabytes(num_bytes: int) -> str:
    """`12.3 MB`; of little, two digits: `0.0021 MB`."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e6:.2g} MB"


class ProgressDisplay:
    """Counts up to `total` `unit`s (None: nobody knows), and shows the newest numbers beside the bar."""

    def __init__(self, title: str, total: int | None, unit: str, *, done: int = 0) -> None:
        self._numbers: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._title, self._total, self._unit, self._done = title, total, unit, done
        self._began, self._began_at, self._last_line = time.monotonic(), done, time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, numbers="")

    def __enter__(self) -> "ProgressDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, numbers: Mapping[str, str] | None = None) -> None:
        """Move to `done`; `numbers` replace those of the same name."""
        self._done = done
        self._numbers |= numbers or {}
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = (done - self._began_at) / seconds
        text = "  ".join(f"{name} {value}" for name, value in self._numbers.items())
        self._progress.update(self._task, completed=done, numbers=f"{text}  {rate:.0f} {self._unit}/s")
        if not console.is_terminal and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            total = self._total
            eta = f"{(total - done) / rate:.0f} s" if total is not None and rate > 0 else "?"
            parts = [
                f"{self._title}: {done}/{'?' if total is None else total} {self._unit}",
                f"ETA {eta}",
                text,
                f"{rate:.3g}/s",
            ]
            console.print(", ".join(part for part in parts if part))

    def add(self, name: str, count: int) -> None:
        """Count something else too, and show how fast it grows."""
        self._counts[name] = self._counts.get(name, 0) + count
        rate = self._counts[name] / max(time.monotonic() - self._began, 1e-6)
        self._numbers[f"{name}/s"] = f"{rate:,.0f}"

    def note(self, line: str) -> None:
        """A line that stays, above the bar."""
        console.print(line)
