"""Everything that fixes the shapes of a world model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldmodel.errors import ConfigError
from worldmodel.model.layout import Layout

_CHOICES = {
    "latent_norm": ("simnorm", "layernorm", "none"),
    "pixel_encoder": ("cnn", "keypoints", "vit"),
    "predictor": ("mlp", "transformer", "gru"),
}
_KEYS = ("state", "pixels")
MAX_IMAGE_SIZE = 4096  # pixels along a side: no weight of an encoder tells how many there are
_PATCH = 8  # pixels along each side that an encoder looks at together, at most


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """What differs between the tasks of one model; see `WorldModelSize`."""

    state_dim: int
    action_dim: int
    angles: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check it. Errors: `ConfigError`."""
        object.__setattr__(self, "angles", tuple(self.angles))  # JSON gives lists
        _check_counts(self, {"state_dim": 0})
        _check_angles(self.angles, self.state_dim)


@dataclass(frozen=True, kw_only=True)
class WorldModelSize:
    """Everything that fixes the shapes of a model; kept beside its weights.

    - `observes`: which keys of an observation it encodes: `state`, `pixels` or both.
    - `history`: observations that a latent holds; `predictor` says what learns from them what follows.
    - `num_dynamics`: predictors that are asked; more than one tell where they disagree.
    - `predicts_return`: whether it is a `WorldModel`, with rewards, values and a policy, or a `LatentModel`.
    - `predicts_action`: whether a `WorldModel` guesses actions from embeddings, as every `LatentModel` does.
    - `angles`: entries of the state that are angles without limits.
    - `tasks`: where one model learns several, what each observes and does, in their order; `state_dim` and
      `action_dim` are then the largest of theirs, and smaller ones are padded with zeros. `task_dim` numbers
      are learned of each.

    Errors: `ConfigError` for a combination that cannot be built.
    """

    state_dim: int
    action_dim: int
    latent_dim: int = 64  # of one embedding
    hidden_dim: int = 256
    encoder_dim: int = 256
    num_encoder_layers: int = 1
    num_q: int = 2
    num_bins: int = 101
    latent_norm: str = "simnorm"
    group_dim: int = 8
    predicts_continuation: bool = False
    angles: Sequence[int] = ()
    observes: Sequence[str] = ("state",)
    image_size: int = 64
    pixel_encoder: str = "cnn"
    history: int = 1
    predictor: str = "mlp"
    num_dynamics: int = 1
    predicts_return: bool = True
    predicts_action: bool = False
    tasks: Sequence[Any] = ()  # of `TaskSize`
    task_dim: int = 16

    def __post_init__(self) -> None:
        """Check what the layers would only complain about obscurely."""
        for name in ("angles", "observes"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_keys()
        _check_counts(
            self, {"num_encoder_layers": 0, "num_bins": 3, "state_dim": int("state" in self.observes)}
        )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                *others, last = known
                rule = f"{', '.join(others)} or {last}"
                raise ConfigError(f"model {name}={getattr(self, name)!r}: must be {rule}")
        _check_angles(self.angles, self.state_dim)
        if self.latent_norm == "simnorm" and self.latent_dim % self.group_dim:
            raise ConfigError(
                f"model latent_dim={self.latent_dim}: SimNorm needs a multiple of group_dim={self.group_dim}"
            )
        if len(self.observes) == 2 and self.latent_dim < 2:
            raise ConfigError(f"model latent_dim={self.latent_dim}: state and images need 1 each")
        if self.predictor != "mlp" and self.num_dynamics > 1:
            raise ConfigError(f"model num_dynamics={self.num_dynamics}: several need predictor=mlp")
        self._check_tasks()

    def _check_keys(self) -> None:
        if not self.observes or not set(self.observes) <= set(_KEYS):
            raise ConfigError(f"model observes={list(self.observes)}: must be some of {', '.join(_KEYS)}")
        smallest = 2 * _PATCH
        if "pixels" in self.observes and (self.image_size % _PATCH or self.image_size < smallest):
            raise ConfigError(
                f"model image_size={self.image_size}: must be a multiple of {_PATCH}, at least {smallest}"
            )

    def _check_tasks(self) -> None:
        given = [task if isinstance(task, TaskSize) else TaskSize(**task) for task in self.tasks]  # JSON
        object.__setattr__(self, "tasks", tuple(given))
        if not given:
            return
        for name, needed in (
            ("observes", ("state",)),
            ("predictor", "mlp"),
            ("predicts_return", True),
            ("predicts_action", False),
            ("angles", ()),
        ):
            if (found := getattr(self, name)) != needed:
                raise ConfigError(f"model {name}={_told(found)}: of several tasks it must be {_told(needed)}")
        for name in ("state_dim", "action_dim"):
            if getattr(self, name) != (largest := max(getattr(task, name) for task in given)):
                raise ConfigError(f"model {name}={getattr(self, name)}: its tasks ask for {largest}")

    @property
    def task_code_dim(self) -> int:
        """How much of an embedding, at its end, says in which of several tasks it is (`TaskEncoder`)."""
        return self.task_dim + self.action_dim if self.tasks else 0

    @property
    def state_embedding_dim(self) -> int:
        """How much of an embedding, from its start, is of the state; the rest is of images."""
        if len(self.observes) == 2:
            return self.latent_dim // 2
        return self.latent_dim if self.observes == ("state",) else 0

    @property
    def layout(self) -> Layout:
        """How a latent is made up."""
        embedding_dim = self.latent_dim + self.task_code_dim
        return Layout(embedding_dim=embedding_dim, action_dim=self.action_dim, history=self.history)


def _check_counts(size: object, leasts: Mapping[str, int]) -> None:
    for name, value in vars(size).items():
        if name.endswith("_dim") or name.startswith("num_") or name == "history":
            least = leasts.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"model {name}={value!r}: must be a whole number of at least {least}")


def _check_angles(angles: Sequence[int], state_dim: int) -> None:
    if [angle for angle in sorted(set(angles)) if 0 <= angle < state_dim] != list(angles):
        raise ConfigError(f"model angles={list(angles)}: must be entries of a state of {state_dim}, rising")


def _told(value: object) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower()
