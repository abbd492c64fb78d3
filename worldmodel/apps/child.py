"""`python -m worldmodel.apps.child`: the command line in a process that ends with the one that started it.

Its standard input is a pipe that the other end holds open as long as it lives: killed, it can end nobody, and
a run that goes on alone is in the way of the same command.
"""

import os
import sys
import threading

from worldmodel.apps.cli import main


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)  # as if killed: nothing finished is lost


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main())
