"""A policy server: robots ask over a websocket, and one planner decides for all that ask together."""

from importlib.util import find_spec

from worldmodel.errors import ConfigError

_PACKAGES = ("msgpack", "websockets", "prometheus_client")


def check_installed(what: str) -> None:
    """Errors: `ConfigError` that names the packages that are missing."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"{what} needs {' and '.join(missing)}: pip install 'worldmodel[serve]'")
