"""Pictures of recorded episodes: where they come from, and many of them side by side."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import envs
from envs.registry import check_exists
from worldmodel.apps.run import would_import
from worldmodel.data import Episode, EpisodeDataset

FRAME_SIZE = 320  # of a picture drawn here; small recorded ones are shown enlarged to about as much
TILE_WIDTH, GAP, NUM_COLUMNS = 192, 6, 6
_MAX_NUMBER = 1e9  # that is believed of a period or a repeat

# The picture of what was observed before step 0 .. T - 1, and after the last: uint8 (H, W, 3).
Frame = Callable[[int], np.ndarray]
Frames = Callable[[Episode], Frame]


@contextmanager
def frames_of(
    dataset: EpisodeDataset, given_task: str | None, index: int
) -> Iterator[tuple[Frames | None, str]]:
    """How to draw an episode, if there is a way, and a sentence about it; `index`: one to try it with."""
    columns, info = dataset.columns, dataset.info
    if "observation.pixels" in columns and all(columns["observation.pixels"].shape):
        yield recorded_frames, "The pictures are the recorded observations."
        return
    task = given_task or info.get("task")
    if "extra.physics_state" not in columns:
        yield None, "No pictures: neither images nor physics states were recorded. " + _how_to_see_more(task)
        return
    if not isinstance(task, str) or (would_import(task) and not given_task):
        # A module is imported because a user names it, never because a file does.
        yield None, f"No pictures: the dataset names no task that may be drawn ({task}); give task=TASK."
        return
    env = None
    try:
        try:
            repeat, camera = positive_or_none(info.get("action_repeat")) or 1, info.get("camera")
            size = (FRAME_SIZE, FRAME_SIZE)
            env = envs.make(task, action_repeat=int(repeat), camera=camera, render_size=size)
            episode = dataset.episode(index)
            redrawn_frames(env, episode)(episode.num_steps)  # its states and its actions
        except envs.EnvError as error:
            if given_task:
                raise
            yield None, f"No pictures: {error}"
            return
        yield partial(redrawn_frames, env), f"The pictures are drawn from the recorded states of {env.task}."
    finally:
        if env is not None:
            env.close()


def _how_to_see_more(task: object) -> str:
    if not isinstance(task, str) or would_import(task) or not _exists(task):  # logs of one's own
        return "Episodes with images as the observation `pixels` are shown with them."
    return (
        f"Record them to see more: worldmodel collect task={task} env.observe=[state,pixels], or "
        "physics_state=true, which takes less space and is drawn here."
    )


def _exists(task: str) -> bool:
    try:
        check_exists(task)
    except envs.EnvError:
        return False
    return True


def recorded_frames(episode: Episode) -> Frame:
    """The observation `pixels`; of other than three channels, the first three or the first one in grey."""
    pixels = episode.observation["pixels"]

    def frame(index: int) -> np.ndarray:
        image = pixels[index, :3] if pixels.shape[1] >= 3 else np.repeat(pixels[index, :1], 3, axis=0)
        return np.ascontiguousarray(image.transpose(1, 2, 0))

    return frame


def redrawn_frames(env: envs.TaskEnv, episode: Episode) -> Frame:
    """The recorded physics states as the task draws them now; the last one is what the last action led to."""
    states = episode.extra["physics_state"]
    seed = episode.info.get("seed")
    # Some of what is drawn is drawn by lot at a reset, and is no part of the state: reacher's target.
    env.reset(seed=seed if type(seed) is int and seed >= 0 else 0)

    def frame(index: int) -> np.ndarray:
        env.set_physics_state(states[min(index, len(states) - 1)])
        if index == len(states):
            env.step(episode.action[-1])
        return env.render()

    return frame


def enlarged(image: np.ndarray) -> np.ndarray:
    """A small picture by a whole factor, so that people and captions find room."""
    factor = max(1, FRAME_SIZE // max(1, min(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def contact_sheet(tiles: list[np.ndarray], captions: list[str]) -> Image.Image:
    """Pictures (H, W, 3) of one size side by side, in reading order, each with its caption."""
    height, width = tiles[0].shape[:2]
    tile_height = max(1, round(height * TILE_WIDTH / width))
    num_columns = min(NUM_COLUMNS, len(tiles))
    num_rows = -(-len(tiles) // num_columns)
    size = (num_columns * (TILE_WIDTH + GAP) + GAP, num_rows * (tile_height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    font = ImageFont.load_default(size=14)
    for index, (tile, text) in enumerate(zip(tiles, captions, strict=True)):
        # Enlarged pixels stay what they are: squares.
        resampling = Image.Resampling.NEAREST if width < TILE_WIDTH else Image.Resampling.LANCZOS
        image = Image.fromarray(tile).resize((TILE_WIDTH, tile_height), resampling)
        draw = ImageDraw.Draw(image, "RGBA")
        draw.rectangle((0, 0, draw.textlength(text, font=font) + 12, 22), fill=(0, 0, 0, 140))
        draw.text((6, 3), text, fill="white", font=font)
        row, column = divmod(index, num_columns)
        sheet.paste(image, (GAP + column * (TILE_WIDTH + GAP), GAP + row * (tile_height + GAP)))
    return sheet


def positive_or_none(value: object) -> float | None:
    """A number above 0 that a dataset says, or None: it may say anything, such as infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MAX_NUMBER:
        return None
    return float(value)
