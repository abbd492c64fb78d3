"""Frames as mp4 videos and as single PNG images, to the bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from worldmodel.data.memory import require_memory
from worldmodel.errors import DatasetError

CODEC = "h264"
PIXEL_FORMAT = "gbrp"  # what decoders call H.264 without a colour transform
MAX_PIXELS = 2**25  # of a frame: 8192 x 4096
_ENCODER = "libx264rgb"
# crf 0 is without loss. Every second frame can be jumped to, and none waits for a later one.
_OPTIONS = {"crf": "0", "g": "2", "bf": "0", "preset": "veryfast"}


class VideoWriter:
    """Writes one mp4 of RGB frames at a constant rate; close it. Errors: `DatasetError` without encoder."""

    def __init__(self, path: Path, fps: int, height: int, width: int) -> None:
        import av

        self.num_frames = 0
        self.num_bytes = 0
        self._has_failed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        try:
            stream: Any = self._container.add_stream(_ENCODER, rate=fps, options=_OPTIONS)
        except ValueError as error:
            self._container.close()
            raise DatasetError(
                f"this PyAV cannot encode {_ENCODER}: install that of PyPI (pip install --force-reinstall av)"
            ) from error
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        self._stream = stream

    def append(self, pixels: UInt8[np.ndarray, "frame 3 height width"]) -> None:
        """Add frames."""
        import av

        for image in pixels.transpose(0, 2, 3, 1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            self._mux(self._stream.encode(frame))
            self.num_frames += 1

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        try:
            if not self._has_failed:  # where nothing could be written, FFmpeg dies of more
                self._mux(self._stream.encode())
        finally:
            self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.num_bytes += packet.size
            try:
                self._container.mux(packet)
            except BaseException:
                self._has_failed = True
                raise


def read_frames(
    path: Path, fps: float, start_s: float, num_frames: int
) -> UInt8[np.ndarray, "frame 3 height width"]:
    """`num_frames` frames from `start_s` on. Errors: `DatasetError` for a file without them."""
    import av

    images: list[np.ndarray] = []
    try:
        # Not by its content, which may be a playlist: that names any other file of this machine.
        options = {"protocol_whitelist": "file", "enable_drefs": "0"}
        with av.open(str(path), format="mp4", options=options) as container:
            for time_s, frame in _frames_from(container, start_s):
                number = round((time_s - start_s) * fps)
                if number == 0:
                    require_memory(f"{path}", 2.0 * num_frames * frame.width * frame.height * 3)
                if number == len(images):
                    images.append(frame.to_ndarray(format="rgb24"))
                if number >= num_frames - 1:
                    break
            if len(images) == num_frames:
                return np.stack(images).transpose(0, 3, 1, 2)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: copy the dataset again, whole") from error
    except DatasetError:
        raise
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} cannot be decoded ({error}): copy the dataset again") from error
    raise DatasetError(
        f"{path} has no frame {len(images)} of the {num_frames} that begin at {start_s:g} s and follow each "
        f"other at {fps:g} per second: the video is not that of the episode, copy the dataset again"
    )


def _frames_from(container: Any, start_s: float) -> Iterator[tuple[float, Any]]:
    """The frames from `start_s` on and their times; the first ones may be earlier."""
    stream = container.streams.video[0]
    if (num_pixels := stream.width * stream.height) > MAX_PIXELS:
        raise ValueError(f"frames of {num_pixels} pixels, more than {MAX_PIXELS}")
    # To the last frame before it that needs no other; half a microsecond against rounding.
    container.seek(int((start_s + 5e-7) / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise ValueError(f"a damaged frame at {frame.time} s")
        if frame.time is not None:
            yield frame.time, frame


def png(image: UInt8[np.ndarray, "3 height width"]) -> bytes:
    """One frame as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def read_image(content: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "3 height width"]:
    """The frame of an image file (PNG or another kind), of this height and width.

    Errors: `DatasetError` for what is none, and for another size, before it takes any memory.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if (image.height, image.width) != size:
                raise DatasetError(
                    f"an image has {image.height} x {image.width} pixels, and not the {size[0]} x {size[1]} "
                    "that the dataset tells of: copy the dataset again"
                )
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except DatasetError:
        raise
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"an image cannot be decoded ({error}): copy the dataset again") from error
