"""Where a run's numbers come from: commit, machine and versions, written down when it starts."""

import json
import os
import platform
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worldmodel.errors import RunError
from worldmodel.files import write_json

PACKAGES = ("torch", "mujoco", "dm-control", "gymnasium")


def provenance_path(run_dir: Path) -> Path:
    """Beside the run folder, which `train` wants to make itself."""
    return run_dir.with_name(f"{run_dir.name}.provenance.json")


def record_start(run_dir: Path, *, preset: str, command: str, is_new: bool) -> None:
    """Write down with what a run starts, or after what was there before: with what it goes on."""
    if is_new:
        record: dict[str, Any] = {"preset": preset, "starts": []}
    else:
        # Who wrote no record did start once.
        record = read_record(run_dir) or {"preset": None, "starts": [{}]}
    start = {
        "commit": commit(),
        "processor": processor(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "command": command,
    }
    write_json(provenance_path(run_dir), record | {"starts": [*record["starts"], start]})


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """What `record_start` wrote; None for a run that was made without. Errors: `RunError` if damaged."""
    path = provenance_path(run_dir)
    try:
        record = json.loads(path.read_text())
        return {"preset": record["preset"], "starts": list(record["starts"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {path}: {error}; without the file its commit is unknown") from error


def check_preset(run_dirs: Iterable[Path], preset: str) -> None:
    """All runs must be of one preset. Errors: `RunError` naming the run that is not."""
    for run_dir in run_dirs:
        recorded = (read_record(run_dir) or {}).get("preset")
        if recorded not in (None, preset):
            raise RunError(
                f"{run_dir} was trained as {recorded!r}, not as {preset!r}: "
                f"choose another output=, or give presets=['{recorded}']"
            )


def summary(run_dirs: Iterable[Path]) -> list[str]:
    """The distinct commits and machines of runs, each with how many runs it was used in."""
    commits: Counter[str] = Counter()
    machines: Counter[str] = Counter()
    for run_dir in run_dirs:
        starts = (read_record(run_dir) or {}).get("starts") or [{}]
        commits.update({start.get("commit", "unknown commit") for start in starts})
        machines.update({_machine(start) for start in starts})
    return [
        f"Commit: {', '.join(_counted(commits))}.",
        *(f"Hardware: {machine}." for machine in _counted(machines)),
    ]


def commit(source: Path = Path(__file__)) -> str:
    """The commit that `source` belongs to, or the installed version where it is in no checkout of ours."""
    try:
        top = Path(_git(source, "rev-parse", "--show-toplevel"))
        project = tomllib.loads((top / "pyproject.toml").read_text()).get("project", {})
        tracked = _git(source, "ls-files", source.name)
        if project.get("name") == "worldmodel" and tracked:
            return _git(source, "describe", "--always", "--dirty")
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    return f"version {version('worldmodel')}"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """This machine and what it runs, in a line."""
    return _machine(
        {
            "processor": processor(),
            "cores": num_cores(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES},
        }
    )


def _git(source: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _machine(start: dict[str, Any]) -> str:
    if not start:
        return "unknown hardware"
    packages = ", ".join(f"{name} {number}" for name, number in start["packages"].items())
    return f"{start['processor']}, {start['cores']} cores; Python {start['python']}, {packages}"


def _counted(counter: Counter[str]) -> list[str]:
    if len(counter) == 1:
        return list(counter)
    return [f"{text} ({count} run{'s'[: count > 1]})" for text, count in sorted(counter.items())]
