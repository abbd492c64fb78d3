"""Models with rewards from states, images and histories: trained online, offline, and made to act."""

import json

import pytest

from worldmodel.apps.cli import main
from worldmodel.apps.trained import open_run
from worldmodel.model import WorldModel

SMALL = ["env.image_size=16", "model.latent_dim=16", "model.hidden_dim=16", "model.num_bins=21"]
SMALL += ["planner.num_candidates=16", "planner.num_elites=4", "planner.num_iterations=1", "compile=false"]
SMALL += ["planner.num_proposals=2", "training.batch_size=16", "eval_episodes=1", "env.action_repeat=3"]
ONLINE = ["env_steps=450", "random_steps=100", "training.update_ratio=0.2", "eval_every=10000"]
KINDS = {
    "pixels": ["env.observe=[pixels]", "model.observes=[pixels]", "model.history=2", "model.predictor=gru"],
    "states": ["model.num_dynamics=2"],
}


@pytest.fixture(scope="module", params=KINDS)
def runs(request, tmp_path_factory):
    """A kind of model, trained by acting, and again from what that recorded."""
    folder = tmp_path_factory.mktemp(request.param)
    command = ["train", "experiment=reward_jepa", *KINDS[request.param], *SMALL, *ONLINE]
    assert main([*command, "task=tworoom", f"run_dir={folder / 'online'}"]) == 0
    command = ["train", "experiment=reward_jepa", *KINDS[request.param], *SMALL, "num_updates=100"]
    command += ["eval_every=100", f"dataset={folder / 'online' / 'dataset'}", f"run_dir={folder / 'offline'}"]
    assert main(command) == 0
    return request.param, folder


@pytest.mark.parametrize("how", ["online", "offline"])
def test_both_objectives_are_learned_and_the_embeddings_stay_apart(runs, how):
    kind, folder = runs
    model = open_run(folder / how).model
    assert isinstance(model, WorldModel)
    assert (model.inverse_head is not None, model.size.history) == (True, 2 if kind == "pixels" else 1)
    records = [json.loads(line) for line in (folder / how / "metrics.jsonl").read_text().splitlines()]
    if how == "offline":
        last = [record for record in records if "train/loss" in record][-1]
        assert {"train/value_loss", "train/prediction_loss", "train/sigreg_loss"} <= last.keys()
        assert last["train/embedding_rank"] > 1.5
    assert "eval/return" in records[-1]


def test_it_acts_and_keeps_plans_where_predictors_agree(runs, capsys):
    kind, folder = runs
    command = ["control", f"checkpoint={folder / 'online'}", "episodes=1", "video=false"]
    command += ["alarm=warn", "alarm_rate=0.5"]
    results = []
    for weight in (0.0, 1000.0) if kind == "states" else (0.0,):
        assert main([*command, f"disagreement_weight={weight}", f"output={folder / str(weight)}"]) == 0
        results.append(json.loads((folder / str(weight) / "control.json").read_text()))
    signals = {"surprise", "lasting_surprise"} | ({"disagreement"} if kind == "states" else set())
    assert results[0]["alarm"]["thresholds"].keys() == signals
    if kind == "states":
        assert results[0]["returns"] != results[1]["returns"]


def test_rewards_states_and_pictures_are_imagined(runs, tmp_path):
    kind, folder = runs
    command = ["imagine", f"checkpoint={folder / 'online'}", f"output={tmp_path}", "episodes=2", "horizon=5"]
    assert main([*command, "decoder.updates=2", "decoder.images=40"]) == 0
    row = json.loads((tmp_path / "imagine.json").read_text())["table"][0]
    assert {"reward_error", "observation_error", "latent_error"} <= row.keys()
    assert ("imagined_psnr" in row) == (kind == "pixels")
