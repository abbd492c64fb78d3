"""What a world model knows: measured against recorded episodes."""

from worldmodel.analysis.open_loop import OpenLoop, open_loop
from worldmodel.analysis.readout import Readout, fit_readout

__all__ = ["OpenLoop", "Readout", "fit_readout", "open_loop"]
