"""Minari's HDF5 datasets (0.5): a folder with `data/main_data.hdf5` and `data/metadata.json`.

    main_data.hdf5: for each episode of T steps a group episode_<i>, attributes id, total_steps, seed
        observations (T + 1, ...)    a plain array for the state alone or the pixels alone, as users of
                                     offline learning expect; a Dict (group) of `pixels` and `state` if both
        actions (T, A), rewards (T,), terminations (T,) and truncations (T,) bool, the last one true at most
        infos/<name> (T + 1, ...)    an extra column: the row of a step stands beside the observation it
                                     starts from; a row of 0 follows, as infos are as many as observations
    metadata.json: the spaces, and what Minari lists of a dataset

Pixels lie there as H x W x C, and not as JPEG (`jpeg_encoding` false), which only Minari 0.5.4 and later
read; a dataset of states says version 0.5.0, so that earlier ones read it too. The actions are Box(-1, 1),
unless some are larger: then they have no bounds.

`load_dataset(id)` finds a dataset by its path below the root, `$MINARI_DATASETS_PATH` or ~/.minari/datasets,
and that path must be the `dataset_id` inside. So it is when the folder lies below this root; elsewhere the id
is the last two parts of the path, and the folder above them the root: `how_to_find` says both. What Minari
has no place for (info) stands as JSON under the key `worldmodel` of metadata.json, and in the attribute
`worldmodel` of each episode.
"""

from worldmodel.data.formats.minari.reader import read
from worldmodel.data.formats.minari.writer import how_to_find, write

__all__ = ["how_to_find", "read", "write"]
