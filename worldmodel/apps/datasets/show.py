"""`data show`: episodes of a dataset on one page, with pictures, videos and plots over time."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.apps import plots
from worldmodel.apps.config import not_negative
from worldmodel.apps.datasets.meanwhile import again_if_merged
from worldmodel.apps.datasets.pictures import (
    FRAME_SIZE,
    Frame,
    contact_sheet,
    enlarged,
    frames_of,
    positive_or_none,
)
from worldmodel.apps.page import data_uri, escape, number, picture, write_document
from worldmodel.apps.progress import ProgressDisplay, megabytes
from worldmodel.apps.statistics import mean_interval
from worldmodel.apps.video import ControlVideo
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import ConfigError, DatasetError, RunError
from worldmodel.files import committed_file, reason_of

NUM_TILES, MAX_TILES = 24, 1000


def show(config: dict[str, Any]) -> Path:
    """Write `index.html`, and a contact sheet and a video of each episode; returns the path of the page.

    `config` is that of `configs/data_show.yaml`.
    Errors: `DatasetError` if there is none, or it is damaged or empty; `ConfigError` for what makes no sense;
    `EnvError` where a given task cannot draw what was recorded.
    """
    not_negative(config, "every")
    return again_if_merged(config["dataset"], lambda: _show(config))


def _show(config: dict[str, Any]) -> Path:
    dataset = EpisodeDataset.open(config["dataset"], in_memory=False)
    if not len(dataset):
        raise DatasetError(f"dataset={config['dataset']} holds no episode yet")
    returns = dataset.returns()
    chosen = choose(config["episodes"], returns)
    name = Path(config["dataset"]).resolve().name
    output = Path(config["output"] or Path("runs") / "show" / name)
    period_s = positive_or_none(dataset.info.get("control_period_s"))
    rows, sections = [], []
    with (
        frames_of(dataset, config["task"], next(iter(chosen))) as (frames, source),
        ProgressDisplay(f"show {name}", len(chosen), "episodes") as display,
    ):
        _make_folder(output)
        for done, (index, label) in enumerate(chosen.items()):
            episode = dataset.episode(index)
            rows.append(_row(index, label, episode))
            sections.append(_heading(index, label, episode))
            files = [] if frames is None else _film(config, output, index, episode, frames(episode), period_s)
            sections.append(_pictures(files, picture(plots.episode_over_time(episode, period_s))))
            display.update(done + 1)
    num_bytes = EpisodeStore(Path(config["dataset"])).num_bytes()
    summary = _summary(config["dataset"], dataset, num_bytes, returns)
    if len(returns) > 1:
        summary.append(picture(plots.returns_of_episodes(returns, chosen)))
    summary += ["<h2>Episodes</h2>", _table(rows), f"<p class=lead>{escape(source)}</p>"]
    return write_document(output / "index.html", f"{name} - worldmodel", [*summary, *sections])


def choose(given: list[Any], returns: list[float]) -> dict[int, str]:
    """Indices of the episodes to show, each with what makes it worth it. Errors: `ConfigError`."""
    count = len(returns)
    for index in given:
        if type(index) is not int:
            raise ConfigError(f"episodes={given}: {index!r} is no episode; give numbers, such as [0,5]")
        if not -count <= index < count:
            raise ConfigError(
                f"episodes={given}: there is no episode {index}; the dataset holds 0 to {count - 1} "
                f"(counted from the newest: -1 to -{count})"
            )
    if given:
        return {index % count: "" for index in given}
    order = np.argsort(returns, kind="stable").tolist()
    labels: dict[int, list[str]] = {}
    for label, index in (
        ("best", order[-1]),
        ("median", order[(count - 1) // 2]),
        ("worst", order[0]),
        ("first", 0),
    ):
        labels.setdefault(index, []).append(label)
    return {index: ", ".join(words) if count > 1 else "the only one" for index, words in labels.items()}


def _film(
    config: dict[str, Any], output: Path, index: int, episode: Episode, frame: Frame, period_s: float | None
) -> list[Path]:
    """Draw an episode's contact sheet and, if wanted, its video."""
    every = config["every"] or -(-episode.num_steps // (NUM_TILES - 1))
    at = [*range(0, episode.num_steps, every), episode.num_steps]  # how it ended is always worth a look
    if len(at) > MAX_TILES:
        raise ConfigError(
            f"every={every}: {len(at)} pictures of episode {index} are too many for one sheet; "
            f"give every={-(-episode.num_steps // (MAX_TILES - 1))} or more"
        )
    returns_so_far = np.concatenate([[0.0], np.cumsum(episode.reward, dtype=np.float64)])
    times = [f"step {step}" if period_s is None else f"{step * period_s:.2f} s" for step in at]
    captions = [f"{time}   return {returns_so_far[step]:.1f}" for time, step in zip(times, at, strict=True)]
    sheet_path, video_path = (output / f"episode-{index}.{kind}" for kind in ("png", "mp4"))
    filming = ControlVideo(video_path, f"episode {index}", period_s) if config["video"] else nullcontext()
    tiles = {}
    with filming as video:
        for step in range(episode.num_steps + 1) if video else at:
            is_tile = step % every == 0 or step == episode.num_steps
            image = frame(step) if is_tile or (video and video.wants_frame) else None
            if image is not None and is_tile:
                tiles[step] = image
            if video:
                video.add(None if image is None else enlarged(image), float(returns_so_far[step]), None)
    try:
        with committed_file(sheet_path) as temporary:
            contact_sheet([tiles[step] for step in at], captions).save(temporary)
    except OSError as error:
        raise RunError(f"cannot write {sheet_path}: {reason_of(error)}") from error
    return [sheet_path, video_path] if config["video"] else [sheet_path]


def _summary(path: str, dataset: EpisodeDataset, num_bytes: int, returns: list[float]) -> list[str]:
    facts = {key: _text(value) for key, value in dataset.info.items()}
    columns = {name: str(column) for name, column in dataset.columns.items()}
    return [
        f"<h1>{escape(Path(path).resolve().name)}</h1>",
        f"<p class=lead>{escape(str(dataset.info.get('task', 'a dataset')))}, recorded in {escape(path)}</p>",
        "<div class=numbers>",
        number(f"{len(dataset):,}", "episodes"),
        number(f"{dataset.num_steps:,}", "steps"),
        number(f"{np.mean(returns):.4g}", f"mean return, 95 % interval {_interval(returns)}"),
        number(megabytes(num_bytes), "on disk"),
        "</div>",
        f"<div class=beside>{_facts('column', 'of each row', columns)}",
        f"<div class=grows>{_facts('dataset', '', facts)}</div></div>" if facts else "</div>",
    ]


def _interval(returns: list[float]) -> str:
    mean = mean_interval(returns)
    return f"{mean.low:.4g} to {mean.high:.4g}" if mean.has_interval else "of one: none"


def _facts(name: str, meaning: str, facts: Mapping[str, str]) -> str:
    rows = (f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f"<table class=small><tr><th>{name}</th><th>{meaning}</th></tr>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _row(index: int, label: str, episode: Episode) -> str:
    cells = [label, f"{episode.total_reward:.4g}", f"{episode.num_steps:,}"]
    cells += [_text(episode.info.get(key, "-")) for key in ("policy", "seed")]
    data = "".join(f"<td>{escape(cell)}</td>" for cell in [*cells, _ending(episode)])
    return f"<tr><td><a href='#episode-{index}'>episode {index}</a></td>{data}</tr>"


def _table(rows: list[str]) -> str:
    names = ("", "", "return", "steps", "policy", "seed", "ended")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{''.join(rows)}</table>"


def _heading(index: int, label: str, episode: Episode) -> str:
    facts = [f"return {episode.total_reward:.4g}", f"{episode.num_steps:,} steps", _ending(episode)]
    facts += [f"{key} {_text(value)}" for key, value in episode.info.items()]
    title = f"Episode {index}" + (f": {label}" if label else "")
    return f"<h2 id='episode-{index}'>{title}</h2><p class=lead>{escape(', '.join(facts))}</p>"


def _pictures(files: list[Path], plot: str) -> str:
    if not files:
        return plot
    videos = "".join(
        f"<video controls loop muted playsinline width={FRAME_SIZE} src='{data_uri(file)}'></video>"
        for file in files[1:]
    )
    sheet = f"<img src='{data_uri(files[0])}' alt='contact sheet'>"
    return f"<div class=beside>{videos}<div class=grows>{plot}</div></div>{sheet}"


def _ending(episode: Episode) -> str:
    words = [name for name in ("terminated", "truncated") if getattr(episode, name)]
    return " and ".join(words) or "neither terminated nor truncated"


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make output={output}: {reason_of(error)}") from error
