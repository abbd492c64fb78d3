"""Planners that improve action sequences, given one function that scores them."""

from planners.cem import CEM
from planners.errors import PlannerError
from planners.mppi import MPPI
from planners.noise import white_noise
from planners.plan import Plan
from planners.predictive_sampling import PredictiveSampling
from planners.sampling import SamplingPlanner
from planners.scorer import Scorer

PLANNERS: dict[str, type[SamplingPlanner]] = {
    "mppi": MPPI,
    "cem": CEM,
    "predictive_sampling": PredictiveSampling,
}

__all__ = [
    "CEM",
    "MPPI",
    "PLANNERS",
    "Plan",
    "PlannerError",
    "PredictiveSampling",
    "SamplingPlanner",
    "Scorer",
    "white_noise",
]
