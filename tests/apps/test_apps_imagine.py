"""What a model that sees pictures imagines: decoded beside the real ones, and measured."""

import json
import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from worldmodel.apps import decoding
from worldmodel.apps import imagine as imagine_module
from worldmodel.apps.cli import main
from worldmodel.apps.datasets.pictures import FRAME_SIZE

SMALL = ["env.action_repeat=3", "env.image_size=32", "model.latent_dim=16", "model.hidden_dim=32"]
TRAIN = [*SMALL, "training.batch_size=16", "eval_every=1000", "eval_episodes=1", "num_updates=30"]
PLANNER = ["planner.num_candidates=16", "planner.num_elites=4", "planner.num_iterations=1"]
QUICK = ["episodes=2", "horizon=6", "every=4", "decoder.updates=20", "decoder.images=150"]
PICTURES = ["imagined_psnr", "decoded_psnr", "no_motion_psnr"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagine") / "data"
    command = ["collect", "task=tworoom", "env.action_repeat=3", "env.image_size=32", "policy=colored"]
    command += ["env.observe=[state,pixels]", "episodes=10", "num_envs=5", f"dataset={path}"]
    assert main(command) == 0
    return path


def trained(dataset, name, *words):
    path = dataset.parent / name
    assert main(["train", f"dataset={dataset}", f"run_dir={path}", *TRAIN, *PLANNER, *words]) == 0
    return path


@pytest.fixture(scope="module")
def pixel_run(dataset):
    """A model without rewards, of two pictures."""
    words = ["experiment=jepa", "env.observe=[state,pixels]", "model.observes=[pixels]", "model.history=2"]
    return trained(dataset, "pixels", *words)


@pytest.fixture(scope="module")
def state_run(dataset):
    """A model without rewards, of states."""
    return trained(dataset, "states", "experiment=jepa")


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch):
    """The read-out of states is fitted to as many episodes as are imagined: it is quick here."""
    monkeypatch.setattr("worldmodel.apps.imagine._FIT_STEPS", 1)


def imagined(run_dir, output, *words):
    assert main(["imagine", f"checkpoint={run_dir}", f"output={output}", *QUICK, *words]) == 0
    return json.loads((output / "imagine.json").read_text())


def test_pictures_and_states_are_imagined_and_shown(pixel_run, tmp_path):
    result = imagined(pixel_run, tmp_path)
    assert result["agent"] == "colored"
    # Starts 0, 4, ..., 28 of two episodes of 34 steps.
    assert result["num_windows"] == 16
    assert [row["steps"] for row in result["table"]] == [1, 2, 3, 5]
    row = result["table"][0]
    errors = ["observation_error", "no_motion_error", "latent_error", *PICTURES]
    assert [key for key in row if not key.endswith("_mse")] == ["steps", *errors]
    assert np.isfinite(list(row.values())).all()
    assert row["imagined_psnr"] == pytest.approx(-10 * np.log10(row["imagined_mse"]))
    assert iio.imread(tmp_path / "imagine.png").std() > 1
    film = iio.imread(tmp_path / "imagine.mp4")
    # Of two episodes a window each, then one more; real, decoded and imagined beside each other.
    assert len(film) == 3 * (6 + 1)
    assert film.shape[2] > 3 * FRAME_SIZE
    assert iio.immeta(tmp_path / "imagine.mp4")["fps"] == pytest.approx(1 / 0.3, rel=0.01)


@pytest.fixture
def own_run(pixel_run, tmp_path):
    """The run with its decoder, to be changed."""
    imagined(pixel_run, tmp_path / "first")
    return shutil.copytree(pixel_run, tmp_path / "run")


def refuse(*arguments, **settings):
    raise AssertionError("a decoder was trained")


def test_a_decoder_is_trained_once(own_run, tmp_path, monkeypatch):
    first = json.loads((tmp_path / "first" / "imagine.json").read_text())
    monkeypatch.setattr(decoding, "fit_decoder", refuse)
    again = imagined(own_run, tmp_path / "again")
    assert again["table"] == first["table"]
    imagined(own_run, tmp_path / "others", "seed=7", "horizon=3")  # other episodes need no other decoder


@pytest.mark.parametrize("change", ["settings", "agent", "weights"])
def test_a_decoder_of_another_kind_is_not_used(own_run, tmp_path, monkeypatch, change):
    words = {"settings": ["decoder.seed=1"], "agent": ["agent=random"], "weights": []}[change]
    if change == "weights":
        record = json.loads((own_run / "decoder.json").read_text())
        record["identity"]["weights"] = "those of another model"
        (own_run / "decoder.json").write_text(json.dumps(record))
    calls = []
    fit = decoding.fit_decoder
    monkeypatch.setattr(decoding, "fit_decoder", lambda *a, **k: calls.append(1) or fit(*a, **k))
    imagined(own_run, tmp_path / "out", *words)
    assert len(calls) == 1


def test_a_decoder_that_cannot_be_kept_is_used_all_the_same(own_run, tmp_path, capsys):
    (own_run / "decoder.safetensors").unlink()
    (own_run / "decoder.safetensors").mkdir()
    assert "imagined_psnr" in imagined(own_run, tmp_path / "out")["table"][0]
    assert "the decoder cannot be kept" in capsys.readouterr().out


def test_a_decoder_learns_from_a_dataset(pixel_run, dataset, tmp_path, monkeypatch):
    seen = []
    fit = decoding.fit_decoder
    monkeypatch.setattr(decoding, "fit_decoder", lambda e, i, **k: seen.append(i) or fit(e, i, **k))
    imagined(pixel_run, tmp_path, f"dataset={dataset}", "decoder.images=40")
    assert seen[0].shape == (40, 3, 32, 32)


def test_without_a_decoder_there_are_errors_alone(pixel_run, tmp_path):
    imagined(pixel_run, tmp_path)
    result = imagined(pixel_run, tmp_path, "decoder.updates=0")
    assert "imagined_psnr" not in result["table"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imagine.json", "imagine.png"]


def test_a_state_model_without_rewards_reads_out_what_moves(state_run, tmp_path, monkeypatch):
    """Not the goal, which is a part of the state too."""
    monkeypatch.setattr("worldmodel.apps.imagine._FIT_STEPS", 400)
    read = []
    compare = imagine_module.compare_states
    monkeypatch.setattr(imagine_module, "compare_states", lambda *a: read.append(a[2]) or compare(*a))
    result = imagined(state_run, tmp_path)
    assert list(result["table"][0]) == ["steps", "observation_error", "no_motion_error", "latent_error"]
    assert {each.shape for each in read[0]} == {(35, 4)}
    assert result["readout_r2"] > 0.5
    assert not (state_run / "decoder.json").exists()


def test_a_world_model_of_pictures_has_rewards_too(dataset, tmp_path):
    words = ["model=jepa", "model.predicts_return=true", "model.observes=[pixels]", "planner.num_proposals=2"]
    run_dir = trained(dataset, "rewards", "env.observe=[state,pixels]", *words, "num_updates=4")
    result = imagined(run_dir, tmp_path, "decoder.updates=2", "decoder.images=20", "agent=policy")
    assert {"reward_error", "return_error", *PICTURES} <= set(result["table"][0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["agent=planner"], "was trained without rewards"),
        (["agent=colred"], "did you mean colored"),
        (["decoder.updates=-1"], "decoder.updates=-1: must be at least 0"),
        (["decoder.images=0"], "decoder.images=0: must be at least 1"),
        (["dataset=nowhere"], "no dataset at nowhere"),
    ],
)
def test_a_mistake_is_one_line(pixel_run, refused, words, expected):
    assert expected in refused("imagine", f"checkpoint={pixel_run}", *words)


def test_a_dataset_is_of_no_use_to_a_model_of_states(state_run, dataset, refused):
    line = refused("imagine", f"checkpoint={state_run}", f"dataset={dataset}")
    assert "for the decoder of a model that observes pixels" in line


def test_a_dataset_without_pictures_is_refused(pixel_run, tmp_path, refused):
    command = ["collect", "task=tworoom", "env.action_repeat=3", "episodes=1", f"dataset={tmp_path / 'd'}"]
    assert main(command) == 0
    line = refused("imagine", f"checkpoint={pixel_run}", f"dataset={tmp_path / 'd'}")
    assert "has no observation `pixels`" in line
