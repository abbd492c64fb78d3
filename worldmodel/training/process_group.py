"""Several processes that find each other by what a launcher such as torchrun put into their environment."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.errors import PeerError, RunError, one_line
from worldmodel.training.packing import Layout, layout_of, packed, unpacked
from worldmodel.training.processes import Order, Processes

# For what all do at the same time. Nobody waits so long for a living process, but it may hang.
_TIMEOUT = timedelta(minutes=10)
# For an order: the first process may evaluate for hours. Should it die, its connections tell at once.
_PATIENCE = timedelta(days=30)
_REPORT, _INTERRUPTED = "failed", "interrupted"


def join() -> Processes:
    """The processes among which a launcher such as torchrun started this one; one alone without it.

    Errors: `RunError` where the launcher has not said where the first process is.
    """
    alone = "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1"
    processes = Processes() if alone else ProcessGroup()
    processes.is_restarted = _num_restarts() > 0
    return processes


class ProcessGroup(Processes):
    """Several processes; tensors travel by gloo on CPUs, by NCCL on GPUs.

    Errors, of every method: `PeerError` where another process failed, is gone, or does not answer.
    """

    def __init__(self) -> None:
        try:
            store, self.rank, self.count = next(dist.rendezvous("env://", timeout=_TIMEOUT))
            # torchrun keeps one store over all restarts: what stands there of earlier processes is not ours.
            self._store = dist.PrefixStore(f"{_num_restarts()}/{self.count}", store)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.count, timeout=_TIMEOUT
            )
            self._patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except (ValueError, RuntimeError) as error:
            rank, count = os.environ["RANK"], os.environ["WORLD_SIZE"]
            raise RunError(
                f"RANK={rank}, WORLD_SIZE={count}: the processes do not find each other ({one_line(error)}). "
                "Start them with torchrun, or unset both for one alone"
            ) from error
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self.num_local = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        self._layout: Layout | None = None
        self._leads = False

    @torch.compiler.disable  # a compiled function is cut in two here
    def mean(self, x: Tensor) -> Tensor:
        """Mean over the processes; its gradient is the mean of theirs."""
        return _Mean.apply(x, self)

    def variance(self, rows: Tensor) -> Tensor:
        """Unbiased variance of each column, over the rows of all processes, with its gradient."""
        centred = rows - self.mean(rows.mean(0))
        return self.mean(centred.square().sum(0)) / (len(rows) - 1 / self.count)

    @torch.compiler.disable
    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of the batch, without a gradient."""
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with self._together():
            dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the mean of the gradients that the processes found."""
        # All in one message: models of this project are small, so latency is what costs.
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.averaged(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def averaged(self, x: Tensor) -> Tensor:
        """The mean over the processes as a new tensor, without a gradient."""
        total = x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True).contiguous()
        with self._together():
            dist.all_reduce(total)
        return (total / self.count).to(x.dtype)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        with self._together():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def scattered(self, batch: Batch | None) -> Batch:
        """This process's part of a batch that the first one has, and the others do not (None)."""
        if self._layout is None:  # the same for every batch of a run
            layout = None if batch is None else layout_of(batch).encoded()
            self._layout = Layout.decoded(self.told(layout))
        rows = None if batch is None else packed(batch, self._layout)
        size = self._layout.batch_size // self.count
        mine = torch.empty(size, self._layout.num_bytes, dtype=torch.uint8)
        with self._together():
            dist.scatter(mine, None if rows is None else list(rows.split(size)), src=0)
        return unpacked(mine, self._layout)

    def told(self, content: bytes | None = None) -> bytes:
        """What the first process has to tell, on every one."""
        length = torch.tensor([0 if content is None else len(content)])
        with self._together():
            dist.broadcast(length, src=0, group=self._patient)
            said = torch.empty(int(length), dtype=torch.uint8)
            if content is not None:
                said = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(said, src=0, group=self._patient)
        return said.numpy().tobytes()

    def ready(self) -> None:
        """Wait for all; from here on the others follow orders."""
        with self._together():
            dist.barrier(group=self._patient)
        self._leads = self.is_first

    def order(self, order: Order) -> None:
        """Tell the others what to do next."""
        with self._together():
            dist.broadcast(torch.tensor([int(order)]), src=0, group=self._patient)

    def next_order(self) -> Order:
        """Wait for what to do next, however long it takes."""
        order = torch.zeros(1, dtype=torch.int64)
        with self._together():
            dist.broadcast(order, src=0, group=self._patient)
        return Order(int(order))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the others end, too, and know why."""
        if self._leads and (error is None or isinstance(error, KeyboardInterrupt)):
            self.order(Order.FINISH if error is None else Order.INTERRUPT)
        elif error is not None and not isinstance(error, PeerError):
            why = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else one_line(error)
            with suppress(RuntimeError):  # the store may have been with one that is gone
                # They notice that this one is gone, and look here.
                self._store.compare_set(_REPORT, "", f"{self.rank} {why}")
        if error is None or not torch.cuda.is_available():
            # A thread of gloo that outlives this would abort the process at its end. NCCL would wait for
            # those that failed.
            dist.destroy_process_group()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around what all must do; tells what became of the one that does not."""
        try:
            yield
        except RuntimeError as error:  # of gloo and NCCL, for whatever happened
            raise self._peer_error(error) from error

    def _peer_error(self, error: RuntimeError) -> BaseException:
        try:
            report = self._store.get(_REPORT).decode() if self._store.check([_REPORT]) else ""
        except RuntimeError:  # the store was with the one that is gone
            report = ""
        rank, _, why = report.partition(" ")
        if why == _INTERRUPTED:
            return KeyboardInterrupt()
        if report:
            return PeerError(f"process {rank} of {self.count} failed: {why}")
        if "imed out" in str(error):
            return PeerError(
                f"one of the {self.count} processes does not answer for {_TIMEOUT.seconds // 60} minutes: it "
                "hangs, or is far slower than this one"
            )
        return PeerError(
            f"one of the {self.count} processes is gone without a word: killed, or short of memory "
            f"({one_line(error)[:200]})"
        )


class _Mean(torch.autograd.Function):
    """See `Processes.mean`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return group.averaged(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.group.averaged(gradients[0]), None


def _num_restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
