"""Ways to compute the same in less time: fused operations, narrower matrix products, recorded launches."""

from collections.abc import Callable, Sequence
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
      GPU they are also launched together, as one CUDA graph.
    - `precision`: of matrix products. With bfloat16 weights, losses and what the model returns stay float32.
    """

    is_compiled: bool = False
    precision: torch.dtype = torch.float32

    def of(self, function: Function, device: torch.device) -> Function:
        """`function`, accelerated; its results are the same to rounding."""
        if not self.is_compiled or device.type != "cuda":
            return self.fused(function, device)
        replayed = torch.compile(self._narrow(function, device), dynamic=False, mode="reduce-overhead")

        def cloned(*args: object, **kwargs: object) -> object:
            # The next replay writes into the same memory.
            return tree_map_only(Tensor, Tensor.clone, replayed(*args, **kwargs))

        return cast(Function, cloned)

    def fused(self, function: Function, device: torch.device) -> Function:
        """The same without a graph of its own: for what is part of something `recorded`."""
        narrow = self._narrow(function, device)
        return cast(Function, torch.compile(narrow, dynamic=False)) if self.is_compiled else narrow

    def records(self, device: torch.device) -> bool:
        """Whether whole decisions are worth being `Recorded`."""
        return self.is_compiled and device.type == "cuda"

    def _narrow(self, function: Function, device: torch.device) -> Function:
        if self.precision == torch.float32:
            return function
        narrow = torch.autocast(
            device.type,
            dtype=self.precision,
            cache_enabled=False,  # a weight cast under no_grad would keep its gradient away from the rest
        )(function)
        return cast(Function, narrow)


class Recorded:
    """A function of tensors, compiled whole, recorded for each shape of them, replayed as one CUDA graph.

    Hundreds of small kernels then start as fast as the GPU runs them, where Python starts each in 5 to 10
    microseconds. The function must do the same work whatever the numbers, wait for none of them, draw nothing
    and use tensors of that GPU alone. What else it reads (weights) may change in place between calls.
    Elsewhere than on a GPU it is called as it is.
    """

    _WARM_UP = 3  # calls that compile, and allocate what stays
    _MOST_COMPILED = 256  # functions and shapes; torch's own limit of 8 is soon met, and silently gives up

    def __init__(self, function: Callable[..., Sequence[Tensor]]) -> None:
        self._function = function
        self._graphs: dict[tuple[object, ...], _Graph] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Its results, which are the caller's own."""
        if inputs[0].device.type != "cuda":
            return tuple(self._function(*inputs))
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._record(inputs)
        return self._graphs[shapes].replay(inputs)

    def _record(self, inputs: Sequence[Tensor]) -> "_Graph":
        mine = [tensor.clone() for tensor in inputs]
        torch._dynamo.config.recompile_limit = self._MOST_COMPILED
        whole = torch.compile(self._function, dynamic=False, fullgraph=True)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(self._WARM_UP):
                whole(*mine)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = whole(*mine)
        return _Graph(graph, mine, outputs)


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        torch._foreach_copy_(list(self.inputs), list(inputs))
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)
