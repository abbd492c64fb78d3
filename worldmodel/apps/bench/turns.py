"""Contenders that may be unable to take part: not installed, or failing halfway."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from worldmodel.apps.bench.contenders import failure
from worldmodel.apps.bench.timing import Work


@dataclass
class Turn:
    """So many calls in a row; what one raises ends this contender's part, and nobody else's."""

    work: Work
    num_calls: int
    status: str = "ok"

    @classmethod
    def lasting(cls, seconds: float, work: Work, seconds_per_call: float) -> Turn:
        """About so long, one call at least."""
        return cls(work, max(1, math.ceil(seconds / max(seconds_per_call, 1e-9))))

    def __call__(self) -> None:
        """Work, or do nothing after a failure."""
        try:
            for _ in range(self.num_calls if self.status == "ok" else 0):
                self.work()
        except Exception as error:  # a simulation that diverged, a process that died, a full disk
            self.status = failure(error)


def missing(package: str | None) -> str | None:
    """Why a contender that needs a package cannot take part, if it cannot."""
    if package is None or find_spec(package) is not None:
        return None
    return f"not installed: pip install {package}"
