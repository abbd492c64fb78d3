"""What is committed is there as a whole, on the disk, or not at all; what dead writers left goes."""

import os
import time

import pytest

from worldmodel import files
from worldmodel.files import committed_directory, committed_file, temporary_beside


@pytest.fixture
def synced(monkeypatch):
    """The paths that were synced, in order."""
    found, fsync = [], files.fsync

    def noted(path):
        found.append(path)
        fsync(path)

    monkeypatch.setattr(files, "fsync", noted)
    return found


def test_whatever_lies_in_a_committed_directory_is_synced_first_and_its_name_last(tmp_path, synced):
    with committed_directory(tmp_path / "new") as temporary:
        (temporary / "deep" / "er").mkdir(parents=True)
        (temporary / "deep" / "er" / "a").write_text("a")
        (temporary / "b").write_text("b")
    entries = {temporary / part for part in ("deep", "deep/er", "deep/er/a", "b")}
    assert set(synced[:-2]) == entries
    assert synced[-2:] == [temporary, tmp_path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_folders_that_are_made_on_the_way_are_synced(tmp_path, synced):
    with committed_directory(tmp_path / "a" / "b" / "new"):
        pass
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


@pytest.mark.parametrize("failing", ["temporary", "parent"])
def test_what_cannot_be_synced_is_not_there(tmp_path, monkeypatch, failing):
    fsync = files.fsync

    def breaks(path):
        if (path == tmp_path) == (failing == "parent"):
            raise OSError("broken")
        fsync(path)

    monkeypatch.setattr(files, "fsync", breaks)
    with pytest.raises(OSError, match="broken"), committed_directory(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []


def broken(path):
    raise OSError("broken")


def age(path, hours):
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def remains(path, *, hours):
    """What a writer of `path` left that was killed: a folder with a file."""
    folder = temporary_beside(path)
    folder.mkdir()
    (folder / "half").write_bytes(b"half")
    for entry in (folder / "half", folder):
        age(entry, hours)
    return folder


def test_remains_of_the_same_name_go_after_an_hour(tmp_path):
    path = tmp_path / "good"
    old, young = remains(path, hours=2), remains(path, hours=0.5)
    written_to = remains(path, hours=2)
    (written_to / "half").write_bytes(b"more")  # only now: its writer is alive
    age(written_to, 2)
    others = [
        remains(tmp_path / name, hours=2) for name in ("other", "good2", "very-good", "1-00000000-good")
    ]
    mine = tmp_path / ".tmp-good"
    mine.mkdir()
    age(mine, 2)
    file = temporary_beside(path)
    file.write_text("half")
    age(file, 2)
    with committed_directory(path):
        pass
    assert not old.exists()
    assert not file.exists()
    assert all(kept.exists() for kept in (young, written_to, mine, *others))


def test_a_failed_file_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", broken)
        with pytest.raises(OSError, match="broken"), committed_file(path) as temporary:
            temporary.write_text("half")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["before"]
    with committed_file(path) as temporary:
        temporary.write_text("after")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["after"]
