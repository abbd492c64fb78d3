"""Images of a task at one size and quality, whoever draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.errors import EnvError, RenderingError
from envs.loaded_task import LoadedTask
from envs.rendering import Quality, SceneRenderer, find_camera


class TaskImages:
    """Draws a task's present state.

    Args:
        loaded: the task.
        camera: see `envs.make`.
        width, height: pixels.
        quality: of what MuJoCo draws.
        shows_goal: whether the mark of the episode's goal is drawn, where there is one.

    Raises:
        RenderingError: no such camera.
    """

    def __init__(
        self,
        loaded: LoadedTask,
        *,
        camera: str | int | None,
        width: int,
        height: int,
        quality: Quality,
        shows_goal: bool,
    ) -> None:
        self._task, self._draw = loaded.name, loaded.frame
        self._width, self._height = width, height
        self._renderer: SceneRenderer | None = None
        if loaded.simulation is not None:
            self._renderer = SceneRenderer(
                loaded.simulation,
                width=width,
                height=height,
                camera=find_camera(loaded.simulation, camera, loaded.default_camera),
                quality=quality,
                shown_group=loaded.goal_group if shows_goal else None,
            )
        elif camera is not None:
            raise RenderingError(f"{loaded.name} is drawn without cameras: leave out camera={camera!r}")

    def render(self) -> np.ndarray:
        """Image of the current state: uint8 (H, W, 3). Errors: `RenderingError` where nothing can draw."""
        if self._renderer is not None:
            return self._renderer.render()
        if self._draw is None:
            raise RenderingError(f"{self._task} has no rgb_array render mode: observe 'state' only")
        return _resized(self._draw(), self._width, self._height)

    def model_changed(self) -> None:
        """Look at the model again; a new episode may have drawn a new terrain."""
        if self._renderer is not None:
            self._renderer.model_changed()

    def close(self) -> None:
        """Free what draws; the next image makes it anew."""
        if self._renderer is not None:
            self._renderer.close()


def hide_geoms(loaded: LoadedTask, names: Sequence[str]) -> None:
    """Leave geoms out of all images of a task, by name; its physics stays. Errors: `EnvError`."""
    if not names:
        return
    if loaded.simulation is None:
        raise EnvError(f"hide={list(names)}: {loaded.name} has no geoms that could be hidden")
    model = loaded.simulation.model
    known = [model.geom(index).name for index in range(model.ngeom)]
    for name in names:
        if not name or name not in known:
            raise EnvError(
                f"hide={list(names)}: {loaded.name} has no geom {name!r}; those with a name are "
                f"{', '.join(filter(None, known))}"
            )
        model.geom(name).matid, model.geom(name).rgba = -1, 0.0  # of a material the colour would stay


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
