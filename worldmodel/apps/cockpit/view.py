"""`worldmodel view`: the cockpit, from the port to Ctrl-C."""

from __future__ import annotations

import gc
import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from worldmodel.apps.cockpit import check_installed
from worldmodel.apps.config import at_most, not_negative
from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.apps.run import default_num_threads
from worldmodel.apps.serving.access import is_loopback
from worldmodel.errors import ConfigError, RunError

if TYPE_CHECKING:
    import viser

    from worldmodel.apps.cockpit.loop import Loop
    from worldmodel.apps.cockpit.page import Page

_SEARCH_EVERY_S = 30.0  # for garbage


def view(config: dict[str, Any], is_wanted: Callable[[Page, Loop], bool] = lambda page, loop: True) -> None:
    """Show the cockpit until Ctrl-C, for `seconds`, or as long as it `is_wanted`.

    `config` is that of `configs/view.yaml`.

    Errors: `ConfigError`, `CheckpointError` or `RunError` for a user's mistake, before anybody is let in.
    """
    check_installed()
    _check(config)
    from worldmodel.apps.cockpit.loop import Loop
    from worldmodel.apps.cockpit.page import Page

    torch.set_num_threads(default_num_threads(config["num_threads"]))
    _check_port(config["host"], config["port"])

    def tell(title: str, text: str, is_mistake: bool) -> None:
        console.print(f"{title}: {text}", style="yellow" if is_mistake else None)
        if page is not None:
            page.tell(title, text, is_mistake)

    page: Page | None = None
    loop = Loop(tell, speed=config["speed"], is_playing=not config["paused"], output=Path(config["output"]))
    with _garbage_is_new():
        with ProgressDisplay("what is ordinary", None, "episodes") as display:
            loop.start(config, lambda done, total: display.update(done))
        with closing(loop):
            server = _serve(config["host"], config["port"])
            try:
                page = Page(server, loop, config)
                host = config["host"]
                where = f"[{host}]" if ":" in host else host
                console.print(f"cockpit at http://{where}:{server.get_port()}  (Ctrl-C ends)")
                _show(page, loop, config, is_wanted)
            finally:
                with redirect_stdout(io.StringIO()):
                    server.stop()


@contextmanager
def _garbage_is_new() -> Iterator[None]:
    """Leave what is imported out of the search for garbage, which then takes milliseconds.

    A browser that leaves takes its connection along, 0.7 MB of it, only in a search through everything (there
    are cycles in viser's and asyncio's). Python makes one by itself when what is new makes a quarter of what
    is old: of 400,000 imported objects, hundreds of connections; and it would stop the robot for so long.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _serve(host: str, port: int) -> viser.ViserServer:
    """A server that says nothing itself, and that no page can ask to be reached from the internet."""
    import viser

    class Server(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> str | None:
            return None

    with redirect_stdout(io.StringIO()):
        return Server(host=host, port=port, verbose=False)


def _show(page: Page, loop: Loop, config: dict[str, Any], is_wanted: Callable[[Page, Loop], bool]) -> None:
    """Update the page as often as it is wanted, and say at the end how often that was."""
    period_s = 1 / config["updates_per_s"]
    began_s = due_s = time.monotonic()
    first_step, num_updates = loop.num_steps, 0
    searched_s = began_s
    try:
        while is_wanted(page, loop) and not 0 < config["seconds"] < time.monotonic() - began_s:
            if loop.failure is not None:
                raise loop.failure
            page.update()
            num_updates += 1
            if time.monotonic() - searched_s > _SEARCH_EVERY_S:
                gc.collect()
                searched_s = time.monotonic()
            due_s = max(due_s + period_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))
    finally:
        seconds = time.monotonic() - began_s
        num_decisions = loop.num_steps - first_step
        console.print(
            f"{num_updates / seconds:.1f} updates/s of the page, {num_decisions / seconds:.1f} decisions/s, "
            f"over {seconds:.0f} s"
        )


def _check(config: dict[str, Any]) -> None:
    not_negative(config, "port", "seconds")
    at_most(config, "port", 65535)
    for key, low, high in (("speed", 0.05, 3.0), ("updates_per_s", 1.0, 60.0)):
        if not low <= config[key] <= high:
            raise ConfigError(f"{key}={config[key]}: must be at least {low:g} and at most {high:g}")
    if not is_loopback(config["host"]) and not config["open"]:
        raise ConfigError(
            f"host={config['host']} is reached from other machines, and the page has no password: add "
            "open=true if whoever reaches it may drive the robot, or keep host=127.0.0.1 and forward the "
            f"port from there (ssh -L {config['port'] or 8080}:localhost:{config['port'] or 8080} HERE)"
        )


def _check_port(host: str, port: int) -> None:
    """Errors: `RunError` where that address cannot be had (viser would silently take another port)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise RunError(
            f"cannot listen at host={host} port={port}: {error.strerror or error}; choose another port="
        ) from error
