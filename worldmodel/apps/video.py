"""Videos of episodes, as they are played or as they were recorded, with the numbers drawn in."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import imageio.v2
import imageio.v3
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import envs
from worldmodel.errors import ConfigError, RunError
from worldmodel.files import TEMPORARY_PREFIX

_GOOD, _BAD = "#80ff80", "#ff8080"
MAX_FPS = 60.0
MAX_COMPARED_FPS = 12.0
FPS_WITHOUT_PERIOD = 30.0  # where the environment does not say how fast its robot is


def check_drawable(env: envs.TaskVectorEnv | envs.TaskEnv) -> None:
    """A video needs pictures. Errors: `ConfigError` where the task, or this machine, can draw none."""
    try:
        env.render()
    except envs.RenderingError as error:
        raise ConfigError(f"video=true: {error}. With video=false it goes on without") from error


class VideoFile:
    """An mp4; frames are encoded as they come. It appears, in one rename, where the `with` block ends well.

    Errors: `RunError` where it cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._temporary = path.with_name(
            f"{TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}"
        )
        self._writer: Any = None

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if kind is None:
                    imageio.v3.immeta(self._temporary)  # the encoder does not say when it failed at the end
                    self._temporary.replace(self._path)
        except OSError as failure:
            raise self._unwritten(failure) from failure
        finally:
            self._temporary.unlink(missing_ok=True)

    def append(self, frame: np.ndarray) -> None:
        """One frame more: uint8 (H, W, 3)."""
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.append_data(frame)
        except OSError as failure:
            raise self._unwritten(failure) from failure

    def _open(self) -> Any:
        return imageio.v2.get_writer(
            self._temporary,
            format="FFMPEG",
            fps=self._fps,
            codec="libx264",
            macro_block_size=2,
            # One thread: decisions are measured while it encodes.
            output_params=["-threads", "1"],
        )

    def _unwritten(self, error: OSError) -> RunError:
        reason = error.strerror or str(error).partition("\n")[0]
        return RunError(f"cannot write {self._path}: {reason}. Is there space? video=false needs none")


class ControlVideo(VideoFile):
    """One episode at the robot's own speed; each frame shows time, return and latency."""

    def __init__(self, path: Path, title: str, control_period_s: float | None) -> None:
        decisions_per_s = FPS_WITHOUT_PERIOD if control_period_s is None else 1 / control_period_s
        # Show every n-th step where the control is faster than a screen.
        self._every = max(1, int(np.ceil(decisions_per_s / MAX_FPS)))
        super().__init__(path, decisions_per_s / self._every)
        self._title, self._control_period_s = title, control_period_s
        self._returns: list[float] = []
        self._alarms: list[int] = []  # the steps

    def __enter__(self) -> "ControlVideo":
        return self

    @property
    def wants_frame(self) -> bool:
        """Whether the next `add` uses its frame (rendering is slow)."""
        return len(self._returns) % self._every == 0

    def add(
        self,
        frame: np.ndarray | None,
        episode_return: float,
        latency_s: float | None,
        alarm_level: float | None = None,
        fault: str | None = None,
    ) -> None:
        """One step: the picture (H, W, 3) if wanted, the return so far and, if known, the latency.

        `alarm_level`: how far the model is surprised, as a multiple of its threshold. `fault`: what went
        wrong in this step, in a few words.
        """
        wants_frame, step = self.wants_frame, len(self._returns)
        self._returns.append(episode_return)
        if fault is not None or (alarm_level is not None and alarm_level > 1):
            self._alarms.append(step)
        if frame is None or not wants_frame:
            return
        lines = caption(self._title, step, episode_return, latency_s, self._control_period_s)
        if alarm_level is not None:
            lines.append((f"surprise {alarm_level:5.2f} of alarm", _BAD if alarm_level > 1 else _GOOD))
        if fault is not None:
            lines.append((fault, _BAD))
        self.append(_draw(frame, lines, self._returns, self._alarms))


def watchable_fps(control_period_s: float | None) -> float:
    """Frames per second of pictures to compare: the robot's own speed, or slower, so that eyes can follow."""
    return MAX_COMPARED_FPS if control_period_s is None else min(1 / control_period_s, MAX_COMPARED_FPS)


def caption(
    title: str, step: int, episode_return: float, latency_s: float | None, control_period_s: float | None
) -> list[tuple[str, str]]:
    """The lines of one frame with their colours; without a control period nobody knows the time."""
    time = "" if control_period_s is None else f"time {step * control_period_s:5.2f} s   "
    lines = [(title, "white"), (f"{time}return {episode_return:7.1f}", "white")]
    if latency_s is None:
        return lines
    period = "" if control_period_s is None else f" of {control_period_s * 1e3:.0f} ms"
    is_late = control_period_s is not None and latency_s > control_period_s
    return [*lines, (f"decision {latency_s * 1e3:5.1f} ms{period}", _BAD if is_late else _GOOD)]


def _draw(
    frame: np.ndarray,
    lines: Sequence[tuple[str, str]],
    returns: Sequence[float],
    alarms: Sequence[int],
) -> np.ndarray:
    """A frame (H, W, 3) with lines of text above and the return so far below, red at alarms."""
    image = Image.fromarray(frame)
    width, height = image.size
    draw = ImageDraw.Draw(image, "RGBA")
    font_size = max(12, height // 30)
    font = ImageFont.load_default(size=font_size)
    line = int(font_size * 1.35)
    draw.rectangle((0, 0, width, len(lines) * line + 8), fill=(0, 0, 0, 140))
    for index, (text, colour) in enumerate(lines):
        draw.text((8, 4 + index * line), text, fill=colour, font=font)
    _sparkline(draw, returns, alarms, (0, height - height // 8, width, height))
    return np.asarray(image)


def _sparkline(
    draw: ImageDraw.ImageDraw,
    values: Sequence[float],
    marks: Sequence[int],
    box: tuple[int, int, int, int],
) -> None:
    """The return so far, as a line along the lower edge; the steps `marks` are red."""
    left, top, right, bottom = box
    draw.rectangle(box, fill=(0, 0, 0, 90))
    if len(values) < 2:
        return
    x = np.linspace(left, right, len(values))
    for step in marks:
        draw.line([(float(x[step]), top), (float(x[step]), bottom)], fill=_BAD, width=2)
    low, high = min(0.0, min(values)), max(values)
    y = bottom - 3 - (np.asarray(values) - low) / max(high - low, 1e-9) * (bottom - top - 6)
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill="#ffd060", width=2)
