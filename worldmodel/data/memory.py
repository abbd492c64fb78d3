"""How much memory there is."""

import math
from pathlib import Path


def available_memory_bytes() -> float:
    """Memory that is free for use now; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux
        return math.inf
