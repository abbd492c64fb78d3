"""`data validate`: whether all of a dataset can be read."""

from pathlib import Path
from typing import Any

from worldmodel.apps.datasets.bounds import breaks_bounds, largest_of
from worldmodel.apps.progress import ProgressDisplay, console, counted
from worldmodel.data.store import EpisodeStore
from worldmodel.errors import DatasetError


def validate(config: dict[str, Any]) -> None:
    """Read every byte of a dataset, and say what is damaged.

    `config` is that of `configs/data_validate.yaml`.
    Errors: `DatasetError` that names the damaged shards; all others were read.
    """
    store = EpisodeStore(Path(config["dataset"]))
    names = store.shard_names()
    num_episodes, damaged, unchecked, largest = 0, [], 0, 0.0
    with ProgressDisplay("validating", max(1, len(names)), "shards") as display:
        for index, name in enumerate(names):
            try:
                header = store.header(name)
                episodes = store.read(header)
                num_episodes += len(episodes)
                largest = max([largest, *(largest_of(episode.action) for episode in episodes)])
                unchecked += not header.checksums
            except DatasetError as error:
                if not store.holds(name):
                    raise DatasetError(
                        f"dataset={config['dataset']} was merged meanwhile: validate it again"
                    ) from error
                damaged.append(name)
                display.note(str(error))
            display.update(index + 1)
    if warning := breaks_bounds(largest):
        console.print(f"warning: {warning}")
    if damaged:
        raise DatasetError(
            f"dataset={config['dataset']}: {len(damaged)} of {counted(len(names), 'shard')} "
            f"{'is' if len(damaged) == 1 else 'are'} damaged ({', '.join(damaged)}); "
            f"{counted(num_episodes, 'episode')} in the others {'is' if num_episodes == 1 else 'are'} whole. "
            f"Delete their folders in {store.path / 'shards'}, or copy the rest: worldmodel data filter "
            f"dataset={config['dataset']} skip_damaged=true output=NEW"
        )
    remark = f" ({counted(unchecked, 'shard')} of the first schema without checksums)" if unchecked else ""
    console.print(f"ok: {counted(num_episodes, 'episode')} in {counted(len(names), 'shard')}{remark}")
