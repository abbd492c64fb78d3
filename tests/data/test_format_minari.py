"""Minari's HDF5 datasets: ours come back to the bit, Minari reads ours, we read Minari's."""

import io
import json
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from exported import INFO, assert_refused_by, export_as, read_all_of, some_episodes
from made_episodes import assert_same_array, assert_same_episode, made_episode

from worldmodel.data import Episode
from worldmodel.errors import DatasetError

h5py = pytest.importorskip("h5py")

from worldmodel.data.formats import dataset_format, minari  # noqa: E402

export, read_all = partial(export_as, minari), partial(read_all_of, minari)
assert_refused = partial(assert_refused_by, minari)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Where Minari looks for datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def peer(root):
    """The real package."""
    pytest.importorskip("PIL")
    return pytest.importorskip("minari")


def random_pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def random_episode(num_steps, num_channels=3, *, state=False):
    """Pixels that no lossy code would leave as they are, and whose axes all have different sizes."""
    episode = made_episode(1, num_steps)
    observation = {"pixels": random_pixels(num_steps + 1, num_channels, 36, 40)}
    if state:
        observation["state"] = episode.observation["state"]
    return replace(episode, observation=observation)


def edit_metadata(path, **changes):
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def data_file(path, mode="r+"):
    return h5py.File(path / "data" / "main_data.hdf5", mode)


@pytest.mark.parametrize(
    "episodes",
    [
        some_episodes(),
        some_episodes(pixels=True, plan=True),
        [random_episode(20)],
        [random_episode(3, num_channels=9, state=True), random_episode(2, num_channels=9, state=True)],
    ],
    ids=["state", "state, pixels and extras", "pixels", "stacked pixels and state"],
)
def test_what_is_written_is_read_back_to_the_bit(root, episodes):
    info, found = read_all(export(root / "made-v0", episodes))
    assert info == INFO
    assert len(found) == len(episodes)
    for left, right in zip(found, episodes, strict=True):
        assert_same_episode(left, right)


def test_extra_columns_of_every_dtype_are_read_back_to_the_bit(root):
    dtypes = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
    extra = {f"as_{dtype}": np.array([[0, 1], [1, 0]], dtype=dtype) for dtype in dtypes}
    episode = replace(made_episode(1, 2), extra=extra)
    _, found = read_all(export(root / "made-v0", [episode]))
    assert_same_episode(found[0], episode)


def test_a_long_info_of_an_episode_is_read_back(root):
    # An attribute of HDF5 used to hold 64 KiB.
    episode = replace(made_episode(1, 2), info={"script": "ä" * 200_000, "seed": 2**70})
    _, found = read_all(export(root / "made-v0", [episode]))
    assert found[0].info == episode.info


def test_the_format_is_found_by_its_name():
    assert dataset_format("minari") is minari


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pixels", [False, True])
def test_minari_reads_the_same_numbers(root, peer, pixels):
    episodes = some_episodes(pixels=pixels, plan=True)
    export(root / "walker" / "expert-v3", episodes)
    dataset = peer.load_dataset("walker/expert-v3")
    assert dataset.id == "walker/expert-v3"
    assert (dataset.total_episodes, dataset.total_steps) == (3, 9)
    for found, expected in zip(dataset.iterate_episodes(), episodes, strict=True):
        if pixels:
            frames = expected.observation["pixels"].transpose(0, 2, 3, 1)
            assert_same_array(found.observations["pixels"], np.ascontiguousarray(frames))
            assert_same_array(found.observations["state"], expected.observation["state"])
            assert dataset.observation_space["pixels"].shape == (4, 4, 3)
        else:
            assert_same_array(found.observations, expected.observation["state"])
            assert dataset.observation_space.contains(found.observations[0])
        assert_same_array(found.actions, expected.action)
        assert_same_array(found.rewards, expected.reward)
        ends = np.arange(expected.num_steps) == expected.num_steps - 1
        assert_same_array(found.terminations, ends & expected.terminated)
        assert_same_array(found.truncations, ends & expected.truncated)
        assert found.infos.keys() == expected.extra.keys()
        for name, column in expected.extra.items():
            assert_same_array(found.infos[name][:-1], column)


@pytest.mark.filterwarnings("error")
def test_minari_reads_images_without_loss(root, peer):
    episode = random_episode(4)
    export(root / "images-v0", [episode])
    found = peer.load_dataset("images-v0")
    assert found.observation_space.shape == (36, 40, 3)
    assert_same_array(found[0].observations.transpose(0, 3, 1, 2).copy(), episode.observation["pixels"])


@pytest.mark.filterwarnings("error")
def test_minari_lists_the_dataset_and_works_with_it(root, peer):
    seeded = [replace(episode, info={"seed": 7 + i}) for i, episode in enumerate(some_episodes())]
    export(root / "walker" / "expert-v3", seeded)
    assert list(peer.list_local_datasets()) == ["walker/expert-v3"]
    dataset = peer.load_dataset("walker/expert-v3")
    assert [each["seed"] for each in dataset.storage.get_episode_metadata(range(3))] == [7, 8, 9]
    ended = dataset.filter_episodes(lambda episode: episode.terminations[-1])
    assert [episode.id for episode in ended] == [1]
    assert len(dataset.sample_episodes(2)) == 2


def test_a_dataset_of_states_is_for_earlier_versions_too_and_pixels_are_not(root):
    for name, pixels, version in (("state-v0", False, "0.5.0"), ("pixels-v0", True, "0.5.4")):
        export(root / name, some_episodes(pixels=pixels))
        metadata = json.loads((root / name / "data" / "metadata.json").read_text())
        assert metadata["minari_version"] == version
        assert metadata["jpeg_encoding"] is False


def test_actions_have_the_bounds_of_the_project_unless_they_break_them(root, peer):
    inside = replace(made_episode(1, 2), action=np.array([[1, -1, 0.5]] * 2, dtype=np.float32))
    export(root / "inside-v0", [inside])
    export(root / "outside-v0", [inside, made_episode(2, 2)])
    assert peer.load_dataset("inside-v0").action_space.high.tolist() == [1, 1, 1]
    assert peer.load_dataset("inside-v0").action_space.low.tolist() == [-1, -1, -1]
    assert peer.load_dataset("outside-v0").action_space.high.tolist() == [np.inf] * 3


def test_episodes_that_minari_appends_are_read_after_ours(root, peer):
    path = export(root / "made-v0", some_episodes(plan=True))
    columns = {"plan_mean": np.full((3, 5, 3), 7, np.float32), "num_iterations": np.array([0, 4, 5])}
    added = peer.data_collector.EpisodeBuffer(
        id=3,
        seed=11,
        observations=np.ones((3, 2), np.float32),
        actions=np.ones((2, 3), np.float32),
        rewards=[1.0, 2.0],
        terminations=[False, False],
        truncations=[False, True],
        infos=columns,
    )
    peer.load_dataset("made-v0").storage.update_episodes([added])
    _, found = read_all(path)
    assert_same_episode(found[0], some_episodes(plan=True)[0])
    assert len(found) == 4
    assert found[3].info == {"seed": 11}
    assert found[3].reward.tolist() == [1, 2]
    assert found[3].extra["num_iterations"].tolist() == [4, 5]


def minari_dataset(peer, name, buffers, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It recommends an author and more.
        return peer.create_dataset_from_buffers(name, buffers, **options)


def pendulum_episode(seed, num_steps):
    """A run of Gymnasium's pendulum, as Minari's collector would note it, with infos."""
    gymnasium = pytest.importorskip("gymnasium")
    with gymnasium.make("Pendulum-v1") as env:
        observations, infos = (
            [env.reset(seed=seed)[0]],
            {"angle": [0.0], "nested": {"x": [0.0]}, "bad": [np.nan]},
        )
        env.action_space.seed(seed)
        actions, rewards = [], []
        for _ in range(num_steps):
            actions.append(env.action_space.sample())
            observation, reward, _, _, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
            infos["angle"].append(float(env.unwrapped.state[0]))
            infos["nested"]["x"].append(1.0)
            infos["bad"].append(np.inf)
    infos["once"] = [1.0, 2.0, 3.0]
    infos["unknown_dtype"] = np.arange(num_steps + 1, dtype=np.uint16)
    return {
        "seed": seed,
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminations": [False] * num_steps,
        "truncations": [False] * (num_steps - 1) + [True],
        "infos": infos,
    }


def test_a_dataset_that_minari_wrote_is_read(root, peer):
    runs = [pendulum_episode(seed, 10 + seed) for seed in (1, 2)]
    buffers = [peer.data_collector.EpisodeBuffer(id=i, **run) for i, run in enumerate(runs)]
    minari_dataset(peer, "pendulum/random-v0", buffers, env="Pendulum-v1", algorithm_name="random")
    info, episodes = read_all(root / "pendulum" / "random-v0")
    assert info["minari"]["dataset_id"] == "pendulum/random-v0"
    assert info["minari"]["algorithm_name"] == "random"
    assert json.loads(info["minari"]["action_space"])["high"] == [2.0]
    for run, found in zip(runs, episodes, strict=True):
        expected = Episode(
            observation={"state": np.array(run["observations"])},
            action=np.array(run["actions"]),
            reward=np.array(run["rewards"], dtype=np.float32),
            terminated=False,
            truncated=True,
            extra={"angle": np.array(run["infos"]["angle"][1:])},
            info={"seed": run["seed"]},
        )
        assert_same_episode(found, expected)
    assert np.abs(episodes[0].action).max() > 1


def test_a_dict_observation_becomes_state_and_pixels(root, peer):
    gymnasium = pytest.importorskip("gymnasium")
    box = gymnasium.spaces.Box
    space = gymnasium.spaces.Dict(
        {
            "camera": box(0, 255, (40, 33, 3), np.uint8),
            "arm": gymnasium.spaces.Dict(
                {"velocity": box(-9, 9, (2,), np.float64), "angle": box(-9, 9, (1, 2), np.float32)}
            ),
            "touch": box(0, 9, (1,), np.int64),
        }
    )
    observations = {
        "camera": list(random_pixels(3, 40, 33, 3)),
        "arm": {
            "velocity": [np.array([3.0, 4.0]) + t for t in range(3)],
            "angle": [np.array([[1, 2]], np.float32) - t for t in range(3)],
        },
        "touch": [np.array([5 + t]) for t in range(3)],
    }
    buffer = peer.data_collector.EpisodeBuffer(
        id=0,
        observations=observations,
        actions=[np.zeros(2, np.float32)] * 2,
        rewards=[0.0, 1.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    options = {"observation_space": space, "action_space": box(-1, 1, (2,), np.float32)}
    for name, jpeg in (("lossy-v0", True), ("raw-v0", False)):
        written = minari_dataset(peer, name, [buffer], jpeg_encoding=jpeg, **options)
        _, (episode,) = read_all(root / name)
        assert episode.observation["state"].tolist() == [[1, 2, 3, 4, 5], [0, 1, 4, 5, 6], [-1, 0, 5, 6, 7]]
        # As Minari itself reads them, which is not what went in where it is JPEG.
        frames = written[0].observations["camera"]
        assert np.array_equal(frames, observations["camera"]) is not jpeg
        assert_same_array(episode.observation["pixels"], np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        assert (episode.terminated, episode.truncated) == (True, False)


def test_frames_of_jpeg_files_of_different_lengths_are_read(root):
    from PIL import Image

    path = export(root / "made-v0", [random_episode(2)])
    frames = [np.zeros((36, 40, 3), np.uint8), random_pixels(36, 40, 3), np.full((36, 40, 3), 200, np.uint8)]
    files = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="JPEG")
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    with data_file(path) as file:
        del file["episode_0/observations"]
        column = file.create_dataset("episode_0/observations", (3,), dtype=h5py.vlen_dtype(np.uint8))
        for row, content in enumerate(files):
            column[row] = content
    _, (episode,) = read_all(path)
    assert episode.observation["pixels"].shape == (3, 3, 36, 40)
    assert not episode.observation["pixels"][0].any()
    assert np.abs(episode.observation["pixels"][2].astype(int) - 200).max() <= 2

    with data_file(path) as file:
        file["episode_0/observations"][1] = np.frombuffer(b"no picture", np.uint8)
    assert_refused(path, "cannot identify image")


def test_frames_that_have_the_channels_first_stay_as_they_are(root, peer):
    gymnasium = pytest.importorskip("gymnasium")
    frames = random_pixels(2, 4, 20, 24)
    buffer = peer.data_collector.EpisodeBuffer(
        id=0,
        observations=list(frames),
        actions=[np.zeros(1, np.float32)],
        rewards=[0.0],
        terminations=[False],
        truncations=[True],
    )
    box = gymnasium.spaces.Box
    spaces = {"observation_space": box(0, 255, (4, 20, 24), np.uint8), "action_space": box(-1, 1, (1,))}
    minari_dataset(peer, "stacked-v0", [buffer], **spaces)
    _, (episode,) = read_all(root / "stacked-v0")
    assert_same_array(episode.observation["pixels"], frames)


def test_discrete_actions_are_refused(root, peer):
    gymnasium = pytest.importorskip("gymnasium")
    buffer = peer.data_collector.EpisodeBuffer(
        id=0,
        observations=np.zeros((2, 1), np.float32),
        actions=np.array([1]),
        rewards=[0.0],
        terminations=[False],
        truncations=[True],
    )
    space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    options = {"observation_space": space, "action_space": gymnasium.spaces.Discrete(3)}
    minari_dataset(peer, "discrete-v0", [buffer], **options)
    assert_refused(root / "discrete-v0", "the actions are Discrete of int64: only continuous")
    edit_metadata(root / "discrete-v0", action_space=None)
    assert_refused(root / "discrete-v0", "episode 0: the actions are int64: only continuous")


@pytest.mark.parametrize("name", ["made", "made-v", "made v0", "made.x-v0"])
def test_a_folder_that_minari_could_not_find_is_not_written(root, name):
    with pytest.raises(DatasetError, match="name the folder NAME-v0"):
        export(root / name, some_episodes())
    assert not list(root.iterdir())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("output", "dataset_id", "root"),
    [
        ("minari/reacher/random-v0", "reacher/random-v0", "minari"),
        ("random-v0", "random-v0", "."),
        ("some.where/random-v0", "random-v0", "some.where"),
    ],
)
def test_outside_of_minaris_root_the_id_and_another_root_are_told(
    peer, tmp_path, monkeypatch, output, dataset_id, root
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    export(Path(output), some_episodes())
    root = (tmp_path / root).resolve()
    assert (
        minari.how_to_find(Path(output))
        == f"Minari finds it as {dataset_id} with MINARI_DATASETS_PATH={root}"
    )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    assert list(peer.list_local_datasets()) == [dataset_id]
    assert peer.load_dataset(dataset_id).total_episodes == 3


def test_below_minaris_root_the_id_is_the_rest_of_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    path = export(tmp_path / "exports" / "dm" / "walker-v1", some_episodes())
    assert json.loads((path / "data" / "metadata.json").read_text())["dataset_id"] == "exports/dm/walker-v1"


def test_nothing_is_left_of_an_export_that_failed(root, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worldmodel.data.formats.minari.writer._observation_space", fail)
    with pytest.raises(OSError, match="No space"):
        export(root / "made-v0", some_episodes())
    assert not list(root.iterdir())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("when", ["start", "middle", "end"])
def test_a_full_disk_is_told_and_nothing_is_left(root, capfd, when):
    """HDF5 itself prints, and may end the process."""
    resource = pytest.importorskip("resource")
    episodes = [made_episode(i, 400, pixels=True, plan=True) for i in range(10)]
    folder = root / "full"
    folder.mkdir()
    size = (export(root / "made-v0", episodes) / "data" / "main_data.hdf5").stat().st_size
    max_bytes = {"start": 1_000, "middle": size // 2, "end": size - 1}[when]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(DatasetError, match=r"cannot write to .*made-v0 \(File too large\)") as caught:
            export(folder / "made-v0", episodes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ".tmp-" not in str(caught.value)
    assert not list(folder.iterdir())
    assert capfd.readouterr() == ("", "")


def test_an_existing_folder_and_an_empty_dataset_are_refused(root):
    with pytest.raises(DatasetError, match="holds no episode"):
        export(root / "made-v0", [])
    export(root / "made-v0", some_episodes())
    with pytest.raises(DatasetError, match="made-v0 exists"):
        export(root / "made-v0", some_episodes())


def test_a_missing_dataset_or_file_is_told(root):
    assert_refused(root / "none-v0", r"there is no .*metadata\.json")
    path = export(root / "made-v0", some_episodes())
    (path / "data" / "main_data.hdf5").unlink()
    assert_refused(path, r"there is no .*main_data\.hdf5")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"total_episodes": -1}', b'{"total_episodes": true}'],
)
def test_damaged_metadata_is_told(root, content):
    path = export(root / "made-v0", some_episodes())
    (path / "data" / "metadata.json").write_bytes(content)
    assert_refused(path, r"cannot read .*metadata\.json")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data_format": "arrow"}, "'data_format' is 'arrow'; only hdf5"),
        ({"total_episodes": 4}, "lacks /episode_3"),
        ({"total_episodes": 10**12}, "lacks /episode_3"),
        ({"observation_space": "3"}, "a space is no JSON object"),
        ({"observation_space": {"type": "Box"}}, "a space is no JSON object"),
        ({"observation_space": '{"type": "Discrete", "n": 3}'}, "is of the space Discrete"),
        ({"worldmodel": {"info": {}, "extra": ["../x"]}}, "'worldmodel' is not what we write"),
        ({"worldmodel": 3}, "'worldmodel' is not what we write"),
        ({"worldmodel": {"info": {}, "extra": ["absent"]}}, "lacks /episode_0/infos"),
    ],
)
def test_metadata_that_say_what_is_not_so_are_told(root, changes, match):
    path = export(root / "made-v0", some_episodes())
    edit_metadata(path, **changes)
    assert_refused(path, match)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminations", "truncations"])
def test_a_missing_or_short_array_is_told(root, name):
    path = export(root / "made-v0", some_episodes())
    with data_file(path) as file:
        content = file[f"episode_1/{name}"][()]
        del file[f"episode_1/{name}"]
    assert_refused(path, f"episode 1: it lacks /episode_1/{name}")
    with data_file(path) as file:
        file[f"episode_1/{name}"] = content[:-1]
    assert_refused(path, r"episode 1: '\w+' has \d rows; it needs \d")


def test_a_damaged_attribute_of_an_episode_is_told(root):
    path = export(root / "made-v0", some_episodes())
    for damaged in (np.bytes_("{"), np.bytes_('{"info": 3}'), '{"info": {}}', 7):
        with data_file(path) as file:
            file["episode_1"].attrs["worldmodel"] = damaged
        assert_refused(path, "cannot read")


def test_an_end_in_the_middle_of_an_episode_is_told(root):
    path = export(root / "made-v0", some_episodes())
    with data_file(path) as file:
        file["episode_0/terminations"][2] = True
    assert_refused(path, "episode 0: terminations is true in step 2 of 5")


def test_numbers_that_are_none_are_told(root):
    path = export(root / "made-v0", some_episodes())
    with data_file(path) as file:
        file["episode_2/rewards"][0] = np.nan
    assert_refused(path, "episode 2: reward is nan")


def test_a_damaged_file_is_told(root):
    path = export(root / "made-v0", some_episodes(pixels=True))
    file = path / "data" / "main_data.hdf5"
    content = file.read_bytes()
    for damaged in (b"", b"no HDF5 at all", content[: len(content) // 2]):
        file.write_bytes(damaged)
        assert_refused(path, r"cannot read .*main_data\.hdf5")


def test_data_that_lie_in_other_files_are_not_read(root, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(5, np.float32).tobytes())
    other = export(root / "other-v0", some_episodes())
    path = export(root / "made-v0", some_episodes())
    source = other / "data" / "main_data.hdf5"
    layout = h5py.VirtualLayout((5,), np.float32)
    layout[:] = h5py.VirtualSource(source, "episode_0/rewards", (5,))

    def put(kind):
        with data_file(path) as file:
            del file["episode_0/rewards"]
            if kind == "external":
                file.create_dataset("episode_0/rewards", (5,), np.float32, external=[(str(secret), 0, 20)])
            elif kind == "virtual":
                file.create_virtual_dataset("episode_0/rewards", layout)
            elif kind == "link":
                file["episode_0/rewards"] = h5py.ExternalLink(str(source), "episode_0/rewards")
            else:
                file["episode_0/rewards"] = h5py.SoftLink("/episode_1/rewards")

    for kind, match in (
        ("external", "lie in another file"),
        ("virtual", "lie in another file"),
        ("link", "is a link to elsewhere"),
        ("soft link", "is a link to elsewhere"),
    ):
        put(kind)
        assert_refused(path, match)


def test_an_array_that_claims_more_than_is_stored_is_not_read(root):
    path = export(root / "made-v0", some_episodes())
    with data_file(path) as file:
        del file["episode_0/rewards"]
        file.create_dataset("episode_0/rewards", (10**12,), np.float32, chunks=(1000,))
    assert_refused(path, "claims 4000000000000 bytes")


def test_observations_that_hold_themselves_are_told(root):
    path = export(root / "made-v0", some_episodes(pixels=True))
    with data_file(path) as file:
        group = file["episode_0/observations"]
        group["again"] = group
    edit_metadata(path, observation_space=None)
    assert_refused(path, "only Dict and Box")


def test_nothing_is_unpickled(root):
    """Text and other objects are refused before they are looked at."""
    path = export(root / "made-v0", some_episodes())
    with data_file(path) as file:
        del file["episode_0/actions"]
        file.create_dataset("episode_0/actions", data=["a"] * 5, dtype=h5py.string_dtype())
    assert_refused(path, "'actions' holds object: only numbers")


def test_an_interrupted_write_is_no_dataset(root):
    """What is left of a killed writer starts with a dot, which neither Minari nor we look at."""
    path = export(root / "made-v0", some_episodes())
    shutil.move(path, root / ".tmp-1-made-v0")
    assert_refused(path, "there is no")
