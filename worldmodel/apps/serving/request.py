"""What a robot asks: its message checked against what the model takes, before anything is planned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from worldmodel.apps.memory import Observation
from worldmodel.errors import MessageError
from worldmodel.model import LatentModel, WorldModel

NAMES = {"state": ("state", "observation/state"), "pixels": ("pixels", "observation/image")}
_MAX_IMAGE_SIZE = 8192
_BIGGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One observation {key: (...)} that a plan is asked for.

    - `is_reset`: a new episode begins with it.
    - `goal`: what shall be observed in the end; None where it stays as it was.
    - `request_id`: comes back with the answer; None where nobody asks for it.
    """

    observation: Observation
    is_reset: bool = False
    goal: Observation | None = None
    request_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class RequestReader:
    """Reads messages for one model.

    - `shapes`: of what it observes: `state` (O,), `pixels` (3, S, S).
    - `takes_goal`: whether it plans to goals.
    """

    shapes: Mapping[str, tuple[int, ...]]
    takes_goal: bool

    @classmethod
    def of(cls, model: LatentModel) -> "RequestReader":
        """For what this model observes."""
        size = model.size
        every = {"state": (size.state_dim,), "pixels": (3, size.image_size, size.image_size)}
        return cls(
            shapes={key: every[key] for key in size.observes}, takes_goal=not isinstance(model, WorldModel)
        )

    def read(self, message: Any) -> Request:
        """A message as `codec.unpack` gives it. Errors: `MessageError`; other keys than ours are ignored."""
        if not isinstance(message, dict):
            raise MessageError(f"the message is a {type(message).__name__}: send a map with the observation")
        is_reset, request_id = message.get("reset", False), message.get("request_id")
        if not isinstance(is_reset, bool | np.bool_):
            raise MessageError("reset: must be true or false")
        if request_id is not None and type(request_id) is not int:
            raise MessageError("request_id: must be a whole number")
        return Request(
            observation={key: self._entry(message, key, NAMES[key]) for key in self.shapes},
            is_reset=bool(is_reset),
            goal=self._goal(message),
            request_id=request_id,
        )

    def _goal(self, message: dict[Any, Any]) -> Observation | None:
        given = [key for key in message if isinstance(key, str) and key.startswith("goal/")]
        if not given:
            return None
        if not self.takes_goal:
            raise MessageError(f"{given[0]}: this model has learned from rewards, and takes no goal")
        return {key: self._entry(message, key, (f"goal/{key}",)) for key in self.shapes}

    def _entry(self, message: dict[Any, Any], key: str, names: tuple[str, ...]) -> np.ndarray:
        found = [name for name in names if name in message]
        if not found:
            wanted = f"{self.shapes[key]} {'float32' if key == 'state' else 'uint8'}"
            raise MessageError(
                f"{' or '.join(names)} {wanted} is missing; the message has {_listed(message)}"
            )
        if len(found) > 1:
            raise MessageError(f"{' and '.join(found)} are the same: send one of them")
        value = message[found[0]]
        if not isinstance(value, np.ndarray):
            raise MessageError(f"{found[0]} is a {type(value).__name__}: send an array")
        if key == "state":
            return self._state(found[0], value)
        return self._pixels(found[0], value, may_resize=found[0].endswith("/image"))

    def _state(self, name: str, value: np.ndarray) -> np.ndarray:
        if value.dtype.kind not in "fiu":
            raise MessageError(f"{name} holds {value.dtype}: send numbers, such as float32")
        if value.shape != self.shapes["state"]:
            raise MessageError(f"{name} has shape {value.shape}: this model takes {self.shapes['state']}")
        wide = value.astype(np.float64)
        if not (np.isfinite(wide) & (np.abs(wide) <= _BIGGEST)).all():
            raise MessageError(f"{name} holds a number that is not finite (in float32)")
        return wide.astype(np.float32)

    def _pixels(self, name: str, value: np.ndarray, *, may_resize: bool) -> np.ndarray:
        """(3, S, S) from that or (S, S, 3); a camera's image, which is (H, H, 3), is resized."""
        wanted = self.shapes["pixels"]
        if value.dtype != np.uint8:
            raise MessageError(f"{name} holds {value.dtype}: send uint8")
        if value.shape == wanted:
            return value
        is_square = value.ndim == 3 and value.shape[2] == 3 and value.shape[0] == value.shape[1]
        size, given = wanted[1], value.shape[0] if is_square else 0
        if given == size:
            return np.ascontiguousarray(value.transpose(2, 0, 1))
        if may_resize and 1 <= given <= _MAX_IMAGE_SIZE:
            smaller = Image.fromarray(value).resize((size, size), Image.Resampling.BILINEAR)
            return np.ascontiguousarray(np.asarray(smaller).transpose(2, 0, 1))
        other = "any square (H, H, 3): crop or pad the image first" if may_resize else f"({size}, {size}, 3)"
        raise MessageError(f"{name} has shape {value.shape}: this model takes {wanted} or {other}")


def _listed(message: dict[Any, Any]) -> str:
    """Its keys, as far as they fit in a line."""
    names = ", ".join(str(key)[:40] for key in list(message)[:8])
    return names + (", ..." if len(message) > 8 else "") if names else "no keys"
