"""A trained model as a folder to pass on: its weights, and a card that says what it can do."""

import tempfile
from pathlib import Path
from typing import Any

from worldmodel.apps import provenance
from worldmodel.apps.config import compose_config, not_negative, positive, quoted, to_dict
from worldmodel.apps.control import control
from worldmodel.apps.imagine import imagine
from worldmodel.apps.pretrained import is_packaged
from worldmodel.apps.run import read_config
from worldmodel.apps.statistics import mean_interval
from worldmodel.apps.trained import TrainedRun, open_run
from worldmodel.errors import RunError
from worldmodel.files import committed_directory, reason_of, write_json
from worldmodel.training import export_model, read_metrics

CARD_FILE = "card.json"
# Of a run's settings: where it lay and how far it was to go are of no use to others.
_LEFT_OUT = {"run_dir", "resume", "dataset", "num_threads", "device", "keep_checkpoints"}


def export(config: dict[str, Any]) -> dict[str, Any]:
    """Measure a model, then write `model.safetensors`, `state.json`, `card.json` and `README.md`.

    `config` is that of `configs/export.yaml`. Returns the content of `card.json`. The folder appears whole
    or not at all.
    Errors: `RunError` where the folder exists or another run is not of the same recipe.
    """
    positive(config, "episodes")
    not_negative(config, "seed")
    output = Path(config["output"])
    if output.exists():
        raise RunError(f"output={output} exists: choose another folder, or delete this one")
    run = open_run(config["checkpoint"], task=config["task"])
    if run.checkpoint.is_exported:
        raise RunError(f"checkpoint={config['checkpoint']} is an exported model already: copy its folder")
    if run.config["dataset"] is not None:
        raise RunError(
            f"checkpoint={config['checkpoint']} was trained offline, and a card names env steps, which it "
            "has none of: export a run that acted"
        )
    others = [Path(path) for path in config["others"]]
    recipe = _recipe(run, others)
    info = {
        "task": run.checkpoint.info["task"],
        "env_steps": run.checkpoint.info["env_steps"],
        "config": {key: value for key, value in run.config.items() if key not in _LEFT_OUT},
    }
    try:
        with committed_directory(output) as temporary:  # made before minutes are spent on measuring
            card = _card(run, recipe, episodes=config["episodes"], seed=config["seed"])
            export_model(run.checkpoint, temporary, info)
            write_json(temporary / CARD_FILE, card)
            (temporary / "README.md").write_text(_text(card, output))
    except OSError as error:
        raise RunError(f"cannot write {output}: {reason_of(error)}") from error
    return card


def _card(run: TrainedRun, recipe: dict[str, Any], *, episodes: int, seed: int) -> dict[str, Any]:
    checkpoint = run.checkpoint
    with tempfile.TemporaryDirectory() as folder:
        subject = [quoted("checkpoint", checkpoint.path), quoted("task", run.task), f"seed={seed}"]
        controlled, imagined = (
            act(to_dict(compose_config(verb, [*subject, quoted("output", folder), *more])), says_where=False)
            for act, verb, more in (
                (control, "control", [f"episodes={episodes}", "video=false", "alarm=off"]),
                (imagine, "imagine", ["decoder.updates=0"]),
            )
        )
    record = provenance.read_record(run.directory) or {"preset": None, "starts": []}
    return {
        "task": run.task,
        "env_steps": checkpoint.info["env_steps"],
        "seed": run.config["seed"],
        "score": controlled["return"] | {"seed": seed},
        "latency": controlled["latency"],
        "recipe": recipe,
        "num_parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "latent_dim": run.model.size.latent_dim,
        "errors": imagined["table"],
        "training_cpu_minutes": checkpoint.info["training_cpu_seconds"] / 60,
        "preset": record["preset"],
        "commit": next((start.get("commit") for start in record["starts"]), None),
        "hardware": provenance.machine(),
    }


def _recipe(run: TrainedRun, others: list[Path]) -> dict[str, Any]:
    """What the last evaluations of runs of one recipe come to. Of the others, no weights are needed."""
    configs = [run.config, *(read_config(other) for other in others)]
    for other, config in zip(others, configs[1:], strict=True):
        _check_same_recipe(run, other, config)
    seeds = [config.get("seed") for config in configs]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"the runs have the seeds {', '.join(map(str, seeds))}: each must have its own")
    scores = [_last_evaluation(directory, run.config) for directory in (run.directory, *others)]
    return mean_interval(scores).to_json() | {"seeds": seeds, "scores": scores}


def _last_evaluation(directory: Path, config: dict[str, Any]) -> float:
    """The mean return of the evaluation that ended the training. Errors: `RunError` for one without."""
    for record in reversed(read_metrics(directory)):
        if "eval/return" in record and record["env_steps"] >= config["env_steps"]:
            return float(record["eval/return"])
    raise RunError(
        f"{directory} has no evaluation after its {config['env_steps']} env steps: let its training end "
        f"(worldmodel train run_dir={directory} resume=true)"
    )


def _check_same_recipe(run: TrainedRun, other: Path, config: dict[str, Any]) -> None:
    free = _LEFT_OUT | {"seed", "compile"}
    # Runs of an earlier version know nothing of settings that came later: theirs are today's defaults.
    defaults = to_dict(compose_config("train", []))
    settings, others = (
        {key: value for key, value in _completed(each, defaults).items() if key not in free}
        for each in (run.config, config)
    )
    differing = sorted(key for key in settings.keys() | others.keys() if settings.get(key) != others.get(key))
    if differing:
        raise RunError(
            f"{other} is not of the same recipe as {run.directory}: they differ in {', '.join(differing)}"
        )


def _completed(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`config`, with the defaults of what it does not name."""
    completed = defaults | config
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(completed[key], dict):
            completed[key] = _completed(completed[key], default)
    return completed


def _text(card: dict[str, Any], output: Path) -> str:
    """The card for people."""
    score, recipe, latency = card["score"], card["recipe"], card["latency"]
    period = latency["control_period_ms"]
    shown = [
        ("task", f"{card['task']}, {card['env_steps']:,} env steps (action repeat counted)"),
        ("score", f"{_interval(score)}: return of {score['count']} episodes (seed {score['seed']})"),
        (
            "recipe",
            f"{_interval(recipe)} at the end of training, seeds {', '.join(map(str, recipe['seeds']))}; "
            f"these weights: seed {card['seed']}",
        ),
        (
            "decision",
            f"p50 {latency['p50_ms']:.1f}, p95 {latency['p95_ms']:.1f}, p99 {latency['p99_ms']:.1f} ms "
            "on one thread" + ("" if period is None else f"; control period {period:.0f} ms"),
        ),
        ("model", f"latent size {card['latent_dim']}, {card['num_parameters']:,} parameters"),
        ("training", f"{card['training_cpu_minutes']:.0f} CPU minutes; commit {card['commit'] or 'unknown'}"),
        ("measured on", card["hardware"]),
    ]
    errors = [
        f"| {row['steps']} | {row['reward_error']:.3f} | {row['observation_error']:.3f} "
        f"| {row['no_motion_error']:.3f} |"
        for row in card["errors"]
    ]
    commands = [f"worldmodel control checkpoint={output.name}   # the path of this folder"]
    if is_packaged(output):
        commands = [f"worldmodel control checkpoint=pretrained/{output.name}"]
    if preset := card["preset"]:
        train = f"worldmodel train experiment={preset} task={card['task']} seed={card['seed']}"
        commands.append(f"{train}   # how it was made")
    return "\n".join(
        [
            f"# {output.name}",
            "",
            "A world model and its policy prior, to plan with.",
            "",
            "```",
            *commands,
            "```",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in shown),
            "",
            "Imagined from one observation and the actions alone, against what happened: mean absolute error",
            "of the reward of that step, root mean square error of observations in standard deviations.",
            "",
            "| steps ahead | reward | observation | if nothing moved |",
            "|---|---|---|---|",
            *errors,
            "",
        ]
    )


def _interval(mean: dict[str, Any]) -> str:
    if mean["low"] is None:
        return f"{mean['mean']:.0f}"
    return f"{mean['mean']:.0f} [{mean['low']:.0f}, {mean['high']:.0f}]"
