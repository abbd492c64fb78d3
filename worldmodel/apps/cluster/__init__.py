"""Ray: the same jobs and the same acting, on more machines than one."""

import re
from importlib.util import find_spec

from worldmodel.errors import ConfigError

_PACKAGES = ("ray", "msgpack")


def check_cluster(address: str | None) -> None:
    """Whether Ray is there, and `address` can be one. Errors: `ConfigError`."""
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ConfigError(f'ray needs {" and ".join(missing)}: pip install "worldmodel[ray]"')
    if address is not None and not re.fullmatch(r"auto|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+", address):
        raise ConfigError(f"ray_address={address}: write auto, or HOST:PORT of a cluster's head")
