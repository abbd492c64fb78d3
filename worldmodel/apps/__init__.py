"""Applications: the only place that knows more than one package."""

from typing import Any

__all__ = ["load_agent"]


def __getattr__(name: str) -> Any:
    """`load_agent`, imported when asked for: the command line starts faster without torch."""
    if name == "load_agent":
        from worldmodel.apps.trained import load_agent

        return load_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
