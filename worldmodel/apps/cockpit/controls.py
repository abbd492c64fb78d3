"""How the page's controls are made, and how what a person does to them reaches the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worldmodel.apps.cockpit.loop import Command, Loop

if TYPE_CHECKING:
    import viser


class Controls:
    """Makes controls in the GUI container that is open."""

    def __init__(self, server: viser.ViserServer, loop: Loop) -> None:
        self.gui, self.loop = server.gui, loop

    def slider(
        self,
        label: str,
        bounds: tuple[int | float, int | float],
        value: int | float,
        hint: str,
        *,
        step: int | float,
        disabled: bool = False,
    ) -> Any:
        """A slider with its tooltip."""
        low, high = bounds
        return self.gui.add_slider(
            label, min=low, max=high, step=step, initial_value=value, hint=hint, disabled=disabled
        )

    def when(self, handle: Any, act: Callable[[Any], object]) -> None:
        """Do this with the value to which a person sets it; not where the page itself does."""

        @handle.on_update
        def _(event: Any) -> None:
            value = handle.value
            if event.client is not None and not (isinstance(value, float) and not math.isfinite(value)):
                act(value)

    def when_do(self, handle: Any, command: Callable[[Any], Command]) -> None:
        """Let the loop do the command that belongs to the value."""
        self.when(handle, lambda value: self.loop.do(command(value)))
