"""An episode as it happens beside the violated one, with the surprise of a model growing beneath."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import envs
from worldmodel.apps.plots import IMAGINED, MUTED, REAL
from worldmodel.apps.progress import ProgressDisplay
from worldmodel.apps.script import Break, Script
from worldmodel.apps.video import VideoFile, watchable_fps

_SIDE, _EDGE, _HEAD, _PLOT = 360, 12, 78, 182  # pixels: of a picture, around it, above them, beneath
_WIDTH = 2 * _SIDE + 3 * _EDGE
_LEFT = 64  # of the plot, for its numbers
_FINER = 3  # the plot is drawn so many times larger, then made smaller: smooth lines
_HOLD_S = 1.0  # the end of a scene stays
_DECADES = 6  # that a plot shows at most


@dataclass(frozen=True)
class Scene:
    """One episode, how it is broken, and the surprises (T, 2) of the model in both: now, and lasting."""

    script: Script
    broken: Break
    plain: np.ndarray
    violated: np.ndarray


def film(path: Path, make_env: Callable[..., envs.TaskEnv], scenes: Sequence[Scene]) -> None:
    """Play scenes again and draw them, one after another, every step; then each stays for a second.

    Errors: `RunError` where it cannot be written.
    """
    size = {"observe": ["state"], "render_size": (_SIDE, _SIDE)}
    plain, violated = make_env(**size), make_env(**size)
    fps = watchable_fps(plain.control_period_s)
    try:
        with (
            VideoFile(path, fps) as video,
            ProgressDisplay(f"film {plain.task}", len(scenes), "scenes") as display,
        ):
            for done, scene in enumerate(scenes):
                both = zip(scene.script.play(plain), scene.script.play(violated, scene.broken), strict=False)
                for step, _ in enumerate(both):
                    frame = _draw(scene, step, plain, violated)
                    video.append(frame)
                for _ in range(round(_HOLD_S * fps)):
                    video.append(frame)
                display.update(done + 1)
    finally:
        plain.close()
        violated.close()


def _draw(scene: Scene, step: int, plain: envs.TaskEnv, violated: envs.TaskEnv) -> np.ndarray:
    """The frame after `step` steps: uint8 (H, W, 3)."""
    canvas = Image.new("RGB", (_WIDTH, _HEAD + _SIDE + _PLOT), "white")
    draw = ImageDraw.Draw(canvas)
    has_happened = step > scene.broken.at
    period_s = plain.control_period_s
    time = "" if period_s is None else f", {step * period_s:.2f} s"
    draw.text((_EDGE, 8), f"{plain.task}: {scene.broken.violation.meaning}", fill="black", font=_font(20))
    draw.text((_WIDTH - _EDGE, 10), f"step {step}{time}", fill="black", font=_font(16), anchor="ra")
    lefts = (_EDGE, 2 * _EDGE + _SIDE)
    texts = ("as it happens", "violated" if has_happened else "violated: not yet")
    for left, text, color, env in zip(lefts, texts, (REAL, IMAGINED), (plain, violated), strict=True):
        draw.text((left, 48), text, fill=color, font=_font(18))
        canvas.paste(Image.fromarray(env.render()), (left, _HEAD))
    if has_happened:
        frame = (lefts[1] - 4, _HEAD - 4, lefts[1] + _SIDE + 3, _HEAD + _SIDE + 3)
        draw.rectangle(frame, outline=IMAGINED, width=4)
    plot = _plot(scene, step, (_WIDTH, _PLOT))
    canvas.paste(plot, (0, _HEAD + _SIDE))
    return np.asarray(canvas)


def _plot(scene: Scene, step: int, size: tuple[int, int]) -> Image.Image:
    """All traces until now, on a logarithmic scale that stays; what lasts is thin."""
    width, height = size[0] * _FINER, size[1] * _FINER
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    low, high = decades(np.concatenate([scene.plain, scene.violated]))
    left, right = _LEFT * _FINER, width - _EDGE * _FINER
    top, bottom = 36 * _FINER, height - 26 * _FINER

    def x(steps: int | float) -> float:
        return left + (right - left) * steps / len(scene.plain)

    def y(surprise: np.ndarray) -> np.ndarray:
        share = (np.log10(np.maximum(surprise, 10.0**low)) - low) / (high - low)
        return np.asarray(bottom - share * (bottom - top))

    small = _font(12 * _FINER)
    for decade in range(low, high + 1):
        place = float(y(np.array(10.0**decade)))
        draw.line([(left, place), (right, place)], fill="#e6e9ec", width=_FINER)
        draw.text((left - 6 * _FINER, place), f"{10.0**decade:g}", fill="black", font=small, anchor="rm")
    draw.text(
        (_EDGE * _FINER, 12 * _FINER),
        "surprise, times the usual (thin: by what was expected some steps before)",
        fill="black",
        font=_font(14 * _FINER),
    )
    draw.text((right, height - 4 * _FINER), "steps", fill="black", font=small, anchor="rb")
    moment = x(scene.broken.at + 0.5)
    draw.line([(moment, top), (moment, bottom)], fill=MUTED, width=2 * _FINER)
    draw.text((moment, bottom + 4 * _FINER), "violation", fill="black", font=small, anchor="ma")
    for traces, color in ((scene.violated, IMAGINED), (scene.plain, REAL)):
        for column, line in ((1, 1), (0, 2)):
            values = y(traces[:step, column])
            points = [(x(index + 1), float(value)) for index, value in enumerate(values)]
            if len(points) > 1:
                draw.line(points, fill=color, width=line * _FINER, joint="curve")
            if points:
                (across, down), radius = points[-1], 2 * line * _FINER
                draw.ellipse((across - radius, down - radius, across + radius, down + radius), fill=color)
    return image.resize(size, Image.Resampling.LANCZOS)


def decades(surprise: np.ndarray) -> tuple[int, int]:
    """Powers of ten that the plot lies between."""
    high = int(np.ceil(np.log10(max(float(surprise.max()), 1e-12))))
    least = max(float(surprise.min()), 10.0 ** (high - _DECADES))
    return min(int(np.floor(np.log10(least))), high - 1), high


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
