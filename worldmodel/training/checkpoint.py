"""Checkpoints: all that is needed to act or to go on training, as safetensors and JSON.

A checkpoint is a directory `step_<env steps>` with `model.safetensors`, `trainer.safetensors` (optimizers,
target network, chance) and `state.json`. It appears in one rename, so it is whole or not there. Nothing in
it is executed on loading. An exported model is the same without its trainer: smaller, and made to act.
"""

import copy
import platform
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldmodel.errors import CheckpointError, one_line
from worldmodel.files import TEMPORARY_PREFIX, committed_directory, sha256
from worldmodel.model import LatentModel, WorldModelSize
from worldmodel.training.checkpoint_state import (
    FORMAT,
    STATE_FILE,
    built,
    model_of,
    read_state,
    write_state,
)
from worldmodel.training.kinds import make_trainer
from worldmodel.training.processes import ALONE, Processes
from worldmodel.training.settings import TrainerSettings
from worldmodel.training.trainer import Trainer
from worldmodel.training.trainer_state import on_cpu, restore_trainer, trainer_numbers, trainer_tensors

MODEL_FILE, TRAINER_FILE = "model.safetensors", "trainer.safetensors"
# A second checkpoint of the same step stands beside the first until that is gone.
_NAME, _REPLACEMENT = re.compile(r"step_(\d+)(-new)?"), "-new"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What `load_checkpoint` gives: the model that is used (the averaged one), and a way to its trainer."""

    path: Path
    model: LatentModel
    info: dict[str, Any]
    state: dict[str, Any]

    @property
    def is_exported(self) -> bool:
        """Whether it is a model without its trainer (`export_model`)."""
        return TRAINER_FILE not in self.state["files"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's weights: what was made for them belongs to no others."""
        return str(self.state["files"][MODEL_FILE])

    @property
    def settings(self) -> TrainerSettings:
        """What it was trained with. Errors: `CheckpointError` for settings that make no sense."""
        settings: TrainerSettings = built(TrainerSettings, self.state["settings"], self.path)
        return settings

    def trainer(self, processes: Processes = ALONE) -> Trainer:
        """The trainer exactly as it was saved, by however many processes.

        Errors: `CheckpointError` for damaged files, or none.
        """
        if self.is_exported:
            raise CheckpointError(
                f"{self.path} is an exported model, without its trainer: it acts, but training cannot go on"
            )
        trainer = make_trainer(copy.deepcopy(self.model), self.settings, seed=0, processes=processes)
        tensors = _load_tensors(self.path, TRAINER_FILE, self.state)
        try:
            restore_trainer(trainer, tensors, self.state["trainer"])
        except (KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
            raise CheckpointError(
                f"{self.path / TRAINER_FILE} does not fit its model: {one_line(error)}"
            ) from error
        return trainer


def save_checkpoint(directory: Path, trainer: Trainer, info: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `directory/step_<info["env_steps"]>` and remove all but the newest `keep` checkpoints.

    `info` is JSON that the caller wants back (task, configuration, counters, states of its generators).
    An older checkpoint, also one of the same step, goes only after the new one is on the disk. A directory
    has one writer: what an earlier one left half written is swept away.
    Errors: `CheckpointError` where the disk is full or not writable; earlier checkpoints stay.
    """
    path = directory / f"step_{info['env_steps']:09d}"
    try:
        for debris in directory.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(debris, ignore_errors=True)
        _finish_replacement(path)
        with committed_directory(_replacement(path) if path.exists() else path) as temporary:
            save_file(on_cpu(trainer.averaged_model.state_dict()), temporary / MODEL_FILE)
            save_file(trainer_tensors(trainer), temporary / TRAINER_FILE)
            state = {
                "format": FORMAT,
                "size": trainer.model.config(),
                "settings": asdict(trainer.settings),
                "trainer": trainer_numbers(trainer),
                "versions": {name: version(name) for name in ("torch", "numpy", "mujoco", "gymnasium")}
                | {"python": platform.python_version()},
                "info": info,
            }
            write_state(temporary, state, (MODEL_FILE, TRAINER_FILE))
        _finish_replacement(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write checkpoint {path}: {one_line(error)}; earlier checkpoints are untouched. "
            "Where the disk is full, free some space; where it is read-only, change its permissions; then "
            "resume the run"
        ) from error
    others = [other for other in _complete(directory) if other != path]
    for old in others[: max(0, len(others) + 1 - keep)]:
        with suppress(OSError):  # it stays, and the next save tries again
            _remove(old)
    return path


def export_model(checkpoint: Checkpoint, directory: Path, info: dict[str, Any]) -> None:
    """Write the model alone into a folder that exists, with `info` in place of the checkpoint's own."""
    save_file(on_cpu(checkpoint.model.state_dict()), directory / MODEL_FILE)
    (directory / MODEL_FILE).chmod(0o644)  # for others; safetensors writes for the owner alone
    kept = {name: checkpoint.state[name] for name in ("format", "size", "settings", "versions")}
    write_state(directory, kept | {"info": info}, (MODEL_FILE,))


def find_checkpoint(path: str | Path) -> Path:
    """Newest checkpoint of a run folder, or the checkpoint itself where `path` is one.

    Errors: `CheckpointError` that says what is there instead.
    """
    path = Path(path)
    if (path / STATE_FILE).is_file():
        return path
    for directory in (path / "checkpoints", path):
        if complete := _complete(directory):
            return complete[-1]
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
        there = f"; {path.parent}/ holds: {', '.join(beside[:8])}" if beside else ""
        raise CheckpointError(f"no checkpoint at {path}: there is no such folder{there}")
    raise CheckpointError(
        f"no checkpoint in {path}: expected step_*/{STATE_FILE}, as `worldmodel train` writes it"
    )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint (see `find_checkpoint`), and build its model on the CPU.

    Errors: `CheckpointError` for a missing, truncated, altered or foreign one.
    """
    path = find_checkpoint(path)
    state = read_state(path, _way_out(path))
    tensors = _load_tensors(path, MODEL_FILE, state)
    model = model_of(built(WorldModelSize, state["size"], path), tensors, path / MODEL_FILE)
    return Checkpoint(path=path, model=model, info=state["info"], state=state)


def _load_tensors(path: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    file = path / name
    try:
        if sha256(file) != state["files"][name]:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 differs from the one in {STATE_FILE}{_way_out(path)}"
            )
        return load_file(file)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {file}: {one_line(error)}{_way_out(path)}") from error


def _complete(directory: Path) -> list[Path]:
    """Checkpoints of a directory, oldest first."""
    found = [
        (int(name[1]), path.name, path)
        for path in directory.glob("step_*")
        if (name := _NAME.fullmatch(path.name)) and (path / STATE_FILE).is_file()
    ]
    return [path for _, _, path in sorted(found)]


def _replacement(path: Path) -> Path:
    return path.with_name(path.name + _REPLACEMENT)


def _finish_replacement(path: Path) -> None:
    """Give a committed replacement its final name; at every moment one of the two is whole."""
    if _replacement(path).exists():
        if path.exists():
            _remove(path)
        _replacement(path).rename(path)


def _remove(path: Path) -> None:
    """Out of sight in one rename, so that nobody finds half of it."""
    aside = path.with_name(TEMPORARY_PREFIX + path.name)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _way_out(path: Path) -> str:
    others = [other for other in _complete(path.parent) if other != path]
    if others:
        return f". Use another checkpoint: {others[-1]}"
    return ". There is no other checkpoint beside it: restore it from a copy, or train again"


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """A numpy generator's state as JSON."""
    return dict(generator.bit_generator.state)


def restored_generator(state: Any) -> np.random.Generator:
    """The generator of `generator_state`. Errors: `CheckpointError` for what is no state of one."""
    generator = np.random.default_rng()
    try:
        generator.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise CheckpointError(f"the state of a generator is damaged: {one_line(error)}") from error
    return generator
