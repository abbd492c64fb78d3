"""What a model has imagined, as numbers, a picture and a video."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from worldmodel.analysis import OpenLoop, PictureComparison, Row, StateComparison
from worldmodel.apps.datasets.pictures import enlarged
from worldmodel.apps.plots import IMAGINED, MUTED, REAL, plain, save
from worldmodel.apps.progress import console
from worldmodel.apps.video import VideoFile, watchable_fps
from worldmodel.data import Episode
from worldmodel.errors import RunError
from worldmodel.files import reason_of, write_json
from worldmodel.model import ImageDecoder, LatentModel

# Columns of the table, in order, with what people read above them.
COLUMNS = {
    "steps": "steps ahead",
    "reward_error": "reward error",
    "return_error": "return error",
    "observation_error": "state error",
    "no_motion_error": "if nothing moved",
    "latent_error": "latent error",
    "imagined_psnr": "image, dB",
    "decoded_psnr": "decoded, dB",
    "no_motion_psnr": "if nothing moved",
}
_TABLE_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200)
_SHOWN_STEPS = (0, 1, 2, 5, 10, 20, 30, 50, 100, 200)
_NUM_SHOWN = 3  # windows
_MAX_DIMENSIONS = 6
_GAP = 2  # pixels between pictures


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """Held-out episodes as a model has imagined them; pictures only where there is a decoder.

    `features`: which features of states `states` compares.
    """

    task: str
    model: LatentModel
    episodes: Sequence[Episode]
    control_period_s: float | None
    result: OpenLoop
    states: StateComparison
    features: Sequence[int]
    decoder: ImageDecoder | None = None
    pictures: PictureComparison | None = None

    def table(self, steps: Sequence[int] = _TABLE_STEPS) -> list[Row]:
        """All errors after k steps, for each k in `steps` up to the horizon."""
        parts = [self.result.table(steps), self.states.table(steps)]
        if self.pictures is not None:
            parts.append(self.pictures.table(steps))
        merged: list[Row] = []
        for rows in zip(*parts, strict=True):
            row = {key: value for part in rows for key, value in part.items()}
            merged.append({key: row[key] for key in [*(k for k in COLUMNS if k in row), *row]})
        return merged

    def liveliest(self) -> list[int]:
        """The windows worth looking at: in which most happens, of different episodes where there are."""
        order = [int(window) for window in (-self.states.motion()).argsort(kind="stable")]
        firsts: dict[int, int] = {}
        for window in order:
            firsts.setdefault(self.result.windows[window][0], window)
        return list(dict.fromkeys([*firsts.values(), *order]))[:_NUM_SHOWN]

    def strips(self, window: int) -> dict[str, np.ndarray]:
        """Images (H + 1, height, width, 3): real, decoded from what was seen, and from what is imagined."""
        assert self.decoder is not None
        index, start = self.result.windows[window]
        real = self.episodes[index].observation["pixels"][start : start + self.result.horizon + 1]
        current = self.model.layout.current
        images = {
            "real": real,
            "seen, decoded": self.decoder.paint(current(self.result.latent[window])).numpy(),
            "imagined": self.decoder.paint(current(self.result.imagined_latent[window])).numpy(),
        }
        return {name: rows.transpose(0, 2, 3, 1) for name, rows in images.items()}


def write_report(folder: Path, imagined: Imagined, summary: dict[str, Any]) -> list[Path]:
    """Write `imagine.json`, `.png` and, of pictures, `.mp4`; returns their paths. Errors: `RunError`."""
    files = [folder / "imagine.json", folder / "imagine.png"]
    try:
        write_json(files[0], summary)
        save(_lines(imagined) if imagined.pictures is None else _pictures(imagined), files[1])
        video = folder / "imagine.mp4"
        if imagined.pictures is None:
            video.unlink(missing_ok=True)  # it would show another model
        else:
            _film(imagined, video)
            files.append(video)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {reason_of(error)}") from error
    console.print(error_table(summary["table"]))
    console.print(
        f"read-out of observations from latents: R2 {summary['readout_r2']:.3f} on held-out episodes"
    )
    return files


def error_table(rows: Sequence[Row]) -> Table:
    """The k-step errors for the terminal."""
    keys = [key for key in rows[0] if key in COLUMNS]
    table = Table(*(COLUMNS[key] for key in keys))
    for row in rows:
        table.add_row(*(told_error(key, row[key]) for key in keys))
    return table


def told_error(key: str, value: int | float) -> str:
    """A number of the table, as its column has it."""
    if key == "steps":
        return str(value)
    return f"{value:.1f}" if key.endswith("_psnr") else f"{value:.3f}"


def _lines(imagined: Imagined) -> Figure:
    """Errors over the horizon, and one window in detail: rewards, and states that are read out."""
    result, states = imagined.result, imagined.states
    window = imagined.liveliest()[0]
    num_dimensions = min(states.real.shape[2], _MAX_DIMENSIONS)
    figure, grid = _grid(1 + (num_dimensions + 2) // 3)
    steps = np.arange(result.horizon + 1)
    panels = [
        (f"state[{imagined.features[d]}]", steps, states.real[window, :, d], states.imagined[window, :, d])
        for d in range(num_dimensions)
    ]
    overview = list(grid[0])
    if result.reward is not None and result.imagined_reward is not None:
        rewards = result.reward[window], result.imagined_reward[window]
        for name, (real, guess) in {
            "reward": rewards,
            "sum of rewards": (rewards[0].cumsum(), rewards[1].cumsum()),
        }.items():
            _real_and_imagined(overview.pop(0), name, steps[1:], real, guess)
    _draw_state_errors(overview.pop(0), imagined)
    if overview:
        _draw_latent_error(overview.pop(0), imagined)
    for axes in overview:
        axes.set_axis_off()
    places = list(grid[1:].flatten())
    for axes, panel in zip(places, panels, strict=False):
        _real_and_imagined(axes, *panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    places[0].legend(frameon=False, fontsize=9)
    figure.suptitle(
        f"{imagined.task}: imagined from one observation and the actions alone, agent steps ahead"
    )
    return figure


def _pictures(imagined: Imagined) -> Figure:
    """Strips of pictures, real and imagined, of some windows; below them the errors over the horizon."""
    steps = [k for k in _SHOWN_STEPS if k <= imagined.result.horizon]
    if steps[-1] < imagined.result.horizon:
        steps.append(imagined.result.horizon)
    strips = [_strip(imagined.strips(window), steps) for window in imagined.liveliest()]
    height, width = strips[0].shape[:2]
    heights = [13.0 * height / width] * len(strips) + [2.9]
    figure = Figure(figsize=(13, sum(heights) + 0.9), layout="constrained")
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for index, strip in enumerate(strips):
        axes = figure.add_subplot(rows[index])
        axes.imshow(strip, interpolation="nearest")
        axes.spines[:].set_visible(False)
        names = ("real", "seen,\ndecoded", "imagined,\ndecoded")
        axes.set_yticks((np.arange(3) + 0.5) * height / 3, names, fontsize=9)
        ticks = [f"{k}" for k in steps] if index == 0 else []
        axes.set_xticks((np.arange(len(steps)) + 0.5) * width / len(steps) if ticks else [], ticks)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    places = figure.add_subfigure(rows[-1]).subplots(1, 3)
    _draw_picture_errors(places[0], imagined)
    _draw_state_errors(places[1], imagined)
    _draw_latent_error(places[2], imagined)
    figure.suptitle(
        f"{imagined.task}: imagined from what was seen until step 0 and the actions alone, agent steps ahead"
    )
    return figure


def _strip(images: dict[str, np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """A row of each kind; the steps side by side."""
    edges = ((0, 0), (_GAP, _GAP), (_GAP, _GAP), (0, 0))
    rows = [np.pad(each[list(steps)], edges, constant_values=255) for each in images.values()]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def _grid(num_rows: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(12, 2.7 * num_rows), layout="constrained")
    return figure, figure.subplots(num_rows, 3, squeeze=False)


def _real_and_imagined(axes: Any, name: str, steps: np.ndarray, real: np.ndarray, guess: np.ndarray) -> None:
    axes.plot(steps, real, color=REAL, label="real")
    axes.plot(steps, guess, color=IMAGINED, linestyle="--", label="imagined")
    axes.set_title(name, fontsize=10)
    plain(axes)


def _draw_errors(axes: Any, imagined: Imagined, title: str, lines: dict[str, tuple[str, str]]) -> None:
    """Columns of the table over all steps; `lines`: column -> label, color."""
    rows = imagined.table(range(1, imagined.result.horizon + 1))
    for column, (label, color) in lines.items():
        axes.plot([row["steps"] for row in rows], [row[column] for row in rows], color=color, label=label)
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    plain(axes)


def _draw_state_errors(axes: Any, imagined: Imagined) -> None:
    lines = {
        "observation_error": ("imagined", IMAGINED),
        "no_motion_error": ("if nothing moved", MUTED),
    }
    title = f"error of the state (std), {len(imagined.result.windows)} windows"
    _draw_errors(axes, imagined, title, lines)


def _draw_latent_error(axes: Any, imagined: Imagined) -> None:
    title = "error of the embedding (1: two random ones)"
    _draw_errors(axes, imagined, title, {"latent_error": ("imagined", IMAGINED)})
    axes.set_ylim(bottom=0)


def _draw_picture_errors(axes: Any, imagined: Imagined) -> None:
    lines = {
        "decoded_psnr": ("seen, decoded: the decoder's own", REAL),
        "imagined_psnr": ("imagined, decoded", IMAGINED),
        "no_motion_psnr": ("if nothing moved", MUTED),
    }
    _draw_errors(axes, imagined, "pictures: PSNR in dB (higher is better)", lines)


def _film(imagined: Imagined, path: Path) -> None:
    """The same windows as in the picture, one after another: real, seen and imagined side by side."""
    with VideoFile(path, watchable_fps(imagined.control_period_s)) as video:
        for window in imagined.liveliest():
            strips = imagined.strips(window)
            for step in range(imagined.result.horizon + 1):
                tiles = {name: enlarged(images[step]) for name, images in strips.items()}
                video.append(_beside(tiles, f"{imagined.task}: {step} steps ahead"))


def _beside(tiles: dict[str, np.ndarray], title: str) -> np.ndarray:
    """Pictures of one size beside each other, each with its name above it."""
    height, width = next(iter(tiles.values())).shape[:2]
    canvas = Image.new("RGB", (len(tiles) * (width + 8) + 8, height + 62), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 6), title, fill="black", font=ImageFont.load_default(size=18))
    for index, (name, tile) in enumerate(tiles.items()):
        left = 8 + index * (width + 8)
        draw.text((left, 32), name, fill=IMAGINED if name == "imagined" else REAL,
                  font=ImageFont.load_default(size=16))  # fmt: skip
        canvas.paste(Image.fromarray(tile), (left, 54))
    return np.asarray(canvas)
