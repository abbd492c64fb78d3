"""What a checkpoint's `state.json` must hold, and whether its weights are those of the model it describes.

A checkpoint may come from anywhere: its digests show damage, not malice. So nothing here is believed before
it is checked, and no memory is taken that the files beside it do not fill.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldmodel.errors import CheckpointError, ConfigError, one_line
from worldmodel.files import sha256
from worldmodel.model import MAX_IMAGE_SIZE, LatentModel, WorldModelSize
from worldmodel.training.kinds import make_model

FORMAT = 3  # 1: rewards and values were means on the symlog scale; 2: no averaged weights
STATE_FILE = "state.json"
_MAX_BYTES = 2**26  # an angle or a generator takes some bytes; a configuration a few kB
_OBJECTS = ("size", "settings", "files", "info")  # and "trainer", unless it was exported


def write_state(directory: Path, state: dict[str, Any], files: tuple[str, ...]) -> None:
    """Write `state.json`, with the digests of these files and its own."""
    state = state | {"files": {name: sha256(directory / name) for name in files}}
    text = json.dumps(state | {"digest": _digest(state)}, indent=2)
    (directory / STATE_FILE).write_text(text + "\n")


def read_state(path: Path, way_out: str) -> dict[str, Any]:
    """What `state.json` of a checkpoint holds. Errors: `CheckpointError`, which ends in `way_out`."""
    file = path / STATE_FILE
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        state = json.loads(content)
        if not isinstance(state, dict) or "format" not in state:
            raise ValueError("it is not a checkpoint's state")
        digest = _digest(state)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {file}: {one_line(error)}{way_out}") from error
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {str(state['format'])[:40]}, this version reads {FORMAT}: "
            "use the worldmodel version that wrote it"
        )
    if state.get("digest") != digest:
        raise CheckpointError(f"{file} was altered: its digest does not match{way_out}")
    for name in _OBJECTS:
        if not isinstance(state.get(name), dict):
            raise CheckpointError(f"{file} has no {name!r}, which every checkpoint has{way_out}")
    return state


def built(kind: Any, values: dict[str, Any], path: Path) -> Any:
    """A settings dataclass from JSON; nothing is called by name. Errors: `CheckpointError`."""
    file = path / STATE_FILE
    if unknown := sorted(set(values) - {field.name for field in fields(kind)}):
        raise CheckpointError(f"{file} holds settings that this version does not know: {', '.join(unknown)}")
    for field in fields(kind):
        value = values.get(field.name, field.default)
        if type(field.default) in (bool, int, float) and not _is_like(value, field.default):
            raise CheckpointError(
                f"{file} holds settings that make no sense: {field.name}={str(value)[:40]!r}"
            )
    try:
        return kind(**values)
    except (TypeError, ValueError, OverflowError, ConfigError) as error:
        raise CheckpointError(f"{file} holds settings that make no sense: {one_line(error)}") from error


def model_of(size: WorldModelSize, tensors: Mapping[str, Tensor], file: Path) -> LatentModel:
    """The model of this size with these weights, from `file`. Errors: `CheckpointError` where they differ.

    It is drawn up without memory first: sizes that the weights do not have are told before any is taken.
    """
    try:
        _check_sizes(size, tensors)
        with torch.device("meta"):
            expected = {name: value.shape for name, value in make_model(size).state_dict().items()}
        found = {name: value.shape for name, value in tensors.items()}
        if found != expected:
            name = min(name for name in found | expected if found.get(name) != expected.get(name))
            raise ValueError(
                f"{name} has the shape {_told(found.get(name))}, and its size asks for "
                f"{_told(expected.get(name))}"
            )
        model = make_model(size)
        model.load_state_dict(dict(tensors))
        return model
    except (RuntimeError, ValueError, TypeError, OverflowError, ArithmeticError) as error:
        raise CheckpointError(f"{file} does not fit its own size: {one_line(error)}") from error


def _check_sizes(size: WorldModelSize, tensors: Mapping[str, Tensor]) -> None:
    """Each layer has a tensor, and each number of a size a weight: none can be larger than there are."""
    num_weights = sum(value.numel() for value in tensors.values())
    if len(size.tasks) > len(tensors):
        raise ValueError(f"it is of {len(size.tasks)} tasks, which these weights cannot be of")
    for name, value in vars(size).items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        most = {"num_encoder_layers": len(tensors), "image_size": MAX_IMAGE_SIZE}.get(name, num_weights)
        if value > most:
            raise ValueError(f"{name} is {value}, which these weights cannot be of")


def _told(shape: torch.Size | None) -> str:
    return "(none)" if shape is None else str(list(shape))


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the type of the default; a whole number will do for any number."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(default, float) else int)


def _digest(state: dict[str, Any]) -> str:
    # Through JSON, as on loading: its keys are strings, which sort otherwise than numbers do.
    content = json.loads(json.dumps({key: value for key, value in state.items() if key != "digest"}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
