"""The command line in processes that start in a moment: forks of one that has imported everything.

That one (Python's own `forkserver`) has imported, and done nothing else: it has no thread, and no state of
torch or MuJoCo that a fork would share. A killed fork leaves it as it was.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SPAWN = multiprocessing.get_context("forkserver")
_SPAWN.set_forkserver_preload(["warm_modules"])


class Warm:
    """A process that does some work, its output in a file, in a process group of its own."""

    def __init__(self, work: Callable[..., Any], *arguments: Any, log: Path) -> None:
        self.log = log
        self._process = _SPAWN.Process(target=_begin, args=(log, work, *arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, or None where it goes on after so long."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> None:
        """As `kill -9` does: it alone, not what it has started."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def left_behind(self) -> list[int]:
        """Processes that it has started and that go on."""
        return [pid for pid, group in _groups() if group == self.pid]


def command(*arguments: str) -> int:
    """The command line, its exit code."""
    from worldmodel.apps.cli import main

    return main(arguments)


def command_killed_at(number: int, *arguments: str) -> int:
    """The command line, killed before the n-th call that changes the disk: no such moment escapes by luck."""
    num_calls = 0

    def fatal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            if num_calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, fatal(getattr(os, name)))
    return command(*arguments)


def _begin(log: Path, work: Callable[..., Any], *arguments: Any) -> None:
    import torch

    os.setsid()
    stream = log.open("ab", buffering=0)
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    # A worker that imports everything anew costs ten times what it does; here a fork is sound (see above).
    spawned = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: spawned("fork" if method == "spawn" else method)
    sys.exit(work(*arguments))


def _groups() -> Iterator[tuple[int, int]]:
    """Living processes and the group of each."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (entry / "stat").read_text().rpartition(") ")
        except OSError:
            continue
        state, _, group = rest.split()[:3]
        if state not in "ZX":
            yield int(entry.name), int(group)
