"""Planners that improve action sequences, given one function that scores them."""

from planners import constraints, risk
from planners.basis import BASES, Basis, Cubic, Kernel, Linear, Steps, ZeroHold
from planners.cem import CEM, ICEM
from planners.dial import DIAL
from planners.errors import PlannerError
from planners.gradient import Gradient, Hybrid
from planners.mppi import MPPI
from planners.noise import NOISES, Colored, LowPass, Noise, RateLimited, White, white_noise
from planners.plan import PLAN_TENSORS, Plan, check_scored
from planners.predictive_sampling import PredictiveSampling
from planners.sampling import SamplingPlanner
from planners.scorer import Scorer
from planners.shooting import shooting

PLANNERS: dict[str, type[SamplingPlanner]] = {
    "mppi": MPPI,
    "cem": CEM,
    "icem": ICEM,
    "predictive_sampling": PredictiveSampling,
    "dial": DIAL,
    "gradient": Gradient,
    "hybrid": Hybrid,
}

__all__ = [
    "BASES",
    "CEM",
    "DIAL",
    "ICEM",
    "MPPI",
    "NOISES",
    "PLANNERS",
    "PLAN_TENSORS",
    "Basis",
    "Colored",
    "Cubic",
    "Gradient",
    "Hybrid",
    "Kernel",
    "Linear",
    "LowPass",
    "Noise",
    "Plan",
    "PlannerError",
    "PredictiveSampling",
    "RateLimited",
    "SamplingPlanner",
    "Scorer",
    "Steps",
    "White",
    "ZeroHold",
    "check_scored",
    "constraints",
    "risk",
    "shooting",
    "white_noise",
]
