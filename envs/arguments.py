"""What a user hands over, checked: the arguments of `envs.make`, and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.errors import EnvError, InvalidActionError

_OBSERVATION_KEYS = ("state", "pixels")
LARGEST = float(np.finfo(np.float32).max)  # of any number that is recorded


def check_arguments(
    action_repeat: int, observe: Sequence[str], image_size: int, render_size: tuple[int, int]
) -> None:
    """Arguments of `envs.make`. Errors: `EnvError` for one that makes no sense."""
    if action_repeat < 1:
        raise EnvError(
            f"action_repeat={action_repeat}, and an action is applied at least once: give 1 or more"
        )
    if isinstance(observe, str) or not observe or not set(observe) <= set(_OBSERVATION_KEYS):
        raise EnvError(f"observe={observe!r}, and it is a non-empty sequence of {_OBSERVATION_KEYS}")
    if image_size < 1:
        raise EnvError(f"image_size={image_size}, and an image has at least 1 pixel")
    if min(render_size) < 1:
        raise EnvError(f"render_size={render_size}, and an image has at least 1 pixel")


def checked_action(action: Any, space: spaces.Space[Any], task: str) -> np.ndarray:
    """One action of `space`, float32, clipped to [-1, 1].

    Errors: `InvalidActionError` for another shape, or numbers that are not finite.
    """
    shape = space.shape
    try:
        vector = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidActionError(
            f"{task}: an action is an array of shape {shape} on the CPU, got {action!r} ({error})"
        ) from error
    if vector.shape != shape:
        raise InvalidActionError(
            f"{task}: an action has shape {shape}, got {vector.shape}; a batch of actions needs envs.make_vec"
        )
    if not np.isfinite(vector).all():
        raise InvalidActionError(
            f"{task}: actions must be finite numbers in [-1, 1], got {vector.tolist()}: "
            "look for a diverged policy or planner"
        )
    return np.minimum(np.maximum(vector, -1.0), 1.0)  # np.clip takes three times longer
