"""Stopping politely."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Holds back Ctrl-C and SIGTERM while a step is under way; a second one does not wait.

    Inside the `with` block, call `raise_if_requested` between steps: nothing is then left half done.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_requested(self) -> None:
        """Raise the `KeyboardInterrupt` that was held back, if there was one."""
        if self._is_requested:
            raise KeyboardInterrupt

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested:
            raise KeyboardInterrupt
        self._is_requested = True
