"""The verbs of the console script; each imports what it runs only then: a typing error is told at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One application: what it does, how it is called, and how it is run."""

    summary: str
    examples: tuple[str, ...]
    run: Callable[[dict[str, Any], set[str]], None]
    # What some overrides imply, as overrides that stand before them.
    implied: Callable[[Sequence[str]], list[str]] = lambda overrides: []
    # The words of the command line as overrides: some verbs take more than these.
    overrides_of: Callable[[Sequence[str]], list[str]] = list


def _train(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.run import check_new_run, going_on_with, opened_run, resume_command, resumed_config
    from worldmodel.apps.train import make_training, with_dataset_facts

    if config["dataset"] is not None and not config["resume"]:
        config = with_dataset_facts(config, given)
    run_dir = Path(config["run_dir"])
    if config["resume"]:
        config = resumed_config(run_dir, config, given)
    else:
        check_new_run(run_dir)
    with opened_run(run_dir, config):
        training = make_training(run_dir, config)
    with going_on_with(resume_command(run_dir, config)):
        training.run()
    print(f"trained; see it act with:  worldmodel control checkpoint={run_dir}")


def _control(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.control import control

    control(config)


def _oracle_defaults(overrides: Sequence[str]) -> list[str]:
    """The simulator knows no value of what follows a plan: it must look further than a learned model."""
    if "model=oracle" not in overrides:
        return []
    given = {override.partition("=")[0] for override in overrides}
    if "checkpoint" in given:  # it has a value of what follows, and a planner that fits it
        return []
    defaults = {"planner": "icem", "budget": "oracle"}
    return [f"{key}={option}" for key, option in defaults.items() if key not in given]


def _imagine(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.imagine import imagine

    imagine(config)


def _collect(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.collect import collect

    mean = collect(config)
    if mean is None:
        print(
            f"{config['dataset']} has all {config['episodes']} episodes of this collection: "
            "raise episodes=, or give another seed="
        )
    else:
        print(f"{mean.count} episodes with return {mean} in {config['dataset']}")


def _export(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.export import export

    export(config)
    print(f"exported; see it act with:  worldmodel control checkpoint={config['output']}")


def _bench_learning(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench_learning import bench_learning

    print(f"report in {bench_learning(config)}")


def _bench_speed(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.speed import bench_speed

    print(f"report in {bench_speed(config, given)}")


def _bench_peers(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.peers import bench_peers

    print(f"report in {bench_peers(config, given)}")


def _bench_planners(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.planners import bench_planners

    print(f"report in {bench_planners(config)}")


def _data_info(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.look import info

    info(config)


def _data_validate(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.look import validate

    validate(config)


def _data_split(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import split

    parts = split(config)
    print(", ".join(f"{count} episodes in {config['output']}/{name}" for name, count in parts.items()))


def _data_merge(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import merge

    print(f"{merge(config)} episodes in {config['output']}")


def _data_filter(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import keep

    kept, total = keep(config)
    print(f"{kept} of {total} episodes in {config['output']}")


def _data_compact(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import compact

    print(f"{compact(config)} shards fewer in {config['dataset']}")


def _data_export(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.exchange import export_dataset

    print(f"{export_dataset(config)} episodes in {config['output']}")


def _data_import(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.exchange import import_dataset

    print(f"{import_dataset(config)} episodes in {config['output']}")


def _conditions_as_overrides(words: Sequence[str]) -> list[str]:
    """`'return>500'` as `where=[...]`."""
    from worldmodel.apps.config import quoted
    from worldmodel.apps.datasets.conditions import CONDITION

    conditions = [word for word in words if CONDITION.fullmatch(word)]
    others = [word for word in words if word not in conditions]
    if not conditions:
        return others
    texts = ",".join(quoted("", condition).removeprefix("=") for condition in conditions)
    return [*others, f"where=[{texts}]"]


def _demo(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.demo import demo

    demo(config)


VERBS = {
    "demo": Verb(
        summary="Learn a task from nothing, control it, imagine it, and show all on one page.",
        examples=("worldmodel demo", "worldmodel demo task=reacher-easy run_dir=runs/reacher"),
        run=_demo,
    ),
    "train": Verb(
        summary="Learn a world model: act, record, update, evaluate, repeat; or offline from a dataset.",
        examples=(
            "worldmodel train task=cartpole-swingup",
            "worldmodel train task=HalfCheetah-v5 env.action_repeat=1 model=small env_steps=200_000",
            "worldmodel train run_dir=runs/cartpole-swingup/seed-0 resume=true env_steps=200_000",
            "worldmodel train dataset=data/reacher num_updates=20_000",
        ),
        run=_train,
    ),
    "control": Verb(
        summary="Control the robot in closed loop, by a trained model or the oracle: return, latency, video.",
        examples=(
            "worldmodel control checkpoint=pretrained/cheetah-run",
            "worldmodel control checkpoint=runs/demo planner=cem planner.horizon=5 episodes=3",
            "worldmodel control checkpoint=runs/demo agent=policy video=false",
            "worldmodel control model=oracle task=cheetah-run planner=icem",
        ),
        run=_control,
        implied=_oracle_defaults,
    ),
    "imagine": Verb(
        summary="Imagined against real: the same actions in the model and in the simulator.",
        examples=(
            "worldmodel imagine checkpoint=runs/demo",
            "worldmodel imagine checkpoint=runs/demo horizon=100",
        ),
        run=_imagine,
    ),
    "collect": Verb(
        summary="Record rollouts into a dataset.",
        examples=(
            "worldmodel collect task=reacher-easy policy=colored episodes=50 dataset=data/reacher",
            "worldmodel collect task=cheetah-run num_envs=64 episodes=640 dataset=data/cheetah",
            "worldmodel collect checkpoint=runs/demo policy='0.3 random + 0.7 planner' dataset=data/cartpole",
        ),
        run=_collect,
    ),
    "data info": Verb(
        summary="What a dataset holds: facts, histograms of returns and lengths, coverage.",
        examples=("worldmodel data info dataset=data/reacher",),
        run=_data_info,
    ),
    "data validate": Verb(
        summary="Read every byte of a dataset and say what is damaged.",
        examples=("worldmodel data validate dataset=data/reacher",),
        run=_data_validate,
    ),
    "data filter": Verb(
        summary="Copy the episodes for which conditions hold.",
        examples=(
            "worldmodel data filter dataset=data/reacher 'return>500' output=data/reacher-good",
            "worldmodel data filter dataset=data/reacher 'policy==planner' 'length>=100' output=data/planned",
        ),
        run=_data_filter,
        overrides_of=_conditions_as_overrides,
    ),
    "data split": Verb(
        summary="Copy episodes at random into train and held-out ones.",
        examples=("worldmodel data split dataset=data/reacher output=data/reacher-split fraction=0.2",),
        run=_data_split,
    ),
    "data merge": Verb(
        summary="Copy the episodes of several datasets into one.",
        examples=("worldmodel data merge datasets=[data/a,data/b] output=data/both",),
        run=_data_merge,
    ),
    "data compact": Verb(
        summary="Put the small shards of a dataset together, in place, while others read and record.",
        examples=("worldmodel data compact dataset=data/reacher",),
        run=_data_compact,
    ),
    "data export": Verb(
        summary="Write a dataset in another format: Minari, LeRobot v3, stable-worldmodel.",
        examples=(
            "worldmodel data export dataset=data/reacher format=minari output=minari/reacher/random-v0",
        ),
        run=_data_export,
    ),
    "data import": Verb(
        summary="Copy a dataset of another format into a new one of ours.",
        examples=(
            "worldmodel data import source=minari/reacher/random-v0 format=minari output=data/reacher "
            "task=reacher-easy",
        ),
        run=_data_import,
    ),
    "export": Verb(
        summary="Measure a trained model, and write it as a small folder to pass on, with a card.",
        examples=(
            "worldmodel export checkpoint=runs/demo output=models/cartpole",
            "worldmodel export checkpoint=runs/a/seed-0 others=[runs/a/seed-1,runs/a/seed-2] output=models/a",
        ),
        run=_export,
    ),
    "bench planners": Verb(
        summary="Measure planners: return against evaluations and milliseconds; goes on where it stopped.",
        examples=(
            "worldmodel bench planners problems=[lqr]",
            "worldmodel bench planners problems=[oracle] tasks=[cheetah-run] planners=[cem,icem]",
            "worldmodel bench planners \"planners=[icem,'icem noise=white']\" problems=[lqr]",
            "worldmodel bench planners report=true",
        ),
        run=_bench_planners,
    ),
    "bench learning": Verb(
        summary="Measure learning: tasks x seeds, curves and tables; goes on where it stopped.",
        examples=(
            "worldmodel bench learning",
            "worldmodel bench learning tasks=[walker-walk] seeds=[0,1,2] num_workers=1",
            "worldmodel bench learning report=true",
        ),
        run=_bench_learning,
    ),
    "bench speed": Verb(
        summary="Measure how fast planning is here: decisions, model steps, share of the matmul floor.",
        examples=(
            "worldmodel bench speed",
            "worldmodel bench speed task=cheetah-run problems=[model] model=small compile=true",
            "worldmodel bench speed device=cuda num_candidates=512",
        ),
        run=_bench_speed,
    ),
    "bench peers": Verb(
        summary="Other libraries' planners beside ours: same problems, same budgets, same process.",
        examples=(
            "worldmodel bench peers",
            "worldmodel bench peers libraries=[pytorch_mppi] problems=[linear] repeats=5",
        ),
        run=_bench_peers,
    ),
}
