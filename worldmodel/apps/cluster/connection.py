"""A Ray cluster for as long as it is needed: one that runs, or one of our own on this machine."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worldmodel.apps.cluster import prepare
from worldmodel.errors import RunError, one_line


@contextmanager
def connected(address: str | None, num_workers: int) -> Iterator[int]:
    """Be connected to the cluster at `address`; without one, start one that nobody else reaches.

    `num_workers`: that will be asked of it, each a core; 0: as many as there are. Yields how many that is.
    Where the program has connected Ray already, that cluster is used, and stays.
    Errors: `ConfigError` where Ray is missing, `RunError` where the cluster cannot be reached, or can be by
    anybody: beyond this machine it must ask for a token.
    """
    prepare(address)
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(address, num_workers)
    try:
        yield num_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if is_ours:
            ray.shutdown()


def _connect(address: str | None, num_workers: int) -> None:
    import ray

    where: dict[str, object] = {"address": address}
    if address is None:
        where = {"address": "local", "num_cpus": num_workers or None, "include_dashboard": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    is_main = threading.current_thread() is threading.main_thread()  # only there are handlers set
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        if address is not None:
            from worldmodel.apps.cluster.access import check_access

            check_access(address)
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except RunError:
        raise
    except Exception as error:  # of any kind: a node that starts too slowly is a bare Exception
        named = "a Ray cluster cannot start here" if address is None else f"ray_address={address}"
        raise RunError(
            f"{named}: {one_line(error)}. Start one with `ray start --head`, or leave out ray_address= for "
            "one on this machine alone"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray's own would end this process where ours save
            signal.signal(number, handler)
