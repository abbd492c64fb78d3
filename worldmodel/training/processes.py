"""The processes that train one model together, each on its part of every batch (data parallelism).

A batch is drawn once, whatever the number of processes, and cut into parts of one size. Each process computes
the loss of its part; what is not linear in the windows of a batch (its spread, its quantiles) is asked of the
whole batch. So N processes do what one does, to rounding, and a run may go on with any number of them.

The first process runs the training: it acts, evaluates and saves. The others follow its orders (`Order`).
"""

from collections.abc import Iterable
from enum import IntEnum
from types import TracebackType

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.data import Batch
from worldmodel.errors import ConfigError


class Order(IntEnum):
    """What the first process wants of the others next."""

    UPDATE = 1
    SHARE = 2  # take over the statistics of observations
    FINISH = 3
    INTERRUPT = 4


class Processes:
    """Those that train one model together. This class: one alone, whose part of a batch is the whole.

    The loss of a process counts 1 / `count`: a mean over windows that is linear in them needs nothing but
    `average_gradients`. Where the loss is not linear, `mean` makes a mean over a part one over the whole
    batch, for values and gradients.

    - `rank`: which one this is; 0 is the first.
    - `local_rank`, `num_local`: which one on this machine, and how many there are on it.
    - `is_restarted`: whether a launcher started them again, after one had failed.
    """

    rank, count = 0, 1
    local_rank, num_local = 0, 1
    is_restarted = False

    @property
    def is_first(self) -> bool:
        """Whether this one runs the training, and alone writes."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """Which windows of a batch are this process's. Errors: `ConfigError` where they cannot share it."""
        size, rest = divmod(batch_size, self.count)
        if rest or not size:
            nearest = max(1, round(batch_size / self.count)) * self.count
            raise ConfigError(
                f"training.batch_size={batch_size}: {self.count} processes must share a batch evenly; give "
                f"training.batch_size={nearest}, or start as many processes as divide it"
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def cut(self, whole: Tensor) -> Tensor:
        """The rows of a whole batch that are this process's."""
        return whole[self.part(len(whole))]

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the processes; its gradient is the mean of theirs."""
        return x

    def variance(self, rows: Float[Tensor, "row dim"]) -> Float[Tensor, " dim"]:
        """Unbiased variance of each column, over the rows of all processes, with its gradient."""
        return rows.var(0)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of the batch, without a gradient."""
        return rows

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the mean of the gradients that the processes found."""

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""

    def scattered(self, batch: Batch | None) -> Batch:
        """This process's part of a batch that the first one has, and the others do not (None)."""
        assert batch is not None
        return batch

    def told(self, content: bytes | None = None) -> bytes:
        """What the first process has to tell, on every one."""
        assert content is not None
        return content

    def ready(self) -> None:
        """Wait for all; from here on the others follow orders."""

    def order(self, order: Order) -> None:
        """Tell the others what to do next."""

    def next_order(self) -> Order:
        """Wait for what to do next; one that is alone has nothing to wait for."""
        return Order.FINISH

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the others end, too, and know why."""


ALONE = Processes()
