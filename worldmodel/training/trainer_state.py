"""All that a trainer is made of beside its averaged model: as tensors by name, and numbers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from worldmodel.training.trainer import Trainer


def trainer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, target networks, optimizers and chance, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for target, module in trainer.targets.items():
        tensors |= {f"{target}.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"model.{name}": value.detach() for name, value in trainer.model.named_parameters()}
    for name, optimizer in trainer.optimizers.items():
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{slot}": value for slot, value in slots.items()}
    tensors["generator"] = trainer.generator.get_state()
    return on_cpu(tensors)


def trainer_numbers(trainer: Trainer) -> dict[str, Any]:
    """The rest, as JSON."""
    return {"num_updates": trainer.num_updates, **trainer.numbers()}


def restore_trainer(trainer: Trainer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Go on from there, with a trainer that was just made of the averaged model.

    Errors: `KeyError`, `ValueError`, `RuntimeError` or `TypeError` for what does not fit.
    """
    trainer.generator.set_state(tensors["generator"])
    for target, module in trainer.targets.items():
        module.load_state_dict(_below(f"{target}.", tensors))
    # Its statistics are those of the averaged model, which it was built from.
    trainer.model.load_state_dict(trainer.model.state_dict() | _below("model.", tensors))
    for name, optimizer in trainer.optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}."):
                _, index, slot = key.split(".")
                slots.setdefault(int(index), {})[slot] = value
        _check_slots(optimizer, slots)
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    trainer.num_updates = int(numbers["num_updates"])
    trainer.restore_numbers(numbers)


def _check_slots(optimizer: Optimizer, slots: dict[int, dict[str, Tensor]]) -> None:
    """What an optimizer remembers of each weight has its shape. Errors: `ValueError`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, slot in slots.items():
        if not 0 <= index < len(parameters) or slot.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"weight {index} has the slots {', '.join(sorted(slot))}")
        for name, value in slot.items():
            expected = () if name == "step" else parameters[index].shape
            if value.shape != expected or not value.is_floating_point():
                raise ValueError(f"{name} of weight {index} is {value.dtype}{list(value.shape)}")


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins so, without it. Errors: `KeyError` where there are none."""
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not found:
        raise KeyError(prefix)
    return found
