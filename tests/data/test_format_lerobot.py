"""LeRobot v3.0 datasets: what we write is laid out as LeRobot reads it, and comes back to the bit."""

import contextlib
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
from made_episodes import assert_same_episode, made_episode
from PIL import Image

from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import DatasetError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av")

from worldmodel.data.formats import lerobot  # noqa: E402
from worldmodel.data.formats.lerobot import tables as lerobot_tables  # noqa: E402
from worldmodel.data.formats.lerobot import writer as lerobot_writer  # noqa: E402
from worldmodel.data.formats.lerobot.layout import inside  # noqa: E402
from worldmodel.data.formats.lerobot.stats import FeatureStatistics  # noqa: E402
from worldmodel.data.formats.lerobot.video import png  # noqa: E402

INFO = {"task": "walker-walk", "control_period_s": 0.025, "action_repeat": 2, "spaces": {"action": "Box(6)"}}
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
CAMERA = "observation.images.camera"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"


def noise_episode(seed, num_steps, *, height=6, width=10, **changes):
    """Pixels without structure, which only a lossless codec gives back, and extra columns of all kinds."""
    rng = np.random.default_rng(seed)
    content = {
        "observation": {
            "state": rng.normal(size=(num_steps + 1, 4)).astype(np.float32),
            "pixels": rng.integers(0, 256, (num_steps + 1, 3, height, width), dtype=np.uint8),
        },
        "action": rng.uniform(-1, 1, (num_steps, 1)).astype(np.float32),
        "reward": rng.normal(size=num_steps).astype(np.float32),
        "terminated": False,
        "truncated": True,
        "info": {"seed": seed, "policy": "noise", "temperature": 0.1},
        "extra": {
            "plan_mean": rng.normal(size=(num_steps, 2, 3)),
            "one": rng.normal(size=(num_steps, 1)).astype(np.float16),
            "seconds": rng.normal(size=num_steps),
            "is_random": rng.random(num_steps) < 0.5,
            "counts": rng.integers(0, 9, (num_steps, 2, 1, 2)),
            "mode": rng.integers(0, 9, num_steps).astype(np.uint8),
        },
    }
    return Episode(**(content | changes))


def written(path, episodes, info=INFO):
    dataset = EpisodeDataset(info=info)
    for episode in episodes:
        dataset.append(episode)
    lerobot.write(path, dataset, dataset.info)
    return path


def read_back(path, **options):
    info, episodes = lerobot.read(path, **options)
    return info, list(episodes)


def assert_round_trip(path, episodes, info=INFO):
    found_info, found = read_back(written(path, episodes, info))
    assert found_info == info
    for episode, expected in zip(found, episodes, strict=True):
        assert_same_episode(episode, expected)


def edit_json(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | changes))


def edit_table(file, **columns):
    """Replace or add columns of a parquet file."""
    table = pq.read_table(file)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    pq.write_table(table, file)


def foreign(path):
    """As if LeRobot had written it."""
    (path / "meta/worldmodel.json").unlink()
    (path / "meta/worldmodel.parquet").unlink()
    return path


def allows_up_to(num_pixels):
    """`Image.convert`, which is where pixels are decoded, for small images only."""
    convert = Image.Image.convert

    def checked(image, *arguments, **options):
        assert image.width * image.height <= num_pixels
        return convert(image, *arguments, **options)

    return checked


def with_images_inside(path, **changes):
    """As if the images lay in the frames, and not in a video; returns those of each episode."""
    pixels = [noise_episode(seed, length).observation["pixels"][:-1] for seed, length in ((1, 4), (2, 3))]
    files = [{"bytes": png(image), "path": "x.png"} for image in np.concatenate(pixels)]
    edit_table(path / DATA, **{CAMERA: files})
    features = json.loads((path / "meta/info.json").read_text())["features"]
    features[CAMERA] |= {"dtype": "image", **changes}
    edit_json(path / "meta/info.json", features=features, video_path=None)
    shutil.rmtree(path / "videos")
    return pixels


@pytest.fixture
def states(tmp_path):
    """Three episodes of 3, 1 and 4 steps without pixels."""
    return written(tmp_path / "states", [made_episode(i, n, plan=True) for i, n in ((1, 3), (2, 1), (3, 4))])


@pytest.fixture
def images(tmp_path):
    """Two episodes of 4 and 3 steps with pixels."""
    return written(tmp_path / "images", [noise_episode(1, 4), noise_episode(2, 3)])


class TestRoundTrip:
    def test_states_come_back_to_the_bit(self, tmp_path):
        episodes = [made_episode(1, 5, plan=True), made_episode(2, 1, plan=True, terminated=True)]
        assert_round_trip(tmp_path / "out", episodes)

    def test_pixels_come_back_to_the_bit(self, tmp_path):
        assert_round_trip(tmp_path / "out", [noise_episode(seed, 1 + 4 * seed) for seed in range(3)])

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (64, 48)])
    def test_images_of_any_size_come_back(self, tmp_path, height, width):
        assert_round_trip(tmp_path / "out", [noise_episode(1, 5, height=height, width=width)])

    def test_pixels_without_states_come_back(self, tmp_path):
        pixels = noise_episode(1, 4).observation["pixels"]
        assert_round_trip(tmp_path / "out", [noise_episode(1, 4, observation={"pixels": pixels})])

    @pytest.mark.parametrize("terminated", [True, False])
    @pytest.mark.parametrize("truncated", [True, False])
    def test_how_an_episode_ended_comes_back(self, tmp_path, terminated, truncated):
        path = tmp_path / "out"
        assert_round_trip(path, [noise_episode(1, 3, terminated=terminated, truncated=truncated)])
        frames = pq.read_table(path / DATA)
        assert frames["next.done"].to_pylist() == [False, False, terminated or truncated]
        assert frames["next.truncated"].to_pylist() == [False, False, truncated]

    def test_many_files_and_chunks_come_back_in_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lerobot_writer, "MAX_DATA_BYTES", 1)
        monkeypatch.setattr(lerobot_writer, "FILES_PER_CHUNK", 2)
        assert_round_trip(tmp_path / "out", [noise_episode(seed, 3) for seed in range(5)])
        names = sorted(file.relative_to(tmp_path / "out/data") for file in tmp_path.glob("out/data/*/*"))
        assert [str(name) for name in names][-2:] == [
            "chunk-001/file-001.parquet",
            "chunk-002/file-000.parquet",
        ]
        assert (tmp_path / f"out/videos/{CAMERA}/chunk-002/file-000.mp4").exists()

    def test_videos_end_before_float32_cannot_tell_their_frames_apart(self, tmp_path):
        episodes = [noise_episode(seed, 300) for seed in range(4)]
        assert_round_trip(tmp_path / "out", episodes, INFO | {"control_period_s": 1.0})
        rows = pq.read_table(tmp_path / "out" / EPISODES)
        assert rows[f"videos/{CAMERA}/file_index"].to_pylist() == [0, 0, 0, 1]
        assert rows[f"videos/{CAMERA}/from_timestamp"].to_pylist() == [0.0, 300.0, 600.0, 0.0]

    def test_more_episodes_than_are_written_at_once_come_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lerobot_tables, "ROWS_AT_ONCE", 2)
        assert_round_trip(tmp_path / "out", [made_episode(number, number) for number in range(1, 6)])

    def test_a_period_that_is_no_whole_rate_comes_back_exactly(self, tmp_path):
        info = INFO | {"control_period_s": 0.15}
        assert_round_trip(tmp_path / "out", [made_episode(1, 3)], info)
        assert json.loads((tmp_path / "out/meta/info.json").read_text())["fps"] == 7


class TestLayout:
    def test_info_describes_every_feature(self, images):
        info = json.loads((images / "meta/info.json").read_text())
        features = info.pop("features")
        assert info == {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": 2,
            "total_frames": 7,
            "total_tasks": 1,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": 40,
            "splits": {"train": "0:2"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }
        names = [f"state_{i}" for i in range(4)]
        assert features["observation.state"] == {"dtype": "float32", "shape": [4], "names": names}
        assert features["action"] == {"dtype": "float32", "shape": [1], "names": ["action_0"]}
        assert features["next.reward"] == {"dtype": "float32", "shape": [1], "names": None}
        assert features["next.done"]["dtype"] == "bool"
        assert features["extra.plan_mean"] == {"dtype": "float64", "shape": [2, 3], "names": None}
        assert features["timestamp"]["dtype"] == "float32"
        for name in ("frame_index", "episode_index", "index", "task_index"):
            assert features[name] == {"dtype": "int64", "shape": [1], "names": None}
        camera = features[CAMERA]
        assert (camera["dtype"], camera["shape"]) == ("video", [6, 10, 3])
        assert camera["info"]["video.fps"] == 40
        with av.open(str(images / VIDEO)) as video:
            context = video.streams.video[0].codec_context
            assert camera["info"]["video.pix_fmt"] == context.pix_fmt
            assert camera["info"]["video.codec"] == context.name

    def test_frames_are_columns_with_one_row_group_per_episode(self, images):
        file = pq.ParquetFile(images / DATA)
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 3]
        assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
        types = {field.name: field.type for field in file.schema_arrow}
        assert types["observation.state"] == pa.list_(pa.field("element", pa.float32()), 4)
        assert types["action"] == types["next.reward"] == types["timestamp"] == pa.float32()
        assert types["next.done"] == pa.bool_()
        assert types["index"] == pa.int64()
        assert CAMERA not in types
        frames = file.read()
        assert frames["index"].to_pylist() == list(range(7))
        assert frames["frame_index"].to_pylist() == [0, 1, 2, 3, 0, 1, 2]
        assert frames["episode_index"].to_pylist() == [0] * 4 + [1] * 3
        assert frames["timestamp"].to_pylist() == pytest.approx([0, 0.025, 0.05, 0.075, 0, 0.025, 0.05])

    def test_the_hugging_face_library_is_told_the_same_types(self, images):
        described = json.loads(pq.read_schema(images / DATA).metadata[b"huggingface"])["info"]["features"]
        assert described["observation.state"]["length"] == 4
        assert described["observation.state"]["_type"] == "List"
        assert described["action"] == {"dtype": "float32", "_type": "Value"}
        assert described["extra.plan_mean"] == {"dtype": "float64", "shape": [2, 3], "_type": "Array2D"}

    def test_episodes_tell_where_their_frames_are(self, images):
        first, second = pq.read_table(images / EPISODES).to_pylist()
        assert second["episode_index"] == 1
        assert second["tasks"] == ["walker-walk"]
        assert second["length"] == 3
        assert (second["dataset_from_index"], second["dataset_to_index"]) == (4, 7)
        for place in ("data", "meta/episodes", f"videos/{CAMERA}"):
            assert (second[f"{place}/chunk_index"], second[f"{place}/file_index"]) == (0, 0)
        assert first[f"videos/{CAMERA}/to_timestamp"] == second[f"videos/{CAMERA}/from_timestamp"] == 4 / 40
        assert second[f"videos/{CAMERA}/to_timestamp"] == 7 / 40
        assert first["stats/action/count"] == [4]
        assert np.shape(first[f"stats/{CAMERA}/mean"]) == (3, 1, 1)

    def test_no_frame_is_the_final_observation(self, images):
        with av.open(str(images / VIDEO)) as video:
            assert sum(1 for _ in video.decode(video=0)) == 7
        assert len(pq.read_table(images / DATA)) == 7

    def test_every_second_frame_of_a_video_can_be_jumped_to(self, images):
        with av.open(str(images / VIDEO)) as video:
            are_key_frames = [frame.key_frame for frame in video.decode(video=0)]
        assert all(a or b for a, b in itertools.pairwise(are_key_frames))

    def test_tasks_are_a_pandas_frame_with_the_task_as_index(self, states):
        file = states / "meta/tasks.parquet"
        described = json.loads(pq.read_schema(file).metadata[b"pandas"])
        assert described["index_columns"] == ["task"]
        assert pq.read_table(file).to_pydict() == {"task_index": [0], "task": ["walker-walk"]}

    def test_pandas_reads_the_task_as_index(self, states):
        pandas = pytest.importorskip("pandas")
        frame = pandas.read_parquet(states / "meta/tasks.parquet")
        assert frame.index.name == "task"
        assert list(frame.index) == ["walker-walk"]
        assert list(frame.columns) == ["task_index"]

    def test_without_pixels_there_are_no_videos(self, states):
        assert json.loads((states / "meta/info.json").read_text())["video_path"] is None
        assert not (states / "videos").exists()

    def test_a_camera_with_a_name_names_the_video(self, tmp_path):
        written(tmp_path / "named", [noise_episode(1, 2)], INFO | {"camera": "side"})
        written(tmp_path / "odd", [noise_episode(1, 2)], INFO | {"camera": "../side"})
        assert os.listdir(tmp_path / "named/videos") == ["observation.images.side"]
        assert os.listdir(tmp_path / "odd/videos") == [CAMERA]


class TestStatistics:
    def test_they_are_those_of_all_frames(self, images):
        stats = json.loads((images / "meta/stats.json").read_text())
        episodes = [noise_episode(1, 4), noise_episode(2, 3)]
        rows = np.concatenate([episode.observation["state"][:-1] for episode in episodes]).astype(np.float64)
        found = stats["observation.state"]
        assert found["count"] == [7]
        for name, expected in {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0)}.items():
            assert found[name] == pytest.approx(expected)
        assert found["std"] == pytest.approx(rows.std(0))
        for name, fraction in {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}.items():
            assert found[name] == pytest.approx(np.quantile(rows, fraction, axis=0))
        assert np.shape(stats["extra.plan_mean"]["std"]) == (2, 3)
        assert stats["next.done"]["mean"] == [pytest.approx(2 / 7)]

    def test_those_of_images_are_per_channel_in_0_to_1(self, images):
        stats = json.loads((images / "meta/stats.json").read_text())[CAMERA]
        episodes = [noise_episode(1, 4), noise_episode(2, 3)]
        pixels = np.concatenate([episode.observation["pixels"][:-1] for episode in episodes]) / 255
        assert np.shape(stats["q01"]) == np.shape(stats["std"]) == (3, 1, 1)
        assert stats["count"] == [7]
        assert np.ravel(stats["mean"]) == pytest.approx(pixels.mean((0, 2, 3)))

    def test_quantiles_of_much_come_from_rows_of_every_part(self, monkeypatch):
        monkeypatch.setattr("worldmodel.data.formats.lerobot.stats.MAX_QUANTILE_ROWS", 100)
        statistics = FeatureStatistics(num_rows=1000)
        rows = np.arange(1000.0)[:, None]
        for part in np.split(rows, [1, 3, 8, 500, 993]):
            statistics.add(part)
        assert statistics.total()["q50"] == [495.0]
        assert statistics.total()["mean"] == [pytest.approx(499.5)]
        assert statistics.total()["std"] == [pytest.approx(rows.std())]


class TestWriting:
    @pytest.mark.parametrize("period", [None, 0.0, "fast", float("inf")])
    def test_an_unknown_control_period_is_refused(self, tmp_path, period):
        with pytest.raises(DatasetError, match="control_period_s"):
            written(tmp_path / "out", [made_episode(1, 2)], INFO | {"control_period_s": period})
        assert os.listdir(tmp_path) == []

    def test_what_is_there_is_not_overwritten(self, states):
        with pytest.raises(DatasetError, match="exists"):
            written(states, [made_episode(1, 2)])

    def test_no_episodes_are_refused(self, tmp_path):
        with pytest.raises(DatasetError, match="holds no episode"):
            written(tmp_path / "out", [])

    def test_pixels_that_are_not_rgb_are_refused(self, tmp_path):
        observation = {"pixels": np.zeros((3, 1, 4, 4), np.uint8)}
        with pytest.raises(DatasetError, match="1 channels"):
            written(tmp_path / "out", [noise_episode(1, 2, observation=observation)])

    @pytest.mark.parametrize("shape", [(2, 0), (2, 1, 1, 1, 1, 1, 1)])
    def test_rows_that_lerobot_has_no_type_for_are_refused(self, tmp_path, shape):
        with pytest.raises(DatasetError, match=r"extra\.odd"):
            written(tmp_path / "out", [noise_episode(1, 2, extra={"odd": np.zeros(shape)})])

    def test_nothing_is_left_of_a_dataset_that_could_not_be_written(self, tmp_path, monkeypatch):
        def fail(self, episode):
            raise OSError("no space left on device")

        monkeypatch.setattr(lerobot_writer._Writer, "append", fail)
        with pytest.raises(OSError, match="no space"):
            written(tmp_path / "out", [noise_episode(1, 2)])
        assert os.listdir(tmp_path) == []


class TestForeign:
    def test_the_last_frame_is_only_an_observation(self, images):
        info, episodes = read_back(foreign(images))
        assert info == {"control_period_s": 0.025, "task": "walker-walk", "camera": "camera"}
        for episode, original in zip(episodes, [noise_episode(1, 4), noise_episode(2, 3)], strict=True):
            assert episode.num_steps == original.num_steps - 1
            for name, rows in episode.observation.items():
                assert np.array_equal(rows, original.observation[name][:-1])
            assert np.array_equal(episode.action, original.action[:-1])
            assert np.array_equal(episode.reward, original.reward[:-1])
            assert np.array_equal(episode.extra["plan_mean"], original.extra["plan_mean"][:-1])
            assert (episode.terminated, episode.truncated) == (False, True)
            assert episode.info == {"task": "walker-walk"}

    def test_an_episode_of_one_frame_is_left_out_with_a_warning(self, states):
        with pytest.warns(UserWarning, match="left out episode 1"):
            _, episodes = read_back(foreign(states))
        assert [episode.num_steps for episode in episodes] == [2, 3]

    def test_an_episode_of_another_length_than_ours_is_somebody_elses(self, states):
        edit_table(states / "meta/worldmodel.parquet", length=[3, 1, 9])
        _, episodes = read_back(states)
        assert [episode.num_steps for episode in episodes] == [3, 1, 3]
        assert episodes[2].info == {"task": "walker-walk"}

    def test_several_tasks_are_told_by_their_episodes(self, states):
        edit_table(states / EPISODES, tasks=[["walk"], ["run"], ["walk", "turn"]])
        with pytest.warns(UserWarning, match="left out"):
            info, episodes = read_back(foreign(states))
        assert "task" not in info
        assert [episode.info["task"] for episode in episodes] == ["walk", "walk, turn"]

    def test_names_types_and_row_groups_of_others_are_understood(self, states):
        foreign(states)
        table = pq.read_table(states / DATA).drop_columns(["next.reward", "next.done", "next.truncated"])
        table = table.append_column("observation.environment_state", pa.array(np.arange(8.0)))
        table = table.append_column("language", pa.array(["go"] * 8))
        state = pa.array(np.asarray(table["observation.state"].to_pylist(), np.float64).tolist())
        table = table.set_column(0, "observation.state", state)  # float64, and lists of any length
        pq.write_table(table, states / DATA)  # in one row group
        features = json.loads((states / "meta/info.json").read_text())["features"]
        for name in ("next.reward", "next.done", "next.truncated"):
            del features[name]
        features["observation.environment_state"] = {"dtype": "float64", "shape": [1], "names": None}
        features["language"] = {"dtype": "string", "shape": [1], "names": None}
        edit_json(states / "meta/info.json", features=features, robot_type="so100")
        with pytest.warns(UserWarning, match=r"language \(string\)|left out episode"):
            info, episodes = read_back(states)
        assert info["robot_type"] == "so100"
        assert episodes[1].observation["state"].dtype == np.float32
        assert np.array_equal(episodes[1].observation["state"][:, 0], [3000, 3001, 3002, 3003])
        assert np.array_equal(episodes[1].extra["observation_environment_state"], [4, 5, 6])
        assert "language" not in episodes[1].extra
        assert not episodes[1].reward.any()

    @pytest.mark.parametrize(
        ("shape", "names"),
        [((6, 10, 3), ["height", "width", "channels"]), ((3, 6, 10), ["channels", "height", "width"])],
    )
    def test_images_inside_of_the_frames_are_pixels_too(self, images, shape, names):
        pixels = with_images_inside(foreign(images), shape=list(shape), names=names)
        for episode, expected in zip(read_back(images)[1], pixels, strict=True):
            assert np.array_equal(episode.observation["pixels"], expected)

    def test_one_of_several_cameras_must_be_chosen(self, images):
        features = json.loads((images / "meta/info.json").read_text())["features"]
        features["observation.images.wrist"] = features[CAMERA]
        edit_json(images / "meta/info.json", features=features)
        with pytest.raises(DatasetError, match=r"images\.camera, observation\.images\.wrist.*remove_feature"):
            lerobot.read(images)
        with pytest.raises(DatasetError, match="'back' is not there"):
            lerobot.read(images, camera="back")
        for name in ("camera", CAMERA):
            assert_same_episode(read_back(images, camera=name)[1][1], noise_episode(2, 3))

    def test_a_lossy_video_with_long_gaps_between_key_frames_is_read(self, images):
        foreign(images)
        with av.open(str(images / VIDEO), "w") as container:
            stream = container.add_stream("libx264", rate=40, options={"g": "250"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(7):
                image = np.full((48, 64, 3), 30 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        _, episodes = read_back(images)
        levels = [episode.observation["pixels"].mean((1, 2, 3)) for episode in episodes]
        assert np.concatenate(levels) == pytest.approx(30 * np.arange(7), abs=3)


class TestRefusal:
    @pytest.mark.parametrize("version", ["v2.1", "v1.6", "v4.0", None, 3])
    def test_other_versions_are_named(self, states, version):
        edit_json(states / "meta/info.json", codebase_version=version)
        with pytest.raises(DatasetError, match=re.escape(repr(version)) + ".*convert"):
            lerobot.read(states)

    def test_a_folder_of_something_else_is_none(self, tmp_path):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(DatasetError, match="is no LeRobot dataset"):
                lerobot.read(path)

    @pytest.mark.parametrize(
        "template",
        [
            "/etc/passwd",
            "../../secret.parquet",
            "data/../../file-{file_index}.parquet",
            "..\\secret.parquet",
            "C:/secret.parquet",
            "data/{chunk_index.__class__}.parquet",
            "data/{file_index:0999999999d}.parquet",
            "data/{secret}.parquet",
            "",
            None,
            7,
        ],
    )
    def test_paths_stay_inside(self, states, template):
        edit_json(states / "meta/info.json", data_path=template)
        with pytest.raises(DatasetError, match=r"info\.json"):
            read_back(states)

    def test_the_name_of_a_camera_cannot_lead_outside(self, images):
        name = "../../../outside"
        features = json.loads((images / "meta/info.json").read_text())["features"]
        features[name] = features.pop(CAMERA)
        edit_json(images / "meta/info.json", features=features)
        row = {
            f"videos/{name}/{key}": [0, 0]
            for key in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        }
        edit_table(images / EPISODES, **row)
        with pytest.raises(DatasetError, match="must lie inside"):
            read_back(images)

    def test_templates_of_all_spellings_are_filled_in(self, tmp_path):
        values = {"chunk_index": 2, "file_index": 1234}
        assert inside(tmp_path, "a-{chunk_index:03d}/{file_index:03d}.x", values) == tmp_path / "a-002/1234.x"
        assert inside(tmp_path, "{chunk_index}/{file_index}", values) == tmp_path / "2/1234"

    @pytest.mark.parametrize(
        "name", ["meta/info.json", EPISODES, DATA, VIDEO, "meta/worldmodel.json", "meta/worldmodel.parquet"]
    )
    @pytest.mark.parametrize("damage", ["half", "empty", "garbage", "missing"])
    def test_damaged_files_are_told(self, images, name, damage):
        if (name, damage) == ("meta/worldmodel.json", "missing"):
            pytest.skip("then it is somebody else's")
        file = images / name
        content = file.read_bytes()
        file.write_bytes({"half": content[: len(content) // 2], "garbage": b"{}[" * 99}.get(damage, b""))
        if damage == "missing":
            file.unlink()
        with pytest.raises(DatasetError):
            read_back(images)

    def test_a_changed_number_is_noticed(self, states):
        content = bytearray((states / DATA).read_bytes())
        value = np.float32(3003.25).tobytes()  # of the last action
        content[content.index(value)] ^= 1
        (states / DATA).write_bytes(content)
        with pytest.raises(DatasetError, match="damaged"):
            read_back(states)

    def test_a_changed_bit_of_a_video_is_noticed(self, images):
        content = bytearray((images / VIDEO).read_bytes())
        content[-9] ^= 1  # a decoder makes up what it cannot read
        (images / VIDEO).write_bytes(content)
        with pytest.raises(DatasetError, match=r"file-000\.mp4 is damaged: .*checksum"):
            read_back(images)

    def test_a_video_that_somebody_else_has_written_is_read(self, images):
        content = json.loads((images / "meta/worldmodel.json").read_text())
        content["videos"][VIDEO]["bytes"] += 1  # it was longer
        content["videos"][VIDEO]["crc32"] = 0
        edit_json(images / "meta/worldmodel.json", **content)
        assert_same_episode(read_back(images)[1][0], noise_episode(1, 4))
        edit_json(images / "meta/worldmodel.json", videos={})  # as it was before there were checksums
        assert_same_episode(read_back(images)[1][0], noise_episode(1, 4))

    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("name", [EPISODES, DATA, VIDEO, "meta/worldmodel.parquet", "meta/info.json"])
    def test_flipped_bits_end_in_an_episode_or_in_a_dataset_error(self, images, name, seed):
        rng = np.random.default_rng(seed)
        content = bytearray((images / name).read_bytes())
        for position in rng.integers(len(content), size=3):
            content[position] ^= 1 << rng.integers(8)
        (images / name).write_bytes(content)
        with contextlib.suppress(DatasetError):
            read_back(images)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fps": 0}, "fps=0"),
            ({"fps": "40"}, "fps='40'"),
            ({"features": []}, "features"),
            ({"features": {"action": {"dtype": 3}}}, "features"),
            ({"features": {"action": {"dtype": "float32"}}}, "'observation.state'"),
            ({"features": {"observation.state": {"dtype": "float32"}}}, "'action'"),
        ],
    )
    def test_a_header_that_says_nothing_is_refused(self, states, changes, message):
        edit_json(states / "meta/info.json", **changes)
        with pytest.raises(DatasetError, match=message):
            lerobot.read(states)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"length": [3, 1, 5]}, "has 4 frames"),
            ({"length": [3, 1, -1]}, "length of an episode"),
            ({"episode_index": [0, 1, 7]}, "has 0 frames"),
            ({"episode_index": ["0", "1", "2"]}, "episode_index of an episode"),
            ({"data/file_index": [0, 0, 4]}, "file-004.parquet is missing"),
            ({"data/chunk_index": [0, 0, -4]}, "counts from 0"),
        ],
    )
    def test_episodes_that_are_not_there_are_told(self, states, changes, message):
        edit_table(states / EPISODES, **changes)
        with pytest.raises(DatasetError, match=message):
            read_back(states)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([[1.0, 2.0]] * 7 + [[1.0]], "rows of 1 to 2"),
            ([[1.0, 2.0]] * 7 + [None], "gaps"),
            ([[1.0, None]] * 8, "gaps"),
            (["a"] * 8, "string"),
            ([[1.0, float("nan")]] * 8, "nan"),
        ],
    )
    def test_frames_that_make_no_episode_are_told(self, states, values, message):
        edit_table(states / DATA, **{"observation.state": values})
        with pytest.raises(DatasetError, match=message):
            read_back(states)

    @pytest.mark.parametrize(("height", "width"), [(6000, 6000), (6, 11), (10, 6)])
    def test_images_of_another_size_than_is_told_are_not_decoded(self, images, height, width, monkeypatch):
        with_images_inside(foreign(images))
        files = pq.read_table(images / DATA)[CAMERA].to_pylist()
        files[2]["bytes"] = png(np.zeros((3, height, width), np.uint8))
        edit_table(images / DATA, **{CAMERA: files})
        monkeypatch.setattr("PIL.Image.Image.convert", allows_up_to(6 * 10))
        with pytest.raises(DatasetError, match=f"{height} x {width} pixels, and not the 6 x 10"):
            read_back(images)

    def test_a_final_image_of_another_size_is_not_decoded(self, images, monkeypatch):
        large = png(np.zeros((3, 6000, 6000), np.uint8))
        edit_table(images / "meta/worldmodel.parquet", final_pixels=[large, large])
        monkeypatch.setattr("PIL.Image.Image.convert", allows_up_to(6 * 10))
        with pytest.raises(DatasetError, match="6000 x 6000 pixels, and not the 6 x 10"):
            read_back(images)

    @pytest.mark.parametrize("shape", [None, [6, 10], ["6", "10", "3"], [6, 0, 3]])
    def test_images_without_a_size_are_refused(self, images, shape):
        with_images_inside(foreign(images), shape=shape)
        with pytest.raises(DatasetError, match="it is height, width, channels"):
            read_back(images)

    @pytest.mark.parametrize("name", [DATA, "meta/worldmodel.parquet"])
    def test_more_rows_than_there_are_frames_are_not_read(self, states, name):
        table = pq.read_table(states / name)
        many = pa.concat_tables([table] * 9).drop_columns("episode_index")
        numbers = pa.array(np.full(len(many), 7))
        pq.write_table(many.append_column("episode_index", numbers), states / name)
        with pytest.raises(
            DatasetError, match=rf"has {len(many)} rows, and all episodes .* together 8 frames"
        ):
            read_back(states)

    def test_a_feature_without_a_column_is_told(self, states):
        pq.write_table(pq.read_table(states / DATA).drop_columns("action"), states / DATA)
        with pytest.raises(DatasetError, match="no column 'action'"):
            read_back(states)

    @pytest.mark.parametrize("start_s", [[0.0, 0.15], [0.0, 9.0], [0.0, -1.0], [0.0, float("nan")]])
    def test_frames_that_a_video_does_not_have_are_told(self, images, start_s):
        edit_table(images / EPISODES, **{f"videos/{CAMERA}/from_timestamp": start_s})
        with pytest.raises(DatasetError, match=r"no frame|from_timestamp"):
            read_back(images)
