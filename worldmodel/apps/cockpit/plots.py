"""Live plots of the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel.apps.cockpit.errors import FAR_STEPS
from worldmodel.apps.cockpit.history import History

if TYPE_CHECKING:
    import viser

WIDTH_PX = 380
_HEIGHT_PX = 128
_BLUE, _ORANGE, _GREY, _RED, _GREEN = "#2f6bd8", "#e8641b", "#9aa3ad", "#d63a3a", "#2a9d5c"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot: a column of the history, its name and colour."""

    column: str
    label: str
    colour: str
    dash: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Lines over the steps; `band` fills between the first two of them."""

    title: str
    lines: tuple[Line, ...]
    has_band: bool = False


RETURN = Plot(title="Return of the episode", lines=(Line(column="return", label="return", colour=_BLUE),))
ELITES = Plot(
    title="What the elites promise (the planner's returns)",
    lines=(
        Line(column="elite_best", label="best", colour=_ORANGE),
        Line(column="elite_worst", label="worst", colour=_GREY),
        Line(column="elite_mean", label="mean", colour=_BLUE),
    ),
    has_band=True,
)
STD = Plot(
    title="How unsure the planner is (std of actions in [-1, 1])",
    lines=(Line(column="plan_std", label="std", colour=_GREEN),),
)
LATENCY = Plot(
    title="Decision latency against the control period (ms)",
    lines=(
        Line(column="decision_ms", label="decision", colour=_BLUE),
        Line(column="period_ms", label="period", colour=_RED, dash=(6.0, 4.0)),
    ),
)
ERROR = Plot(
    title="Model error: imagined against seen (stds)",
    lines=(
        Line(column="error_1", label="1 step ahead", colour=_BLUE),
        Line(column="error_far", label=f"{FAR_STEPS} steps ahead", colour=_ORANGE),
    ),
)
ORACLE_ERROR = Plot(
    title="Error: imagined against seen (stds)",
    lines=(Line(column="error_1", label="1 step ahead", colour=_BLUE),),
)
SURPRISE = Plot(
    title="Surprise (multiples of its threshold)",
    lines=(
        Line(column="surprise", label="surprise", colour=_ORANGE),
        Line(column="alarm", label="out of the ordinary", colour=_RED, dash=(6.0, 4.0)),
    ),
)


class Plots:
    """The plots of one session, in the GUI container that is open when it is made."""

    def __init__(self, server: viser.ViserServer, *, is_learned: bool, is_surprised: bool) -> None:
        surprise = [SURPRISE] if is_surprised else []
        chosen = [RETURN, ELITES, ERROR if is_learned else ORACLE_ERROR, *surprise, LATENCY, STD]
        self._plots = [(plot, self._add(server, plot)) for plot in chosen]

    def show(self, history: History) -> None:
        """The history as it is now."""
        steps = history.column("step")
        if len(steps) < 2:
            return
        for plot, handle in self._plots:
            handle.data = (steps, *(history.column(line.column) for line in plot.lines))

    def _add(self, server: viser.ViserServer, plot: Plot) -> Any:
        empty = np.array([0.0, 1.0])
        axis = {
            "stroke": "#6b7480",
            "grid": {"stroke": "#e6e9ed", "width": 1},
            "ticks": {"size": 4},
            "font": "11px system-ui",
        }
        bands: Any = ({"series": (1, 2), "fill": "rgba(232,100,27,0.15)"},) if plot.has_band else None
        series: Any = ({"label": "step"}, *(_series(line) for line in plot.lines))
        axes: Any = ({**axis, "size": 30}, {**axis, "size": 52})
        return server.gui.add_uplot(
            (empty, *(np.zeros(2) for _ in plot.lines)),
            series,
            title=plot.title,
            bands=bands,
            scales={"x": {"time": False}},
            axes=axes,
            legend={"show": len(plot.lines) > 1, "live": False},
            cursor={"show": False},
            padding=(6, 14, 0, 0),
            height=_HEIGHT_PX,
        )


def _series(line: Line) -> dict[str, Any]:
    """As uPlot wants it."""
    points = {"show": False}
    return {"label": line.label, "stroke": line.colour, "width": 1.5, "dash": line.dash, "points": points}
