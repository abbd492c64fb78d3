"""A batch as rows of bytes, one for each window: the form in which parts of it are handed to processes."""

import json
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.data import Batch


@dataclass(frozen=True)
class Layout:
    """How many windows a batch has, and of each of its tensors: name, dtype, and the shape of a window."""

    batch_size: int
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]

    @property
    def widths(self) -> list[int]:
        """Bytes of a window in each column."""
        return [_dtype(dtype).itemsize * prod(shape) for _, dtype, shape in self.columns]

    @property
    def num_bytes(self) -> int:
        """Bytes of a window."""
        return sum(self.widths)

    def encoded(self) -> bytes:
        """As JSON."""
        return json.dumps([self.batch_size, self.columns]).encode()

    @classmethod
    def decoded(cls, content: bytes) -> "Layout":
        """What was `encoded`."""
        batch_size, columns = json.loads(content)
        return cls(batch_size, tuple((name, dtype, tuple(shape)) for name, dtype, shape in columns))


def layout_of(batch: Batch) -> Layout:
    """The layout of a batch, without its `extra`, from which nothing is learned."""
    columns = [
        (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]))
        for name, tensor in _tensors(batch).items()
    ]
    return Layout(batch.batch_size, tuple(columns))


def packed(batch: Batch, layout: Layout) -> UInt8[Tensor, "batch byte"]:
    """The windows of a batch of this layout. Errors: `ValueError` for one of another."""
    if layout_of(batch) != layout:
        raise ValueError(f"batch of layout {layout_of(batch)}: those before had {layout}")
    rows = [
        tensor.reshape(batch.batch_size, -1).contiguous().view(torch.uint8)
        for tensor in _tensors(batch).values()
    ]
    return torch.cat(rows, dim=1)


def unpacked(rows: UInt8[Tensor, "window byte"], layout: Layout) -> Batch:
    """The batch of some `packed` windows."""
    found = {
        name: part.contiguous().view(_dtype(dtype)).reshape(len(rows), *shape)
        for part, (name, dtype, shape) in zip(rows.split(layout.widths, dim=1), layout.columns, strict=True)
    }
    prefix = "observation."
    observation = {name.removeprefix(prefix): found.pop(name) for name in list(found) if prefix in name}
    return Batch(observation=observation, extra={}, **found)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    observation = {f"observation.{name}": tensor for name, tensor in batch.observation.items()}
    names = ("action", "reward", "terminated", "valid")
    return observation | {name: getattr(batch, name) for name in names}


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
