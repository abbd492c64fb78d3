"""The command line in processes of their own."""

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def start(*arguments: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "worldmodel", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def descendants(parent: int) -> set[int]:
    """All processes that a process has begun, and those that these have. Linux."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, new = set(), {parent}
    while new:
        new = {child for child, its in parents.items() if its in new}
        found |= new
    return found


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]
