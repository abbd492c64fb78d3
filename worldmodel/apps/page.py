"""Self-contained HTML pages: what all of them are made of, and the one about a run."""

import base64
import html
import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worldmodel.apps import plots
from worldmodel.apps.control import VIDEO_FILE
from worldmodel.apps.imagine_report import COLUMNS, told_error
from worldmodel.apps.report import AGENTS
from worldmodel.errors import RunError
from worldmodel.files import reason_of, write_text
from worldmodel.training import read_metrics

_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2933 }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d9e2ec; padding-bottom: .2rem }
.lead { color: #52606d; margin-top: .3rem } img, video { max-width: 100%; border-radius: 6px }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .9rem; text-align: right }
th { border-bottom: 2px solid #9aa5b1 } td:first-child, th:first-child { text-align: left }
tr.ours { font-weight: 600 }
pre { background: #f0f4f8; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto }
.numbers { display: flex; gap: 2.5rem; flex-wrap: wrap; margin: 1.5rem 0 }
.numbers b { display: block; font-size: 1.8rem; color: #e4572e }
.beside { display: flex; gap: 1.5rem 2.5rem; flex-wrap: wrap; align-items: flex-start }
.beside > .grows { flex: 1; min-width: 20rem }
.small { font-size: .85rem } .small td, .small th { text-align: left }
.small td:last-child { overflow-wrap: anywhere }
"""


def write_page(
    run_dir: Path,
    config: dict[str, Any],
    controls: dict[str, dict[str, Any]],
    imagined: dict[str, Any],
    checkpoint: Path,
) -> Path:
    """Write `run_dir/index.html` from what `train`, `control` and `imagine` left; returns its path."""
    records = read_metrics(run_dir)
    task, seed, planner = config["task"], config["seed"], controls["planner"]
    seconds = max((r["train/seconds"] for r in records if "train/seconds" in r), default=0.0)
    env_steps = max((r["env_steps"] for r in records), default=0)
    latency = planner["latency"]
    period = latency["control_period_ms"]
    sections = [
        f"<h1>{escape(task)}, learned from nothing</h1>",
        "<p class=lead>A world model was trained on the robot's own experience alone. "
        "A planner picks each action by imagining futures in the model's latent space.</p>",
        "<div class=numbers>",
        number(f"{planner['return']['mean']:.0f}", f"mean return of {planner['return']['count']} episodes"),
        number(f"{seconds / 60:.1f} min", "of training"),
        number(f"{env_steps:,}", "env steps of experience"),
        number(f"{latency['p99_ms']:.1f} ms", "99th percentile of a decision" + _of_period(period)),
        "</div>",
        "<h2>Closed-loop control</h2>",
        "<video controls autoplay loop muted playsinline "
        f"src='{data_uri(run_dir / 'control-planner' / VIDEO_FILE)}'></video>",
        _comparison(controls),
        _latency(latency),
        "<h2>Learning curve</h2>",
        picture(plots.learning_curve(records, task)),
        "<h2>Imagined against real</h2>",
        "<p>The same actions, once in the simulator and once in the model, which sees only the first "
        "observation. Observations are read from the latent by least squares "
        f"(R² {imagined['readout_r2']:.3f}).</p>",
        f"<img src='{data_uri(run_dir / 'imagine' / 'imagine.png')}' alt='imagined against real'>",
        _error_table(imagined["table"]),
        "<h2>Repeat each part</h2>",
        f"<pre>{escape(_commands(run_dir, config, planner))}</pre>",
        f"<p class=lead>{escape(f'Checkpoint {checkpoint}; seed {seed}; {_machine()}.')}</p>",
    ]
    return write_document(run_dir / "index.html", f"{task} - worldmodel", sections)


def write_document(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Write a page of these pieces of HTML; returns its path. Errors: `RunError`."""
    page = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
    try:
        # JSON can hold half a character, which no encoding has.
        write_text(path, page, errors="xmlcharrefreplace")
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason_of(error)}") from error
    return path


def number(value: str, meaning: str) -> str:
    """A number that is read at first sight, for a `<div class=numbers>`."""
    return f"<div><b>{value}</b>{meaning}</div>"


def picture(figure: Any) -> str:
    """A plot, as a part of the page; frees the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plots.plt.close(figure)
    return f"<img src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}' alt='plot'>"


def data_uri(path: Path) -> str:
    """An mp4 or PNG, as the source of an element."""
    kind = {"mp4": "video/mp4", "png": "image/png"}[path.suffix[1:]]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def escape(text: str) -> str:
    """Text that means itself in HTML: between tags, or in a quoted attribute."""
    return html.escape(text)


def _commands(run_dir: Path, config: dict[str, Any], planner: dict[str, Any]) -> str:
    task = config["task"]
    # A module that a task imports is the user's to name, each time.
    trained = f"checkpoint={run_dir}" + (f" task={task}" if ":" in task else "")
    control = f"worldmodel control {trained} episodes={planner['return']['count']}"
    lines = [
        f"worldmodel train experiment=demo task={task} seed={config['seed']} run_dir={run_dir}-again",
        f"{control} output={run_dir}/control-planner",
        f"{control} planner=cem output={run_dir}/control-cem",
    ]
    baselines = [agent for agent in AGENTS if agent != "planner"]
    lines += [f"{control} agent={agent} video=false output={run_dir}/control-{agent}" for agent in baselines]
    return "\n".join([*lines, f"worldmodel imagine {trained}"])


def _comparison(controls: dict[str, dict[str, Any]]) -> str:
    rows = []
    for agent, result in controls.items():
        mean = result["return"]
        kind = " class=ours" if agent == "planner" else ""
        interval = "-" if mean["count"] < 2 else f"[{mean['low']:.0f}, {mean['high']:.0f}]"
        rows.append(
            f"<tr{kind}><td>{AGENTS[agent]}</td><td>{mean['mean']:.0f}</td><td>{interval}</td>"
            f"<td>{result['latency']['p50_ms']:.2f} ms</td></tr>"
        )
    count = controls["planner"]["return"]["count"]
    header = (
        "<tr><th>agent</th><th>mean return</th>"
        f"<th>95 % interval, {count} episodes</th><th>decision, median</th></tr>"
    )
    return f"<table>{header}{''.join(rows)}</table>"


def _latency(latency: dict[str, Any]) -> str:
    text = (
        f"A decision takes {latency['p50_ms']:.1f} ms (median), {latency['p95_ms']:.1f} ms (p95), "
        f"{latency['p99_ms']:.1f} ms (p99), {latency['max_ms']:.1f} ms at most"
    )
    if latency["control_period_ms"] is None:
        return f"<p>{text}.</p>"
    return (
        f"<p>{text}; the robot asks for one every {latency['control_period_ms']:.0f} ms, and "
        f"{latency['fraction_in_time']:.1%} came in time.</p>"
    )


def _error_table(rows: list[dict[str, int | float]]) -> str:
    keys = [key for key in rows[0] if key in COLUMNS] if rows else []
    header = "".join(f"<th>{COLUMNS[key]}</th>" for key in keys)
    body = "".join(
        "<tr>" + "".join(f"<td>{told_error(key, row[key])}</td>" for key in keys) + "</tr>" for row in rows
    )
    return f"<table><tr>{header}</tr>{body}</table>"


def _of_period(period_ms: float | None) -> str:
    return "" if period_ms is None else f" (period {period_ms:.0f} ms)"


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "mujoco", "dm-control"))
    return f"Python {platform.python_version()}, {packages}, {platform.system()} {platform.machine()}"
