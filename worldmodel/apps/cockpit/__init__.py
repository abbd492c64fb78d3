"""The live cockpit: a robot that plans, its imagined futures, and a person who disturbs both."""

from importlib.util import find_spec

from worldmodel.errors import ConfigError

_PACKAGES = ("viser", "mjviser")


def check_installed() -> None:
    """Errors: `ConfigError` that names the packages that are missing."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"view needs {' and '.join(missing)}: pip install 'worldmodel[view]'")
