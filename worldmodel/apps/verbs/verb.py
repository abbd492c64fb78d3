"""What a verb of the console script is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One application: what it does, how it is called, and how it is run."""

    summary: str
    examples: tuple[str, ...]
    run: Callable[[dict[str, Any], set[str]], None]
    # What some overrides imply, as overrides that stand before them.
    implied: Callable[[Sequence[str]], list[str]] = lambda overrides: []
    # The words of the command line as overrides: some verbs take more than these.
    overrides_of: Callable[[Sequence[str]], list[str]] = list
    # Whether torchrun may start it in several processes at once, which then work together.
    runs_in_processes: bool = False
