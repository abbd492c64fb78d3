"""A learned world model of a robot, and the applications that train and use it."""

from typing import Any

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """`Client`, imported when asked for: nobody else needs websockets."""
    if name == "Client":
        try:
            from worldmodel.remote import Client
        except ModuleNotFoundError as error:
            hint = f"worldmodel.Client needs {error.name}: pip install 'worldmodel[serve]'"
            raise ModuleNotFoundError(hint, name=error.name) from error
        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
