"""What can go wrong with an environment; each message names the value, the rule and the way out."""

from __future__ import annotations

from typing import Any


class EnvError(ValueError):
    """Base of all errors of this package."""


class UnknownTaskError(EnvError):
    """No task has this name."""


class UnsupportedEnvError(EnvError):
    """The task exists, but does not fit the interface: continuous bounded actions, a state vector."""


class InvalidActionError(EnvError):
    """An action of a wrong shape, or with entries that are no finite numbers."""


class SimulationError(EnvError):
    """The simulation diverged: a NaN or inf came out, or MuJoCo warned of a bad state.

    Attributes:
        environments: which ones of a vector environment, where that is known; their episodes are lost.
        result: what `step` would have returned, true of all others: their episodes can go on.
    """

    def __init__(self, message: str, *, environments: tuple[int, ...] = (), result: Any = None) -> None:
        super().__init__(message)
        self.environments, self.result = environments, result


class RenderingError(EnvError):
    """No image could be made, mostly because no OpenGL library is installed."""


class IncompatibleVersionsError(EnvError, ImportError):
    """MuJoCo and dm_control are installed in versions that do not run together."""


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks; its kind, where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
