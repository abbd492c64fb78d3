"""What people tune of training."""

import math
from dataclasses import dataclass, fields

from worldmodel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What people tune; what we train with stands in `configs/training`.

    The defaults of `WorldModel`s are TD-MPC2's. From `prediction_coefficient` on, what serves models without
    rewards: their prediction loss, and what keeps embeddings apart (`regularizers`); with `predicts_average`
    the targets are of an average of earlier encoders, which moves by `target_rate`. `jepa_coefficient` is
    how much all of that counts where a `WorldModel` is trained. `hue_jitter` is how far around the colour
    wheel each image is turned at random (`augmentation.jitter_hues`).
    """

    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-4
    discount: float = 0.99
    horizon: int = 3
    num_td_steps: int = 1
    rho: float = 0.5
    consistency_coefficient: float = 20.0
    reward_coefficient: float = 0.1
    value_coefficient: float = 0.1
    continuation_coefficient: float = 1.0
    entropy_coefficient: float = 1e-4
    target_rate: float = 0.01
    average_fraction: float = 0.0
    max_grad_norm: float = 20.0
    policy_every: int = 1
    prediction_coefficient: float = 1.0
    sigreg_coefficient: float = 0.0
    random_target_coefficient: float = 0.0
    num_directions: int = 64
    variance_coefficient: float = 0.0
    covariance_coefficient: float = 0.0
    inverse_coefficient: float = 0.0
    straightening_coefficient: float = 0.0
    predicts_average: bool = False
    jepa_coefficient: float = 0.0
    hue_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges. Errors: `ConfigError`."""
        for name in ("learning_rate", "encoder_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be above 0")
        if not 0 <= self.average_fraction <= 1:
            raise ConfigError(
                f"training average_fraction={self.average_fraction}: must be at least 0 (the latest weights) "
                "and at most 1 (the mean of all)"
            )
        if not 0 <= self.hue_jitter <= 1:
            raise ConfigError(
                f"training hue_jitter={self.hue_jitter}: must be at least 0 and at most 1 (all hues)"
            )
        for name in ("discount", "rho", "target_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be above 0 and at most 1")
        for name in ("horizon", "num_td_steps", "policy_every", "num_directions"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"training {name}={value}: must be a whole number of at least 1")
        for name in (field.name for field in fields(self) if field.name.endswith("_coefficient")):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training {name}={getattr(self, name)}: must be finite and not negative")
