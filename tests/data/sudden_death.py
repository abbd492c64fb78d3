"""What becomes of a process that is killed at any one step of a commit: so that no step escapes by luck."""

import os
import signal
from collections.abc import Callable


def survives(work: Callable[[], object], fatal_call: int) -> bool:
    """Do the work in a fork that is killed at the n-th call that syncs or renames; False if it was."""
    child = os.fork()
    if child == 0:
        try:
            _arm(fatal_call)
            work()
            os._exit(0)
        finally:
            os._exit(1)  # Never back into pytest, twice.
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def _arm(fatal_call: int) -> None:
    num_calls = 0

    def fatal(function):
        def call(*arguments, **kwargs):
            nonlocal num_calls
            num_calls += 1
            if num_calls == fatal_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **kwargs)

        return call

    os.fsync, os.rename = fatal(os.fsync), fatal(os.rename)
