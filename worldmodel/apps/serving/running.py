"""A server's life, from the port to the last goodbye."""

import asyncio
import logging
import signal
import time

from worldmodel.apps.progress import console
from worldmodel.apps.serving.server import PolicyServer
from worldmodel.errors import RunError


async def serve_until_stopped(server: PolicyServer, host: str, port: int, log: logging.Logger) -> None:
    """Listen until Ctrl-C or SIGTERM. Errors: `RunError` where that address cannot be had."""
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
    address = f"[{host}]" if ":" in host else host
    console.print(f"serving ws://{address}:{port}  (health: /healthz, numbers: /metrics; Ctrl-C stops)")
    await stopped.wait()
    began = time.perf_counter()
    await server.stop(listening)
    log.info("stopped", extra={"about": {"seconds": round(time.perf_counter() - began, 3)}})
