"""Ray: the same jobs and the same acting, on more machines than one."""

import os
import re
from importlib.util import find_spec

from worldmodel.errors import ConfigError

# Ray's own switches. The second keeps a cluster to the loopback interface: it is made for macOS and Windows,
# where firewalls ask, and works on Linux as well.
STATISTICS, BEYOND_THIS_MACHINE = "RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_PACKAGES = ("ray", "msgpack", "grpc")


def prepare(address: str | None) -> None:
    """Whether Ray is there, and `address` can be one; then set its switches, which it reads when imported.

    Errors: `ConfigError`.
    """
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise ConfigError(f'ray needs {", ".join(missing)}: pip install "worldmodel[ray]"')
    if address is not None and not re.fullmatch(r"auto|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+", address):
        raise ConfigError(f"ray_address={address}: write auto, or HOST:PORT of a cluster's head")
    os.environ.setdefault(STATISTICS, "0")
    if address is None:
        os.environ.setdefault(BEYOND_THIS_MACHINE, "0")
