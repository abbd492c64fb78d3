"""How far a run was when a checkpoint was made: what it tells, checked before training goes on from it."""

from typing import Any

from worldmodel.errors import CheckpointError
from worldmodel.training import Checkpoint

_COUNTS = ("env_steps", "num_episodes", "evaluated_at")
_SECONDS = ("training_seconds", "training_cpu_seconds", "update_cpu_seconds")
_MOST = 2**53  # up to which a float counts


def progress_of(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The counters, and the states of generators; of a run that begins, none, and counters of 0.

    Errors: `CheckpointError` for what no run has come to.
    """
    info = {} if checkpoint is None else checkpoint.info
    found = {name: info.get(name, 0) for name in _COUNTS} | {name: info.get(name, 0.0) for name in _SECONDS}
    for name, value in found.items():
        kinds = int if name in _COUNTS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < _MOST:
            assert checkpoint is not None
            raise CheckpointError(f"{checkpoint.path} says {name}={str(value)[:40]}, which no run comes to")
    return found | {name: info.get(name) for name in ("sampling_state", "agent_state")}
