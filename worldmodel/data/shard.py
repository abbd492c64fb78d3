"""One shard: an immutable directory that holds whole episodes, one .npy file for each column.

A shard appears by one `os.rename` of a finished and synced directory, so a reader sees all of it or
nothing, whenever the writer is killed. The number of rows and their dtype are checked against
episodes.json *before* anything is read, and nothing is ever unpickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.data.array_file import map_array, read_array, write_array
from worldmodel.data.columns import Column, Columns, num_rows
from worldmodel.data.compressed import CompressedRows, is_compressed, write_rows
from worldmodel.data.episode import Episode
from worldmodel.errors import DatasetError
from worldmodel.files import FULL, committed_directory, reason_of

EPISODES_FILE = "episodes.json"
MANIFEST_FILE = "shard.json"
MERGED_SUFFIX = "-merged"  # of the name of a shard that holds others' episodes
MAX_NUM_STEPS = 2**40  # of an episode: whatever is summed or multiplied stays within int64


def episode_arrays(episode: Episode) -> dict[str, np.ndarray]:
    """The arrays of an episode by column name."""
    return {
        **{f"observation.{name}": array for name, array in episode.observation.items()},
        "action": episode.action,
        "reward": episode.reward,
        **{f"extra.{name}": array for name, array in episode.extra.items()},
    }


def episode_facts(episode: Episode) -> dict[str, Any]:
    """What is known of an episode beside its arrays."""
    return {
        "num_steps": episode.num_steps,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "info": episode.info,
    }


def episode_from(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Episode:
    """The episode of these `episode_arrays` and `episode_facts`."""

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    return Episode(
        observation=group("observation."),
        action=arrays["action"],
        reward=arrays["reward"],
        extra=group("extra."),
        terminated=facts["terminated"],
        truncated=facts["truncated"],
        info=facts["info"],
    )


@dataclass(frozen=True)
class ShardHeader:
    """What a shard tells without its numbers."""

    path: Path
    facts: list[dict[str, Any]]  # of each episode, as `episode_facts` gives them
    checksums: dict[str, int]  # CRC-32 of each file by name; none in a shard of schema version 1
    replaces: dict[str, int]  # as in `write_shard`
    ignores: list[str]  # as in `write_shard`

    @property
    def lengths(self) -> list[int]:
        """Steps of each episode."""
        return [fact["num_steps"] for fact in self.facts]

    @property
    def origins(self) -> dict[str, int]:
        """As what its episodes were recorded: shards, in order, and how many episodes each held."""
        return self.replaces if is_merged(self.path.name) else {self.path.name: len(self.facts)}

    @property
    def each_origin(self) -> list[str]:
        """As a part of which shard each episode was recorded."""
        return [name for name, count in self.origins.items() for _ in range(count)]


def is_merged(name: str) -> bool:
    """Whether a shard of this name holds others' episodes."""
    return name.endswith(MERGED_SUFFIX)


def write_shard(
    directory: Path,
    name: str,
    episodes: Sequence[Episode],
    *,
    replaces: Mapping[str, int] | None = None,
    ignores: Sequence[str] = (),
    compresses_pixels: bool = False,
) -> None:
    """Commit the episodes (of the same columns) as the shard `directory/name`, all or none.

    `compresses_pixels`: row by row, see `compressed.py`.
    `replaces`: as what these episodes were recorded, shard after shard, and how many each held.
    `ignores`: shards that hold the same episodes, which readers pass over from now on.

    When this returns, they are on the disk. DatasetError if they could not be written (a full disk, say).
    """
    facts = [episode_facts(episode) for episode in episodes]
    arrays = [episode_arrays(episode) for episode in episodes]
    try:
        with committed_directory(directory / name, removes_stale=False) as temporary:
            checksums: dict[str, int] = {}
            for column in arrays[0]:
                parts = [each[column] for each in arrays]
                if compresses_pixels and column == "observation.pixels":
                    checksums |= write_rows(temporary, column, parts)
                else:
                    checksums[f"{column}.npy"] = write_array(temporary / f"{column}.npy", parts)
            content = json.dumps(facts, allow_nan=False).encode()
            (temporary / EPISODES_FILE).write_bytes(content)
            checksums[EPISODES_FILE] = zlib.crc32(content)
            manifest = {"checksums": checksums, "replaces": dict(replaces or {}), "ignores": list(ignores)}
            (temporary / MANIFEST_FILE).write_text(json.dumps(manifest))
    except OSError as error:
        raise DatasetError(
            f"{write_failure(directory, error)}; this episode is not saved, all earlier ones are safe"
        ) from error


def read_shard(header: ShardHeader, columns: Columns) -> list[Episode]:
    """The episodes of a shard; DatasetError that names the file if it is damaged or of other columns."""
    shard, checksums, counts = header.path, header.checksums, header.lengths
    arrays: list[dict[str, np.ndarray]] = [{} for _ in counts]
    for name, column in columns.items():
        rows = [num_rows(name, count) for count in counts]
        dtype, shape = np.dtype(column.dtype), (sum(rows), *column.shape)
        path = _column_path(shard, name)
        try:
            if is_compressed(shard, name):
                array = CompressedRows(shard, name, dtype, shape, checksums)[np.arange(shape[0])]
            else:
                array = read_array(path, dtype, shape, checksums.get(path.name))
        except MemoryError:
            raise
        except Exception as error:  # numpy fails on a garbled header in many ways, such as a TokenError.
            raise _damaged(path, error) from error
        for episode, part in zip(arrays, np.split(array, np.cumsum(rows)[:-1]), strict=True):
            episode[name] = part
    unknown = sorted({path.stem for path in shard.glob("*.npy")} - columns.keys())
    if unknown:
        raise _damaged(shard / f"{unknown[0]}.npy", "it is no column of this dataset")
    try:
        return [episode_from(*parts) for parts in zip(arrays, header.facts, strict=True)]
    except DatasetError as error:
        raise _damaged(shard, error) from error


def map_column(shard: Path, name: str, column: Column, counts: Sequence[int]) -> np.ndarray | CompressedRows:
    """One column of episodes of these numbers of steps, read where it is looked at.

    Errors: `DatasetError` that names the file if it is damaged.
    """
    path = _column_path(shard, name)
    dtype, shape = np.dtype(column.dtype), (sum(num_rows(name, count) for count in counts), *column.shape)
    try:
        if is_compressed(shard, name):
            return CompressedRows(shard, name, dtype, shape)
        return map_array(path, dtype, shape)
    except Exception as error:  # as in `read_shard`
        raise _damaged(path, error) from error


def _column_path(shard: Path, name: str) -> Path:
    return shard / (f"{name}.zlib" if is_compressed(shard, name) else f"{name}.npy")


def write_failure(path: Path, error: OSError) -> str:
    """What went wrong with a write, in words."""
    if error.errno in FULL:
        return f"the disk of {path} is full ({error.strerror}): free some space and go on"
    return f"cannot write to {path} ({reason_of(error)})"


def read_header(shard: Path) -> ShardHeader:
    """What a shard tells without its numbers. Errors: `DatasetError` that names the file if it is damaged."""
    manifest = read_manifest(shard)
    facts = _read_facts(shard / EPISODES_FILE, manifest["checksums"].get(EPISODES_FILE))
    num_replaced = sum(manifest["replaces"].values())
    if is_merged(shard.name) and num_replaced != len(facts):
        raise _damaged(
            shard / MANIFEST_FILE, f"it tells of {num_replaced} episodes, and there are {len(facts)}"
        )
    return ShardHeader(shard, facts, **manifest)


def read_manifest(shard: Path) -> dict[str, Any]:
    """`checksums`, `replaces` and `ignores`, as in `ShardHeader`.

    All are empty for a shard of schema version 1. Errors: `DatasetError` if it is damaged.
    """
    path = shard / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_bytes())
        for key in ("checksums", "replaces"):
            entries = manifest.get(key)
            if not isinstance(entries, dict) or not all(type(v) is int and v >= 0 for v in entries.values()):
                raise ValueError(f"{key!r} is no object of whole numbers")
        ignores = manifest.get("ignores")
        if not isinstance(ignores, list) or not all(isinstance(name, str) for name in ignores):
            raise ValueError("'ignores' is no list of names")
        return {key: manifest[key] for key in ("checksums", "replaces", "ignores")}
    except FileNotFoundError:
        return {"checksums": {}, "replaces": {}, "ignores": []}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _read_facts(path: Path, checksum: int | None) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
        if checksum is not None and zlib.crc32(content) != checksum:
            raise ValueError("its bytes are not those that were written (checksum)")
        facts = json.loads(content)
        if not isinstance(facts, list) or not facts:
            raise ValueError("it is no list of episodes")
        for fact in facts:
            _check_facts(fact)
        return facts
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _check_facts(fact: Any) -> None:
    if not isinstance(fact, dict):
        raise ValueError("an episode is no object")
    if type(fact.get("num_steps")) is not int or not 1 <= fact["num_steps"] <= MAX_NUM_STEPS:
        raise ValueError(f"an episode has no 'num_steps' from 1 to {MAX_NUM_STEPS}")
    for name in ("terminated", "truncated"):
        if type(fact.get(name)) is not bool:
            raise ValueError(f"{name!r} of an episode is neither true nor false")
    if not isinstance(fact.get("info"), dict):
        raise ValueError("the 'info' of an episode is no object")


def _damaged(path: Path, reason: object) -> DatasetError:
    shard = path if path.is_dir() else path.parent
    return DatasetError(
        f"cannot read {path}: {reason}. Delete the directory {shard} to go on without its episodes, or copy "
        "the others: worldmodel data filter dataset=... skip_damaged=true output=... (Python: strict=False)"
    )
