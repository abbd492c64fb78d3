"""How much memory there is."""

import math
import os
from pathlib import Path

from worldmodel.errors import DatasetError

_MAX_FRACTION = 0.5  # of what is free, for what a file asks for
_SMALL_BYTES = 2**26  # is not worth a look


def require_memory(what: str, num_bytes: int | float) -> None:
    """Before memory is taken for what a file claims to hold: a few bytes can claim any number of equal ones.

    Errors: `DatasetError` where it would be more than half of what is free.
    """
    if num_bytes <= _SMALL_BYTES:
        return
    free = available_memory_bytes()
    if num_bytes > _MAX_FRACTION * free:
        raise DatasetError(
            f"{what} claims to hold {num_bytes / 1e9:.1f} GB of numbers, more than half of the "
            f"{free / 1e9:.1f} GB of memory that are free: it is damaged, or made for a larger machine"
        )


def available_memory_bytes() -> float:
    """Memory that is free for this process now; infinite where the system does not tell."""
    return min(_free_bytes(), _allowed_bytes())


def _free_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux
        return math.inf


def _allowed_bytes() -> float:
    """What a limit on this process's address space (`ulimit -v`) leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return math.inf
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        return float(max(0, limit - taken))
    except (ImportError, OSError, ValueError):  # not Linux
        return math.inf
