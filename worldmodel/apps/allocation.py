"""How the C library keeps memory."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 1 << 30  # bytes of an allocation whose memory is kept for the next


def keep_freed_memory() -> None:
    """Let memory that is freed be used again, and not go back to the system: for a loop that needs it soon.

    glibc gives large arrays to the system and takes them back with each update, whose pages are then zeroed:
    a fifth of the CPU time of an update from 64 x 64 pixels. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
