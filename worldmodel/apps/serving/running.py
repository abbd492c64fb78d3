"""A server's life, from the port to the last goodbye."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from worldmodel.apps.serving.server import PolicyServer
from worldmodel.errors import RunError


async def serve_until_stopped(
    server: PolicyServer, host: str, port: int, *, log: logging.Logger, tell: Callable[[str], None]
) -> None:
    """Listen until Ctrl-C or SIGTERM; `tell` where, as soon as somebody may come.

    Errors: `RunError` where that address cannot be had.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        listening = await server.start(host, port)
    except OSError as error:
        raise RunError(
            f"cannot listen at host={host} port={port}: {error.strerror or error}; choose another port="
        ) from error
    port = listening.sockets[0].getsockname()[1]
    tell(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
    await stopped.wait()
    began = time.perf_counter()
    await server.stop(listening)
    log.info("stopped", extra={"about": {"seconds": round(time.perf_counter() - began, 3)}})
