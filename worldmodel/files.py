"""Writing to disk so that neither a crash nor a power cut leaves half a file."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"
# Who lives writes now and then, so an hour leaves no doubt. The writer's process id would tell sooner, but it
# means nothing on a network disk or in another container, where the writer may be alive and well.
STALE_AFTER_S = 3600.0
# What the machine refuses anywhere, and its owner can mend; Windows knows no EDQUOT.
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
FORBIDDEN = {errno.EROFS, errno.EACCES}


def reason_of(error: OSError) -> str:
    """Why nothing could be written, and the way out where its owner can mend it."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return f"{reason}: free some space, or choose another disk, then try again"
    if error.errno in FORBIDDEN:
        return f"{reason}: choose a folder that you may write to, or change its permissions, then try again"
    return reason


def fsync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def temporary_beside(path: Path) -> Path:
    """A new name for what shall become `path` in one rename; readers ignore names that start with `.tmp-`."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}")


def make_directory(path: Path) -> None:
    """Make a directory, and what is missing around it, and wait until all of it is on the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync(folder.parent)


@contextmanager
def committed_directory(path: Path, *, removes_stale: bool = True) -> Iterator[Path]:
    """Fill a temporary directory; on success it becomes `path` in one rename, else it vanishes.

    The rename is the only commit point. What writers of the same `path` that died have left beside it goes,
    unless `removes_stale` is off, which saves a look at a large folder.
    """
    temporary = temporary_beside(path)
    make_directory(path.parent)
    if removes_stale:
        remove_stale(_temporaries_of(path))
    temporary.mkdir()
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            fsync(entry)
        fsync(temporary)
        temporary.rename(path)
        try:
            fsync(path.parent)
        except BaseException:
            with suppress(OSError):
                path.rename(temporary)  # What is told to have failed must not be there.
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def committed_file(path: Path) -> Iterator[Path]:
    """Write a temporary file; on success it becomes (or replaces) `path` in one rename, else it vanishes."""
    temporary = temporary_beside(path)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Replace a text file in one rename."""
    with committed_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one rename."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_stale(paths: Iterable[Path]) -> None:
    """Delete those of these files and folders that nobody has written to, or into, for an hour."""
    for path in paths:
        with suppress(OSError):  # Another was quicker, or it is not ours to delete; it does no harm.
            newest = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
            if _now(path.parent) - newest >= STALE_AFTER_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _now(folder: Path) -> float:
    """The time by the clock that dates the files there: on a network disk this machine's may be far ahead."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _temporaries_of(path: Path) -> Iterator[Path]:
    """What `temporary_beside` has named for this path, and for no other."""
    name = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}\d+-[0-9a-f]{{8}}-{re.escape(path.name)}")
    return (entry for entry in path.parent.iterdir() if name.fullmatch(entry.name))
