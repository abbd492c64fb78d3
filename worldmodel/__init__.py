"""A learned world model of a robot, and the applications that train and use it."""

from typing import Any

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """`Client`, imported when asked for: nobody else needs websockets."""
    if name == "Client":
        from worldmodel.remote import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
