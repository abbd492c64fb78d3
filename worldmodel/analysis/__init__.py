"""What a world model knows: measured against recorded episodes, or while it acts."""

from worldmodel.analysis.open_loop import OpenLoop, open_loop
from worldmodel.analysis.readout import Readout, fit_readout
from worldmodel.analysis.surprise import level, num_episodes_for, surprise, thresholds

__all__ = [
    "OpenLoop",
    "Readout",
    "fit_readout",
    "level",
    "num_episodes_for",
    "open_loop",
    "surprise",
    "thresholds",
]
