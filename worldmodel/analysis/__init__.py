"""What a world model knows: measured against recorded episodes, or while it acts."""

from worldmodel.analysis.comparison import (
    PictureComparison,
    StateComparison,
    compare_pictures,
    compare_states,
    psnr,
)
from worldmodel.analysis.latents import latents_of
from worldmodel.analysis.open_loop import OpenLoop, Row, open_loop
from worldmodel.analysis.readout import QuadraticReadout, Readout, fit_quadratic_readout, fit_readout
from worldmodel.analysis.surprise import (
    level,
    num_episodes_for,
    surprise,
    thresholds,
    whitening,
    whitenings_of_others,
)

__all__ = [
    "OpenLoop",
    "PictureComparison",
    "QuadraticReadout",
    "Readout",
    "Row",
    "StateComparison",
    "compare_pictures",
    "compare_states",
    "fit_quadratic_readout",
    "fit_readout",
    "latents_of",
    "level",
    "num_episodes_for",
    "open_loop",
    "psnr",
    "surprise",
    "thresholds",
    "whitening",
    "whitenings_of_others",
]
