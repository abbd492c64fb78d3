"""Time that can be compared: processor time beside wall time, contenders take turns, the matmul floor."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """What one call took: processor time of all threads of this process, and time on the wall."""

    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        low, median, high = np.percentile(np.asarray(values), [25, 50, 75])
        return cls(float(median), float(low), float(high))


def synchronize(device: torch.device) -> None:
    """Wait for what was launched: an accelerator's calls return before their work is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(work: Work, device: torch.device, calls: int = 1) -> Sample:
    """Mean over `calls` calls in a row."""
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        work()
    synchronize(device)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(cpu * 1e3 / calls, wall * 1e3 / calls)


def take_turns(
    works: Mapping[str, Work],
    device: torch.device,
    *,
    repeats: int,
    calls: int = 1,
    seed: int = 0,
    after_each: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Sample]]:
    """Time each of `works` `repeats` times, one after the other in an order that changes from round to round.

    A machine that is slow for a while is then slow for all of them. The first call of each is not counted.
    """
    names, order = list(works), random.Random(seed)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for work in works.values():
        work()
    for _ in range(repeats):
        order.shuffle(names)
        for name in names:
            samples[name].append(timed(works[name], device, calls))
            after_each(name)
    return {name: samples[name] for name in works}


class MatrixProducts(TorchDispatchMode):
    """Writes down the shape of every matrix product in its block.

    with MatrixProducts() as products: ...
    floor = products.bare(device)      # the same products and nothing else, to be timed
    products.gflop
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().partition(".")[0].removeprefix("aten::")
        if name in ("mm", "bmm"):
            self.shapes.append((tuple(args[0].shape), tuple(args[1].shape)))
        elif name in ("addmm", "baddbmm"):
            self.shapes.append((tuple(args[1].shape), tuple(args[2].shape)))
        return func(*args, **(kwargs or {}))

    @property
    def gflop(self) -> float:
        """Multiplications and additions, in 1e9."""
        return sum(2 * float(np.prod(a)) * b[-1] for a, b in self.shapes) / 1e9

    def bare(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Work:
        """The same products in the same order, from memory that is there already."""
        memory = {
            (a, b): (
                torch.randn(a, device=device, dtype=dtype),
                torch.randn(b, device=device, dtype=dtype),
                torch.empty((*a[:-1], b[-1]), device=device, dtype=dtype),
            )
            for a, b in set(self.shapes)
        }
        sequence = [
            (*memory[shapes], torch.mm if len(shapes[0]) == 2 else torch.bmm) for shapes in self.shapes
        ]

        def work() -> None:
            for a, b, out, product in sequence:
                product(a, b, out=out)

        return work
