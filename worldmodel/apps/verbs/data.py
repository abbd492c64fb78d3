"""`worldmodel data ...`."""

from collections.abc import Sequence
from typing import Any

from worldmodel.apps.verbs.verb import Verb


def _data_info(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.look import info

    info(config)


def _data_validate(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.validate import validate

    validate(config)


def _data_show(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.show import show

    print(f"the page: {show(config)}")


def _data_split(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import split
    from worldmodel.apps.progress import counted

    parts = split(config)
    print(
        ", ".join(
            f"{counted(count, 'episode')} in {config['output']}/{name}" for name, count in parts.items()
        )
    )


def _data_merge(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import merge
    from worldmodel.apps.progress import counted

    count, num_twice = merge(config)
    print(f"{counted(count, 'episode')} in {config['output']}")
    if num_twice:
        print(f"{num_twice} left out: in already, of the same collection and number")


def _data_filter(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import keep
    from worldmodel.apps.progress import counted

    kept, total = keep(config)
    print(f"{kept} of {counted(total, 'episode')} in {config['output']}")


def _data_compact(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.rewrite import compact
    from worldmodel.apps.progress import counted

    print(f"{counted(compact(config), 'shard')} fewer in {config['dataset']}")


def _data_export(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.exchange import export_dataset
    from worldmodel.apps.progress import counted

    count, how_to_find = export_dataset(config)
    print(f"{counted(count, 'episode')} in {config['output']}")
    if how_to_find:
        print(how_to_find)


def _data_import(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.datasets.exchange import import_dataset
    from worldmodel.apps.progress import counted

    print(f"{counted(import_dataset(config), 'episode')} in {config['output']}")


def _conditions_as_overrides(words: Sequence[str]) -> list[str]:
    """`'return>500'` as `where=[...]`."""
    from worldmodel.apps.config import closest, keys_of, quoted
    from worldmodel.apps.datasets.conditions import CONDITION
    from worldmodel.errors import ConfigError

    conditions = [word for word in words if CONDITION.fullmatch(word)]
    others = [word for word in words if word not in conditions]
    for key, equals, value in (word.partition("=") for word in others):
        if equals and not closest(key, known := keys_of("data_filter")) and key not in known:
            raise ConfigError(f"{key}={value} is no condition: two = compare, '{key}=={value}'")
    if not conditions:
        return others
    texts = ",".join(quoted("", condition).removeprefix("=") for condition in conditions)
    return [*others, f"where=[{texts}]"]


DATA_VERBS = {
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
    "data show": Verb(
        summary="Look at episodes: a page with contact sheets, videos and plots over time.",
        examples=(
            "worldmodel data show dataset=data/reacher",
            "worldmodel data show dataset=data/reacher episodes=[0,7,-1] every=10 output=runs/look",
        ),
        run=_data_show,
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
}
