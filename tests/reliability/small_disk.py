"""A disk that is as full as one wants, or read-only: a tmpfs, which only who may mount can have."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")  # of which a tmpfs counts
SIZE = 32 * 2**20


class SmallDisk:
    """`folder` lies on it."""

    def __init__(self, mount: Path) -> None:
        self._mount, self.folder = mount, mount / "folder"
        self._ballast = mount / "ballast"
        mount.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(mount))
        self.folder.mkdir()

    def leave(self, num_pages: int) -> None:
        """So many pages are free from now on: real space, which every library meets."""
        self.free()
        status = os.statvfs(self._mount)
        num_bytes = status.f_bavail * status.f_frsize - num_pages * PAGE
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)

    def free(self) -> None:
        """There is space again."""
        self._ballast.unlink(missing_ok=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nobody can write while the block lasts, not even root."""
        _run("mount", "-o", "remount,ro", str(self._mount))
        try:
            yield
        finally:
            _run("mount", "-o", "remount,rw", str(self._mount))

    def close(self) -> None:
        """What is on it is gone."""
        _run("umount", "-l", str(self._mount))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Skips the test where nothing can be mounted; with $RELIABILITY_MUST_MOUNT, it fails."""
    try:
        disk = SmallDisk(folder / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("RELIABILITY_MUST_MOUNT"):
            raise
        pytest.skip(f"a small disk is a tmpfs, which cannot be mounted here: {error}")
    try:
        yield disk
    finally:
        disk.close()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
