"""Ways to compute the same in less time: fused operations, and narrower matrix products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Function = TypeVar("Function", bound=Callable[..., object])

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """How functions of the model's tensors are computed.

    - `is_compiled`: `torch.compile` fuses their many small operations, anew for each shape of arguments; on a
      GPU it also replays them as one CUDA graph.
    - `precision`: of matrix products. With bfloat16 weights, losses and what the model returns stay float32.
    """

    is_compiled: bool = False
    precision: torch.dtype = torch.float32

    def of(self, function: Function, device: torch.device) -> Function:
        """`function`, accelerated; its results are the same to rounding."""
        accelerated: Callable[..., object] = function
        if self.precision != torch.float32:
            accelerated = torch.autocast(
                device.type,
                dtype=self.precision,
                cache_enabled=False,  # a weight cast under no_grad would keep its gradient away from the rest
            )(function)
        if not self.is_compiled:
            return cast(Function, accelerated)
        if device.type != "cuda":
            return cast(Function, torch.compile(accelerated, dynamic=False))
        replayed = torch.compile(accelerated, dynamic=False, mode="reduce-overhead")

        def cloned(*args: object, **kwargs: object) -> object:
            # The next replay writes into the same memory.
            return tree_map_only(Tensor, Tensor.clone, replayed(*args, **kwargs))

        return cast(Function, cloned)
