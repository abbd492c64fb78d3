"""Videos of closed-loop control, with the numbers drawn in."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_FPS = 60.0


class ControlVideo:
    """Frames of one episode; draws time, return and decision latency into each."""

    def __init__(self, title: str, control_period_s: float | None) -> None:
        self._title = title
        self._period_s = control_period_s or 1 / 30
        self._control_period_s = control_period_s
        # Show every n-th step where the control is faster than a screen.
        self._every = max(1, int(np.ceil(1 / self._period_s / MAX_FPS)))
        self._frames: list[np.ndarray] = []
        self._returns: list[float] = []
        self._latencies_ms: list[float] = []
        self._step = 0

    @property
    def wants_frame(self) -> bool:
        """Whether the next `add` uses its frame (rendering is slow)."""
        return self._step % self._every == 0

    def add(self, frame: np.ndarray | None, episode_return: float, latency_s: float) -> None:
        """One step: the picture (H, W, 3) if wanted, the return so far and the decision's latency."""
        self._returns.append(episode_return)
        self._latencies_ms.append(latency_s * 1e3)
        if frame is not None and self.wants_frame:
            self._frames.append(self._draw(frame))
        self._step += 1

    def write(self, path: Path) -> None:
        """Write an mp4 that plays at the robot's own speed."""
        fps = 1 / self._period_s / self._every
        iio.imwrite(path, np.stack(self._frames), fps=fps, codec="libx264", macro_block_size=2)

    def _draw(self, frame: np.ndarray) -> np.ndarray:
        image = Image.fromarray(frame)
        width, height = image.size
        draw = ImageDraw.Draw(image, "RGBA")
        font_size = max(12, height // 30)
        font = ImageFont.load_default(size=font_size)
        line = int(font_size * 1.35)
        draw.rectangle((0, 0, width, 3 * line + 8), fill=(0, 0, 0, 140))
        late = self._control_period_s is not None and self._latencies_ms[-1] > self._control_period_s * 1e3
        period = "" if self._control_period_s is None else f" of {self._control_period_s * 1e3:.0f} ms"
        lines = [
            (self._title, "white"),
            (f"time {self._step * self._period_s:5.2f} s   return {self._returns[-1]:7.1f}", "white"),
            (f"decision {self._latencies_ms[-1]:5.1f} ms{period}", "#ff8080" if late else "#80ff80"),
        ]
        for index, (text, colour) in enumerate(lines):
            draw.text((8, 4 + index * line), text, fill=colour, font=font)
        _sparkline(draw, self._returns, (0, height - height // 8, width, height))
        return np.asarray(image)


def _sparkline(draw: ImageDraw.ImageDraw, values: Sequence[float], box: tuple[int, int, int, int]) -> None:
    """The return so far, as a line along the lower edge."""
    left, top, right, bottom = box
    draw.rectangle(box, fill=(0, 0, 0, 90))
    if len(values) < 2:
        return
    x = np.linspace(left, right, len(values))
    low, high = min(0.0, min(values)), max(values)
    y = bottom - 3 - (np.asarray(values) - low) / max(high - low, 1e-9) * (bottom - top - 6)
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill="#ffd060", width=2)
