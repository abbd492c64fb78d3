"""`data validate`: whether all of a dataset can be read."""

from pathlib import Path
from typing import Any

from worldmodel.apps.progress import ProgressDisplay, console
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


def validate(config: dict[str, Any]) -> None:
    """Read every byte of a dataset, and say what is damaged.

    `config` is that of `configs/data_validate.yaml`.
    Errors: `DatasetError` that names the damaged shards; all others were read.
    """
    store = EpisodeStore(Path(config["dataset"]))
    names = store.shard_names()
    num_episodes, damaged, unchecked = 0, [], 0
    with ProgressDisplay("validating", max(1, len(names)), "shards") as display:
        for index, name in enumerate(names):
            try:
                header = store.header(name)
                num_episodes += len(store.read(header))
                unchecked += not header.checksums
            except DatasetError as error:
                if not store.holds(name):
                    raise DatasetError(
                        f"dataset={config['dataset']} was merged meanwhile: validate it again"
                    ) from error
                damaged.append(name)
                display.note(str(error))
            display.update(index + 1)
    if damaged:
        raise DatasetError(
            f"dataset={config['dataset']}: {len(damaged)} of {len(names)} shards are damaged "
            f"({', '.join(damaged)}); the other {num_episodes} episodes are whole"
        )
    remark = f" ({unchecked} shards of the first schema have no checksums)" if unchecked else ""
    console.print(f"ok: {num_episodes} episodes in {len(names)} shards{remark}")
