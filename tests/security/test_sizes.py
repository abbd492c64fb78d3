"""Files of a few bytes that claim much: refused before memory is taken."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch

from envs import EnvError
from envs.mjcf_file import load_spec
from planners import MPPI, PlannerError
from worldmodel.apps.build import build_env
from worldmodel.apps.config import check_saved, compose_config, to_dict
from worldmodel.apps.training_checks import check_training
from worldmodel.data import memory
from worldmodel.data.memory import available_memory_bytes, require_memory
from worldmodel.errors import CheckpointError, ConfigError, DatasetError
from worldmodel.model import WorldModel, WorldModelSize
from worldmodel.training.checkpoint_state import model_of, read_state


@pytest.fixture
def counted():
    """Bytes that Python and numpy have taken at most since the beginning of the test."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_what_is_free_is_bounded_by_the_machine():
    assert 2**20 < available_memory_bytes() < 2**50


def test_more_than_half_of_what_is_free_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1e9)
    require_memory("x", 0.4e9)
    with pytest.raises(DatasetError, match=r"a.h5 claims to hold 0.6 GB .* 1.0 GB of memory that are free"):
        require_memory("a.h5", 0.6e9)
    require_memory("x", 2**26)  # so little is never worth a look


SMALL = {
    "state_dim": 3,
    "action_dim": 1,
    "latent_dim": 16,
    "hidden_dim": 16,
    "encoder_dim": 16,
    "num_bins": 21,
}


@pytest.mark.parametrize(
    "size",
    [
        *(
            {name: 10**9}
            for name in ("state_dim", "action_dim", "hidden_dim", "encoder_dim", "num_bins", "num_q")
        ),
        {"num_encoder_layers": 10**6},
        {"num_dynamics": 10**7},
        {"history": 10**8},
        {"latent_dim": 16 * 10**9, "group_dim": 8},
        {"hidden_dim": 20_000},  # fewer than there are weights
        {"observes": ["pixels"], "image_size": 8 * 10**8},
    ],
    ids=str,
)
def test_a_model_larger_than_its_weights_is_not_built(tmp_path, size, counted):
    weights = WorldModel(WorldModelSize(**SMALL)).state_dict()
    with pytest.raises(CheckpointError, match="does not fit its own size"):
        model_of(WorldModelSize(**(SMALL | size)), weights, tmp_path / "model.safetensors")
    assert counted() < 50e6


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"predicts_continuation": True, "num_q": 5, "num_encoder_layers": 2},
        {"predicts_return": False, "predictor": "transformer", "history": 3, "hidden_dim": 64},
        {"predicts_return": False, "observes": ["state", "pixels"], "image_size": 16, "num_dynamics": 3},
        {"observes": ["pixels"], "pixel_encoder": "vit", "image_size": 32, "predictor": "gru", "history": 2},
        {"observes": ["pixels"], "pixel_encoder": "keypoints", "image_size": 16, "latent_norm": "none"},
    ],
    ids=str,
)
def test_a_model_with_weights_of_its_size_is_built_to_the_bit(tmp_path, sizes):
    from worldmodel.training.kinds import make_model

    size = WorldModelSize(**(SMALL | sizes))
    weights = make_model(size).state_dict()
    built = model_of(size, weights, tmp_path / "model.safetensors").state_dict()
    assert all(torch.equal(built[name], value) for name, value in weights.items())


def test_a_state_of_any_length_is_not_read_whole(tmp_path, counted):
    with (tmp_path / "state.json").open("wb") as file:
        file.truncate(2**32)  # 4 GB that take no place on the disk
    with pytest.raises(CheckpointError, match="more than"):
        read_state(tmp_path, "")
    assert counted() < 300e6


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_candidates": 10**9}, "at most 1000000"),
        ({"num_iterations": 10**9}, "at most 1000000"),
        ({"horizon": 10**9}, "at most 2000"),
        ({"num_candidates": 10**6, "num_iterations": 10**5}, "would be drawn"),
    ],
)
def test_a_planner_that_asks_for_all_memory_is_refused(settings, told):
    with pytest.raises(PlannerError, match=told):
        MPPI(action_dim=1, **({"horizon": 3} | settings))


def test_an_environment_that_asks_for_all_time_or_memory_is_refused():
    for key, value in (("action_repeat", 10**9), ("image_size", 10**6)):
        with pytest.raises(ConfigError, match=f"env.{key}={value}: must be at most"):
            build_env("cartpole-balance", {key: value}, num_envs=1, seed=0)


def saved() -> dict:
    return json.loads(json.dumps(to_dict(compose_config("train", []))))


@pytest.mark.parametrize(
    "planner", ["mppi", "cem", "icem", "gradient", "dial", "hybrid", "predictive_sampling"]
)
@pytest.mark.parametrize("more", [[], ["basis=cubic", "noise=colored"]])
def test_what_train_writes_is_what_it_takes(planner, more):
    check_saved(json.loads(json.dumps(to_dict(compose_config("train", [f"planner={planner}", *more])))))


@pytest.mark.parametrize("experiment", ["tiny", "base", "jepa", "reward_jepa", "demo"])
def test_what_an_experiment_writes_is_what_it_takes(experiment):
    check_saved(to_dict(compose_config("train", [f"experiment={experiment}"])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.update(task=5), "task=5: must be a word"),
        (lambda config: config.update(env=[]), r"env=\[\]: must be names and their values"),
        (
            lambda config: config["env"].update(action_repeat="2"),
            "env.action_repeat=2: must be a whole number",
        ),
        (lambda config: config["env"].update(_target_="os.system"), "no setting 'env._target_'"),
        (lambda config: config["planner"].update(horizon=2.5), "planner.horizon=2.5: must be a whole number"),
        (
            lambda config: config["training"].update(batch_size={"a": 1}),
            "training.batch_size={.*whole number",
        ),
        (
            lambda config: config["planner"].update(min_std={"a": {"b": 1}}),
            "planner.min_std={.*: must be a number",
        ),
        (lambda config: config["planner"].pop("name"), "planner.name is missing"),
        (lambda config: config.pop("planner"), "planner is missing"),
        (lambda config: config.update(seed=True), "seed=True: must be a whole number"),
    ],
)
def test_a_saved_configuration_is_held_to_the_types_of_the_command_line(change, told):
    config = saved()
    change(config)
    with pytest.raises(ConfigError, match=told):
        check_saved(config)


@pytest.mark.parametrize("key", ["batch_size", "update_ratio"])
def test_a_run_whose_configuration_has_lost_a_number_is_refused(key):
    config = saved()
    del config["training"][key]
    with pytest.raises(ConfigError, match=f"training.{key} is missing: give training.{key}="):
        check_training(config)


def test_a_saved_configuration_resolves_nothing():
    """An interpolation would tell a file's author what stands in the environment."""
    config = saved() | {"task": "${oc.env:HOME}"}
    check_saved(config)
    assert config["task"] == "${oc.env:HOME}"


BODY = "<mujoco><worldbody><body><geom size='1'/></body></worldbody>{}</mujoco>"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ('<include file="other.xml"/>', "<include> leads to other files"),
        ('<asset><mesh name="m" file="/etc/passwd"/></asset>', "leads to another file"),
        ('<compiler meshdir="/"/>', "leads to another file"),
        ('<extension><plugin plugin="x"/></extension>', "<extension> leads to other files"),
        ('<size memory="900G"/>', "must be at most 1G"),
        ('<size nuser_body="2000000000"/>', "asks for more"),
        ('<asset><hfield name="h" nrow="20000" ncol="20000" size="1 1 1 1"/></asset>', "asks for more"),
        ('<asset><texture name="t" width="9e9" height="2"/></asset>', "asks for more"),
        (
            '<worldbody><replicate count="200000000"><geom size="1"/></replicate></worldbody>',
            "more than 10000 elements",
        ),
        (
            "<worldbody>"
            + '<replicate count="30">' * 4
            + '<geom size="1"/>'
            + "</replicate>" * 4
            + "</worldbody>",
            "more than 10000 elements",
        ),
    ],
)
def test_a_model_that_leads_elsewhere_or_asks_for_much_is_refused(tmp_path, part, told):
    path = tmp_path / "model.xml"
    path.write_text(BODY.format(part))
    with pytest.raises(EnvError, match=told) as caught:
        load_spec(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "<mujoco>", "<!DOCTYPE a [<!ENTITY b 'c'>]><mujoco/>", "\0", "<a/>" * 2]
)
def test_a_model_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "model.xml"
    path.write_text(text)
    with pytest.raises(EnvError, match=r"model\.xml"):
        load_spec(path)


def test_a_sound_model_is_read(tmp_path):
    path = tmp_path / "model.xml"
    path.write_text(BODY.format('<size memory="1M"/>'))
    assert load_spec(path).compile().nbody == 2


def test_a_video_that_is_a_playlist_opens_no_other_file(tmp_path):
    """FFmpeg goes by content: a list of files would be read, whatever it is called, and so would they."""
    av = pytest.importorskip("av")
    from worldmodel.data.formats.lerobot.video import VideoWriter, read_frames

    writer = VideoWriter(tmp_path / "secret.mp4", 10, 16, 16)
    writer.append(np.full((4, 3, 16, 16), 77, np.uint8))
    writer.close()
    assert (read_frames(tmp_path / "secret.mp4", 10.0, 0.0, 4) == 77).all()
    lists = {
        "concat": f"ffconcat version 1.0\nfile '{tmp_path / 'secret.mp4'}'\n",
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
    }
    for text in lists.values():
        path = tmp_path / "file-000.mp4"
        path.write_text(text)
        with pytest.raises(DatasetError, match="cannot be decoded"):
            read_frames(path, 10.0, 0.0, 4)
    assert av.open(str(tmp_path / "secret.mp4")).streams.video[0].frames == 4


def test_a_video_of_giant_frames_is_not_decoded(tmp_path, monkeypatch):
    pytest.importorskip("av")
    from worldmodel.data.formats.lerobot import video

    writer = video.VideoWriter(tmp_path / "file.mp4", 10, 32, 32)
    writer.append(np.zeros((4, 3, 32, 32), np.uint8))
    writer.close()
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(DatasetError, match="frames of 1024 pixels, more than 1000"):
        video.read_frames(tmp_path / "file.mp4", 10.0, 0.0, 4)
    monkeypatch.setattr(video, "MAX_PIXELS", 2000)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1e9)
    with pytest.raises(DatasetError, match="claims to hold"):
        video.read_frames(tmp_path / "file.mp4", 10.0, 0.0, 10**7)


def test_compressed_rows_are_not_all_unpacked_where_memory_is_short(tmp_path, monkeypatch):
    from worldmodel.data.compressed import CompressedRows, write_rows

    rows = np.zeros((4, 3, 1024, 1024), np.uint8)
    write_rows(tmp_path, "observation.pixels", [rows])
    read = CompressedRows(tmp_path, "observation.pixels", rows.dtype, rows.shape)
    assert not read[np.arange(4)].any()
    many = np.zeros(1000, np.int64)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1e9)
    assert math.prod(read[np.arange(4)].shape) == rows.size
    with pytest.raises(DatasetError, match=r"claims to hold 3\.1 GB"):
        read[many]
