"""What several processes compute together: run as a script in each, or called by one that is alone.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python together.py FOLDER CASE ...
"""

import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from made_linear import linear_batch, linear_dataset
from safetensors.torch import save_file

from worldmodel.data import Batch
from worldmodel.errors import DatasetError, WorldModelError
from worldmodel.model import Acceleration, WorldModelSize
from worldmodel.training import (
    Order,
    Processes,
    TrainerSettings,
    join,
    load_checkpoint,
    losses,
    make_model,
    make_trainer,
    regularizers,
    save_checkpoint,
)
from worldmodel.training.packing import layout_of

BATCH, WINDOW, NUM_UPDATES, SEED = 16, 4, 4, 3
SMALL = {
    "state_dim": 3,
    "action_dim": 2,
    "latent_dim": 8,
    "hidden_dim": 16,
    "encoder_dim": 16,
    "num_bins": 21,
}
JEPA = {"latent_norm": "none", "predicts_return": False}
FAST = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3, "average_fraction": 0.1}
SIGREG = {"sigreg_coefficient": 0.1, "inverse_coefficient": 0.1}
VICREG = {"variance_coefficient": 1.0, "covariance_coefficient": 0.1, "inverse_coefficient": 1.0}
PIXELS = {"state_dim": 0, "observes": ("pixels",), "image_size": 16}

# Of each trainer: what its model is, and what it is trained for.
TRAINERS: dict[str, tuple[dict, dict]] = {
    "sigreg": (JEPA | {"history": 2}, SIGREG | {"rho": 0.7}),
    "vicreg": (JEPA | {"num_dynamics": 2}, VICREG),
    "average": (JEPA, SIGREG | {"predicts_average": True, "target_rate": 0.1}),
    "random": (JEPA | PIXELS, SIGREG | {"random_target_coefficient": 0.5, "hue_jitter": 1.0}),
    "straight": (JEPA, SIGREG | {"straightening_coefficient": 0.1}),
    "hues": (JEPA | PIXELS, SIGREG | {"hue_jitter": 1.0}),
    "returns": ({"predicts_continuation": True, "num_q": 3}, {"num_td_steps": 2, "policy_every": 2}),
    "joint": (
        {"latent_norm": "none", "history": 2, "predicts_action": True},
        VICREG | {"jepa_coefficient": 1.0},
    ),
}


def made_trainer(name: str, processes: Processes):
    sizes, settings = TRAINERS[name]
    torch.manual_seed(0)
    model = make_model(WorldModelSize(**(SMALL | sizes)))
    with torch.no_grad():  # zero heads have no gradient to differ in
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    trainer_settings = TrainerSettings(**(FAST | settings))
    return make_trainer(model, trainer_settings, seed=SEED, processes=processes)


def part_of_batch(trainer, seed: int) -> Batch:
    """Windows that are padded, and not alike in every part; drawn as training draws them."""
    processes = trainer.processes
    dataset = linear_dataset(num_steps=6)
    chance = np.random.default_rng(seed)
    batch = dataset.sample(BATCH, trainer.window, chance, part=processes.part(BATCH))
    if "pixels" in trainer.model.size.observes:
        chance = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (BATCH, trainer.window + 1, 3, 16, 16), generator=chance)
        batch.observation["pixels"] = processes.cut(images.to(torch.uint8))
    return batch


def trained(trainer, seeds: Iterable[int]) -> dict[str, torch.Tensor]:
    """Metrics of the whole batch after each update; then all weights."""
    found = {}
    for seed in seeds:
        batch = part_of_batch(trainer, seed)
        metrics = trainer.update(batch) | trainer.diagnose(batch)
        found |= {f"{seed}.{name}": trainer.processes.mean(value) for name, value in metrics.items()}
    found |= {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    found |= {f"averaged.{name}": value for name, value in trainer.averaged_model.state_dict().items()}
    found |= {name: torch.tensor(value) for name, value in trainer.numbers().items()}
    return {name: value.detach().clone() for name, value in found.items()}


def trainer_case(name: str) -> Callable[[Processes, Path], dict[str, torch.Tensor]]:
    return lambda processes, folder: trained(made_trainer(name, processes), range(NUM_UPDATES))


def compiled(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """What torch.compile makes of the losses, short of machine code, which would take minutes."""
    compile_whole = torch.compile
    torch.compile = functools.partial(compile_whole, backend="aot_eager")
    try:
        trainer = made_trainer("sigreg", processes)
        trainer.accelerate(Acceleration(is_compiled=True))
        return trained(trainer, range(NUM_UPDATES))
    finally:
        torch.compile = compile_whole


def every_loss(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """Each loss that looks at a batch, and its gradient."""
    chance = torch.Generator().manual_seed(0)
    embeddings = 0.3 + 0.8 * torch.randn(BATCH, WINDOW, 5, generator=chance)
    directions = regularizers.random_directions(7, 5, chance)
    weights = losses.step_weights(linear_batch(WINDOW, BATCH).valid, 0.7)
    mine = processes.cut(weights)
    found = {}
    for name, loss in {
        "sigreg": lambda x: regularizers.sigreg(x.transpose(0, 1), directions, processes),
        "variance": lambda x: regularizers.variance_loss(x.flatten(0, 1), processes),
        "covariance": lambda x: regularizers.covariance_loss(x.flatten(0, 1), processes),
        "weighted": lambda x: losses.weighted_mean(x.square().sum(-1), mine, processes.mean(mine.sum())),
    }.items():
        part = processes.cut(embeddings).clone().requires_grad_()
        value = loss(part)
        value.backward()
        found[name] = processes.mean(value).detach()
        # The loss of a process counts 1 / count.
        found[f"{name}.gradient"] = processes.gathered(part.grad) / processes.count
    return found


def handed_out(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """What only the first process has reaches all: batches, tensors, words and orders."""
    found = {}
    for seed in range(2):
        batch = linear_batch(WINDOW, BATCH, seed=seed)
        part = processes.scattered(batch if processes.is_first else None)
        assert layout_of(part).columns == layout_of(batch).columns
        tensors = vars(part) | part.observation
        for name in ("state", "action", "reward", "terminated", "valid"):
            found[f"{seed}.{name}"] = processes.gathered(tensors[name].float())
    tensors = [torch.full((2,), float(processes.rank)), torch.tensor([processes.rank])]
    processes.share(tensors)
    found |= {"shared": tensors[0], "shared integers": tensors[1]}
    said = processes.told(b"from the first" if processes.is_first else None)
    found["told"] = torch.tensor(list(said))
    if processes.is_first:
        processes.order(Order.SHARE)
    elif processes.count > 1:
        assert processes.next_order() is Order.SHARE
    return found


def half(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The first half of the updates, into a checkpoint."""
    trainer = made_trainer("returns", processes)
    trained(trainer, range(NUM_UPDATES // 2))
    if processes.is_first:
        save_checkpoint(folder, trainer, {"env_steps": 0})
    return {}


def other_half(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The rest of them, from there."""
    trainer = load_checkpoint(folder).trainer(processes)
    return trained(trainer, range(NUM_UPDATES // 2, NUM_UPDATES))


def one_fails(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The second one in the middle, while the others wait for it."""
    trainer = made_trainer("sigreg", processes)
    trained(trainer, range(2))
    if processes.rank == 1:
        raise DatasetError("shard 7 is damaged")
    return trained(trainer, range(2, NUM_UPDATES))


def one_hangs(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The second one, until the test ends it; the other has little patience (`main`)."""
    if processes.rank == 1:
        time.sleep(600)
    processes.share([torch.zeros(1)])
    return {}


def impatient(start: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """`dist.init_process_group`, so that nobody is waited for longer than a few seconds."""
    start(*args, **kwargs | {"timeout": timedelta(seconds=3)})


CASES: dict[str, Callable[[Processes, Path], dict[str, torch.Tensor]]] = {
    name: trainer_case(name) for name in TRAINERS
} | {
    each.__name__: each for each in (every_loss, compiled, handed_out, half, other_half, one_fails, one_hangs)
}


def start_together(folder: Path, *cases: str, count: int = 2) -> list[subprocess.Popen]:
    """So many processes, each of which runs the cases."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), *cases],
            env=os.environ | world | {"RANK": str(rank), "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def main(folder: Path, cases: list[str]) -> int:
    torch.set_num_threads(1)
    if cases == ["one_hangs"]:
        dist.init_process_group = functools.partial(impatient, dist.init_process_group)
    try:
        with join() as processes:
            for case in cases:
                found = {name: value.contiguous() for name, value in CASES[case](processes, folder).items()}
                save_file(found, folder / f"{case}.{processes.rank}")
    except WorldModelError as error:
        print(f"{type(error).__name__}: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
