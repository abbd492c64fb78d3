"""stable-worldmodel's HDF5 files: ours come back to the bit, its loader can use them, we read its own."""

import json
import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from exported import INFO, assert_refused_by, export_as, read_all_of, some_episodes
from made_episodes import assert_same_array, assert_same_episode, made_episode

from worldmodel.errors import DatasetError

h5py = pytest.importorskip("h5py")

from worldmodel.data.formats import dataset_format, stable_worldmodel  # noqa: E402

export, read_all = partial(export_as, stable_worldmodel), partial(read_all_of, stable_worldmodel)
assert_refused = partial(assert_refused_by, stable_worldmodel)


def random_episode(num_steps, num_channels=3, *, state=False):
    """Pixels whose axes all have different sizes."""
    episode = made_episode(1, num_steps)
    shape = (num_steps + 1, num_channels, 6, 8)
    observation = {"pixels": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    if state:
        observation["state"] = episode.observation["state"]
    return replace(episode, observation=observation)


def recording(path, lengths=(4, 3), **columns):
    """A file as stable-worldmodel's own writer makes one: growing columns, one row a chunk."""
    with h5py.File(path, "w", libver="latest") as file:
        for name, column in columns.items():
            column = np.asarray(column)
            file.create_dataset(
                name, data=column, maxshape=(None, *column.shape[1:]), chunks=(1, *column.shape[1:])
            )
        file["ep_len"] = np.array(lengths, np.int32)
        file["ep_offset"] = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    return path


def recorded_columns():
    """Two episodes, of 3 and 2 steps: action and observation of a row belong together, rewards come later."""
    rows = np.arange(7, dtype=np.float64)
    return {
        "observation": np.stack([rows, -rows], axis=1),
        "action": np.array([[0], [1], [2], [np.nan], [4], [5], [np.nan]], np.float32),
        "reward": np.array([np.nan, 10, 11, 12, np.nan, 14, 15]),
        "terminated": rows == 3,
        "truncated": rows == 6,
        "step_idx": np.array([0, 1, 2, 3, 0, 1, 2]),
    }


@pytest.mark.parametrize(
    "episodes",
    [
        some_episodes(),
        some_episodes(pixels=True, plan=True),
        [random_episode(4)],
        [random_episode(3, num_channels=9, state=True), random_episode(2, num_channels=9, state=True)],
    ],
    ids=["state", "state, pixels and extras", "pixels", "stacked pixels and state"],
)
def test_what_is_written_is_read_back_to_the_bit(tmp_path, episodes):
    info, found = read_all(export(tmp_path / "new" / "made.h5", episodes))
    assert info == INFO
    assert len(found) == len(episodes)
    for left, right in zip(found, episodes, strict=True):
        assert_same_episode(left, right)


def test_extra_columns_of_every_dtype_are_read_back_to_the_bit(tmp_path):
    dtypes = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
    extra = {f"as_{dtype}": np.array([[0, 1], [1, 0]], dtype=dtype) for dtype in dtypes}
    # A name that stable-worldmodel has a column of its own for.
    extra["reward"] = np.array([1, 2])
    episode = replace(made_episode(1, 2), extra=extra)
    _, found = read_all(export(tmp_path / "made.h5", [episode]))
    assert_same_episode(found[0], episode)


def test_the_info_of_many_episodes_is_read_back(tmp_path):
    # An attribute of HDF5 used to hold 64 KiB.
    episodes = [replace(made_episode(i, 1), info={"script": "ä" * 1000, "number": i}) for i in range(300)]
    _, found = read_all(export(tmp_path / "made.h5", episodes))
    assert [episode.info for episode in found] == [episode.info for episode in episodes]


def test_the_format_is_found_by_its_name():
    assert dataset_format("stable-worldmodel") is stable_worldmodel


def test_the_columns_are_those_of_stable_worldmodel(tmp_path):
    path = export(tmp_path / "made.h5", some_episodes(pixels=True, plan=True))
    # Its loader opens files for reading beside a writer, for which HDF5 wants this version of the file.
    assert path.read_bytes()[8] == 3
    with h5py.File(path, "r", swmr=True) as file:
        assert {name: (column.dtype.name, column.shape) for name, column in file.items()} == {
            "action": ("float32", (12, 3)),
            "reward": ("float32", (12,)),
            "state": ("float32", (12, 2)),
            "pixels": ("uint8", (12, 4, 4, 3)),
            "terminated": ("bool", (12,)),
            "truncated": ("bool", (12,)),
            "ep_idx": ("int32", (12,)),
            "step_idx": ("int32", (12,)),
            "extra.plan_mean": ("float32", (12, 5, 3)),
            "extra.num_iterations": ("int64", (12,)),
            "ep_len": ("int32", (3,)),
            "ep_offset": ("int64", (3,)),
        }
        assert file["ep_len"][:].tolist() == [6, 4, 2]
        assert file["ep_offset"][:].tolist() == [0, 6, 10]
        assert file["ep_idx"][:].tolist() == [0] * 6 + [1] * 4 + [2] * 2
        assert file["step_idx"][:].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1]
        assert np.flatnonzero(file["truncated"][:]).tolist() == [5]
        assert np.flatnonzero(file["terminated"][:]).tolist() == [9]
        for name in ("action", "reward", "extra.plan_mean"):
            is_nan = np.isnan(file[name][:].reshape(12, -1))
            assert np.flatnonzero(is_nan.any(1)).tolist() == [5, 9, 11], name
            assert np.flatnonzero(is_nan.all(1)).tolist() == [5, 9, 11], name


def test_a_window_of_rows_holds_what_belongs_together(tmp_path):
    """The way its loader cuts windows: rows from the episode's offset on, images with the channels first."""
    episodes = [random_episode(4, state=True), random_episode(6, state=True)]
    path = export(tmp_path / "made.h5", episodes)
    with h5py.File(path, "r") as file:
        first = file["ep_offset"][1] + 2
        window = {name: file[name][first : first + 3] for name in ("pixels", "state", "action", "reward")}
    expected = episodes[1]
    frames = np.ascontiguousarray(window["pixels"].transpose(0, 3, 1, 2))
    assert_same_array(frames, expected.observation["pixels"][2:5])
    assert_same_array(window["state"], expected.observation["state"][2:5])
    assert_same_array(window["action"], expected.action[2:5])
    assert_same_array(window["reward"], expected.reward[2:5])


def test_its_own_recording_is_read(tmp_path):
    info, (first, second) = read_all(recording(tmp_path / "made.h5", **recorded_columns()))
    assert info == {}
    assert first.observation["state"].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    assert first.action.tolist() == [[0], [1], [2]]
    assert first.reward.tolist() == [10, 11, 12]
    assert (first.terminated, first.truncated) == (True, False)
    assert second.observation["state"].tolist() == [[4, -4], [5, -5], [6, -6]]
    assert second.action.tolist() == [[4], [5]]
    assert second.reward.tolist() == [14, 15]
    assert (second.terminated, second.truncated) == (False, True)
    assert first.extra == second.extra == {}


def test_rewards_beside_their_actions_are_read_too(tmp_path):
    columns = recorded_columns() | {"reward": np.array([10, 11, 12, np.nan, 14, 15, np.nan])}
    _, (first, second) = read_all(recording(tmp_path / "made.h5", **columns))
    assert first.reward.tolist() == [10, 11, 12]
    assert second.reward.tolist() == [14, 15]


def test_a_file_without_rewards_and_ends_is_read_and_says_so(tmp_path):
    columns = recorded_columns()
    for name in ("reward", "terminated", "truncated"):
        del columns[name]
    info, (first, _) = read_all(recording(tmp_path / "made.h5", **columns))
    assert "missing" in info["reward"]
    assert first.reward.tolist() == [0, 0, 0]
    assert (first.terminated, first.truncated) == (False, True)


def test_the_state_is_the_column_of_that_name_and_others_are_extra_columns(tmp_path):
    columns = recorded_columns() | {
        "state": np.arange(14, dtype=np.float32).reshape(7, 2) + 50,
        "success": np.full(7, np.nan),  # a simulator that never says
        "variation.color": np.zeros((7, 3)),  # no name that a column of ours can have
        "goal": np.array([1, 2, 3, 4, 5, 6, 7], np.uint16),  # no dtype either
        "num_contacts": np.arange(7),
    }
    path = recording(tmp_path / "made.h5", **columns)
    with h5py.File(path, "r+") as file:
        file.create_dataset("caption", data=["walk"] * 7, dtype=h5py.string_dtype())
    _, (first, second) = read_all(path)
    assert first.observation["state"][0].tolist() == [50, 51]
    assert first.extra.keys() == second.extra.keys() == {"observation", "num_contacts"}
    assert first.extra["num_contacts"].tolist() == [0, 1, 2]
    assert second.extra["observation"].tolist() == [[4, -4], [5, -5]]


@pytest.mark.parametrize("channels_first", [False, True])
def test_images_are_read_in_both_of_its_layouts(tmp_path, channels_first):
    frames = np.random.default_rng(0).integers(0, 256, (7, 3, 6, 8), dtype=np.uint8)
    stored = frames if channels_first else frames.transpose(0, 2, 3, 1)
    columns = {"pixels": stored, "action": recorded_columns()["action"]}
    _, (first, second) = read_all(recording(tmp_path / "made.h5", **columns))
    assert_same_array(first.observation["pixels"], frames[:4])
    assert_same_array(second.observation["pixels"], frames[4:])


def test_episodes_of_one_row_hold_no_step(tmp_path):
    path = recording(tmp_path / "made.h5", lengths=(4, 1, 2), **recorded_columns())
    _, episodes = read_all(path)
    assert [episode.num_steps for episode in episodes] == [3, 1]
    assert episodes[1].action.tolist() == [[5]]


def test_numbers_of_the_other_byte_order_are_read(tmp_path):
    columns = recorded_columns() | {"num_contacts": np.arange(7, dtype=">i8")}
    columns["action"] = columns["action"].astype(">f4")
    _, (first, _) = read_all(recording(tmp_path / "made.h5", **columns))
    assert first.action.tolist() == [[0], [1], [2]]
    assert first.extra["num_contacts"].tolist() == [0, 1, 2]


def test_a_name_by_which_stable_worldmodel_would_not_know_it_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"let its name end in \.h5"):
        export(tmp_path / "made", some_episodes())
    assert not list(tmp_path.iterdir())


def test_an_existing_file_and_an_empty_dataset_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no episode"):
        export(tmp_path / "made.h5", [])
    export(tmp_path / "made.h5", some_episodes())
    with pytest.raises(DatasetError, match=r"made\.h5 exists"):
        export(tmp_path / "made.h5", some_episodes())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("an error of h5py")])
def test_nothing_is_left_of_an_export_that_failed(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(stable_worldmodel, "_fill", fail)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        export(tmp_path / "made.h5", some_episodes())
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("when", ["start", "middle", "end"])
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, capfd, when):
    """HDF5 itself prints, and may end the process."""
    resource = pytest.importorskip("resource")
    episodes = [made_episode(i, 400, pixels=True, plan=True) for i in range(10)]
    folder = tmp_path / "full"
    folder.mkdir()
    size = export(tmp_path / "made.h5", episodes).stat().st_size
    max_bytes = {"start": 1_000, "middle": size // 2, "end": size - 1}[when]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(DatasetError, match=r"cannot write to .*made\.h5 \(File too large\)") as caught:
            export(folder / "made.h5", episodes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ".tmp-" not in str(caught.value)
    assert not list(folder.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_told(tmp_path):
    assert_refused(tmp_path / "none.h5", r"there is no .*none\.h5")


def test_a_damaged_file_is_told(tmp_path):
    path = export(tmp_path / "made.h5", some_episodes(pixels=True))
    content = path.read_bytes()
    for damaged in (b"", b"no HDF5 at all", content[: len(content) // 2]):
        path.write_bytes(damaged)
        assert_refused(path, r"cannot read .*made\.h5: .* damaged")


@pytest.mark.parametrize("name", ["ep_len", "ep_offset", "action", "state", "reward", "extra.plan_mean"])
def test_a_missing_column_of_ours_is_told(tmp_path, name):
    path = export(tmp_path / "made.h5", some_episodes(plan=True))
    with h5py.File(path, "r+") as file:
        del file[name]
    assert_refused(path, f"lacks .*{name}")


def test_a_file_of_something_else_is_told(tmp_path):
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file["x"] = np.zeros(3)
    assert_refused(tmp_path / "made.h5", "lacks 'ep_len': it is no file of stable-worldmodel")


@pytest.mark.parametrize("name", ["observation", "reward", "terminated"])
def test_a_short_column_is_told(tmp_path, name):
    columns = recorded_columns()
    columns[name] = columns[name][:-1]
    assert_refused(recording(tmp_path / "made.h5", **columns), f"'{name}' has 6 rows; it needs 7")


@pytest.mark.parametrize(
    ("lengths", "offsets"),
    [
        ([4, 4], [0, 4]),  # past the end
        ([4, 3], [-1, 4]),
        ([-4, 3], [0, 4]),
        ([7, 7], [0, 0]),  # the same rows again and again
        ([2**31 - 1, 3], [2**62, 4]),
    ],
)
def test_episodes_outside_of_the_rows_are_told(tmp_path, lengths, offsets):
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        file["ep_len"][:], file["ep_offset"][:] = lengths, offsets
    assert_refused(path, "point outside of its 7 rows")


@pytest.mark.parametrize(
    "offsets", [np.array([0.0, 4.0]), np.array([[0, 4]]), np.array([0]), np.array([0, 4, 7])]
)
def test_offsets_that_are_none_are_told(tmp_path, offsets):
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        del file["ep_offset"]
        file["ep_offset"] = offsets
    assert_refused(path, "cannot read")


def test_discrete_actions_are_refused(tmp_path):
    columns = recorded_columns() | {"action": np.arange(7)}
    assert_refused(recording(tmp_path / "made.h5", **columns), "actions are int64: only continuous")


def test_a_file_without_observations_is_told(tmp_path):
    columns = recorded_columns()
    del columns["observation"]
    assert_refused(recording(tmp_path / "made.h5", **columns), "an observation has the keys")


def test_numbers_that_are_none_are_told(tmp_path):
    columns = recorded_columns()
    columns["action"][1] = np.nan
    assert_refused(recording(tmp_path / "made.h5", **columns), "episode 0: action is nan")


def mark_with(**fact):
    columns = ["observation.state", "action", "reward"]
    return json.dumps({"info": {}, "columns": columns, "episodes": [fact] * 3})


@pytest.mark.parametrize(
    "mark",
    [
        "{",
        "[]",
        '{"info": 3}',
        '{"info": {}}',
        '{"info": {}, "columns": [], "episodes": []}',
        '{"info": {}, "columns": ["../x"], "episodes": [{"info": {}}, {"info": {}}, {"info": {}}]}',
        '{"info": {}, "columns": [3], "episodes": [{"info": {}}, {"info": {}}, {"info": {}}]}',
        mark_with(terminated=True, truncated=True),
        mark_with(terminated=3, truncated=True, info={}),
        mark_with(action=3, info={}),
        mark_with(terminated=True, truncated=True, info={"x": []}),
        7,
        [b"{}", b"{}"],
    ],
)
def test_a_damaged_attribute_is_told(tmp_path, mark):
    path = export(tmp_path / "made.h5", some_episodes())
    with h5py.File(path, "r+") as file:
        file.attrs["worldmodel"] = np.bytes_(mark) if isinstance(mark, str) else mark
    assert_refused(path, "cannot read")


def test_a_text_in_a_heap_is_not_read(tmp_path):
    """Our own text is none: HDF5 may search a damaged heap forever."""
    path = export(tmp_path / "made.h5", some_episodes())
    with h5py.File(path, "r+") as file:
        text = bytes(file.attrs["worldmodel"]).decode()
        file.attrs["worldmodel"] = text
    assert_refused(path, "'worldmodel' is not what we write")


def test_data_that_lie_in_other_files_are_not_read(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(7).tobytes())
    source = recording(tmp_path / "other.h5", **recorded_columns())
    layout = h5py.VirtualLayout((7,), np.float64)
    layout[:] = h5py.VirtualSource(source, "reward", (7,))
    columns = recorded_columns()
    del columns["reward"]
    for kind, match in (
        ("external", "lie in another file"),
        ("virtual", "lie in another file"),
        ("link", "is a link to elsewhere"),
    ):
        path = recording(tmp_path / f"{kind}.h5", **columns)
        with h5py.File(path, "r+") as file:
            if kind == "external":
                file.create_dataset("reward", (7,), np.float64, external=[(str(secret), 0, 56)])
            elif kind == "virtual":
                file.create_virtual_dataset("reward", layout)
            else:
                file["reward"] = h5py.ExternalLink(str(source), "reward")
        assert_refused(path, match)


def test_a_column_that_claims_more_than_is_stored_is_not_read(tmp_path):
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        file["action"].resize(10**12, axis=0)
    assert_refused(path, "'action' claims 4000000000000 bytes")


def test_a_column_with_a_chunk_of_more_than_is_stored_is_not_read(tmp_path):
    """To read three rows, HDF5 would decompress the whole chunk that they are in."""
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        del file["reward"]
        chunks = (2**27,)
        file.create_dataset("reward", (7,), np.float64, maxshape=(None,), chunks=chunks, compression="gzip")
        file["reward"].id.write_direct_chunk((0,), zlib.compress(bytes(2**20)))
    assert_refused(path, "'reward' claims 1073741824 bytes")


def test_a_compression_that_is_not_installed_is_told(tmp_path):
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        del file["reward"]
        unknown = 300  # a number that HDF5 leaves for tests
        column = file.create_dataset(
            "reward", (7,), np.float64, chunks=(7,), compression=unknown, allow_unknown_filter=True
        )
        column.id.write_direct_chunk((0,), np.ones(7).tobytes())
    assert_refused(path, "'reward' is compressed with HDF5 filter 300: pip install hdf5plugin")


def test_compressed_columns_are_read(tmp_path):
    path = recording(tmp_path / "made.h5", **recorded_columns())
    with h5py.File(path, "r+") as file:
        del file["action"]
        file.create_dataset("action", data=recorded_columns()["action"], compression="gzip")
    _, (first, _) = read_all(path)
    assert first.action.tolist() == [[0], [1], [2]]
