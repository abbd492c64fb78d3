"""Training in several processes: the first one runs it, the others make its updates with it.

Only the first acts, evaluates, logs and saves, exactly as one alone does. So the others need no simulator and
no run folder: they are told all that they need, and then follow orders.
"""

import json
import signal
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import load, save

from worldmodel.apps.allocation import keep_freed_memory
from worldmodel.apps.build import build_acceleration, build_device
from worldmodel.apps.learner import Learner, is_offline, open_offline
from worldmodel.apps.progress import counted
from worldmodel.apps.run import default_num_threads
from worldmodel.data import EpisodeDataset, TaskDatasets
from worldmodel.errors import DatasetError
from worldmodel.model import WorldModelSize
from worldmodel.training import Order, Processes, TrainerSettings, make_model, make_trainer
from worldmodel.training.checkpoint import generator_state, restored_generator
from worldmodel.training.trainer_state import restore_trainer, trainer_numbers, trainer_tensors

_AVERAGED = "averaged."


def lead(learner: Learner, dataset: EpisodeDataset | TaskDatasets) -> None:
    """Tell the other processes all that they need, and wait until they are ready."""
    trainer = learner.trainer
    processes = trainer.processes
    if processes.count == 1:
        return
    facts = {
        "config": learner.config,
        "size": trainer.model.config(),
        "settings": asdict(trainer.settings),
        "numbers": trainer_numbers(trainer),
        "chance": generator_state(learner.chance),
        "dataset": _told(dataset),
    }
    averaged = {f"{_AVERAGED}{name}": t.cpu() for name, t in trainer.averaged_model.state_dict().items()}
    processes.told(json.dumps(facts).encode())
    processes.told(save(trainer_tensors(trainer) | averaged))
    processes.ready()


def follow(processes: Processes) -> None:
    """Make the updates that the first process orders, to the end.

    Errors: `ConfigError` or `DatasetError` where this process cannot do what the first can.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the first answers them, and then orders the end
        signal.signal(number, signal.SIG_IGN)
    facts = json.loads(processes.told())
    tensors = load(processes.told())
    config = facts["config"]
    torch.set_num_threads(default_num_threads(config["num_threads"], processes.num_local))
    keep_freed_memory()
    device = build_device(config["device"], processes)
    acceleration = build_acceleration(config, device)
    model = make_model(WorldModelSize(**facts["size"]))
    averaged = [name for name in tensors if name.startswith(_AVERAGED)]
    model.load_state_dict({name.removeprefix(_AVERAGED): tensors.pop(name) for name in averaged})
    settings = TrainerSettings(**facts["settings"])
    trainer = make_trainer(model.to(device), settings, seed=0, processes=processes)
    restore_trainer(trainer, tensors, facts["numbers"])
    trainer.accelerate(acceleration)
    learner = Learner(config, trainer, restored_generator(facts["chance"]), device)
    dataset = _opened(config, facts["dataset"], processes)
    processes.ready()
    while (order := processes.next_order()) in (Order.UPDATE, Order.SHARE):
        if order is Order.UPDATE:
            learner.update(dataset)
        else:
            learner.share_statistics()
    if order is Order.INTERRUPT:
        raise KeyboardInterrupt


def _opened(
    config: dict[str, Any], seen_by_first: str, processes: Processes
) -> EpisodeDataset | TaskDatasets | None:
    """The dataset to learn from; none where the first process acts."""
    if not is_offline(config):
        return None
    dataset = open_offline(config, processes)
    if (seen := _told(dataset)) != seen_by_first:
        paths = config["dataset"] or ", ".join(config["datasets"])
        raise DatasetError(
            f"dataset={paths}: process {processes.rank} of {processes.count} sees {seen} there, the first "
            f"one {seen_by_first}: give one that is the same for all, and that nobody writes to"
        )
    return dataset


def _told(dataset: EpisodeDataset | TaskDatasets) -> str:
    return f"{counted(len(dataset), 'episode')} of {counted(dataset.num_steps, 'step')}"
