"""The command line in processes of their own."""

import subprocess
import sys
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
