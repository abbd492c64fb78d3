"""Stopping politely; and, where a process is killed, with what it has started."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def end_with_parent() -> None:
    """End this process as soon as the one that started it (through `multiprocessing`) is gone.

    Who is killed can end nobody: what it has started would go on for ever, and beside what takes its place.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Interruption:
    """Holds back Ctrl-C and SIGTERM, so that nothing is left half done.

    Inside `held_back`, a signal is noted; it becomes a `KeyboardInterrupt` where the code says so: at
    `raise_if_requested` between two steps, or anywhere inside `allowed`.
    """

    def __init__(self) -> None:
        self._is_requested = self._is_allowed = False

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Note signals; the handlers from before return at the end."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._request)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Around work that may stop anywhere."""
        self.raise_if_requested()
        self._is_allowed = True
        try:
            yield
        finally:
            self._is_allowed = False

    def raise_if_requested(self) -> None:
        """Raise the `KeyboardInterrupt` that was held back, if there was one."""
        if self._is_requested:
            raise KeyboardInterrupt

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self._is_requested:
            print("\nstopping: finishing the step, then saving ...", file=sys.stderr)
        self._is_requested = True
        if self._is_allowed:
            self._is_allowed = False  # what follows is saving
            raise KeyboardInterrupt
