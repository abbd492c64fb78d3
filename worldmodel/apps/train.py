"""Training: online (act, record, update, evaluate, repeat) or offline (from datasets)."""

from pathlib import Path
from typing import Any

from worldmodel.apps.learner import is_offline
from worldmodel.apps.offline import OfflineTraining
from worldmodel.apps.online import OnlineTraining
from worldmodel.apps.training_loop import Training
from worldmodel.training import ALONE, Processes, load_checkpoint


def make_training(run_dir: Path, config: dict[str, Any], processes: Processes = ALONE) -> Training:
    """The training that `config` (`configs/train.yaml` as plain values) asks for, new or resumed.

    The other `processes` are ready to `follow` it. Errors: `ConfigError`, `CheckpointError`, `DatasetError`
    or `EnvError` for a user's mistake; `PeerError` where another process met one.
    """
    has_checkpoint = any((run_dir / "checkpoints").glob("step_*"))
    checkpoint = load_checkpoint(run_dir) if config["resume"] and has_checkpoint else None
    kind = OfflineTraining if is_offline(config) else OnlineTraining
    training = kind(run_dir, config, checkpoint, processes)
    training.lead()
    return training
