"""Training runs: what they leave, that they repeat, and that nothing is lost when they end early."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_tasks
from processes import end, start
from safetensors.numpy import load_file

from planners import PlannerError
from worldmodel.apps.cli import main
from worldmodel.apps.online import exploration_std
from worldmodel.apps.train import make_training
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.errors import DivergenceError
from worldmodel.training import find_checkpoint, load_checkpoint, read_metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def train(run_dir: Path, *overrides: str) -> int:
    tiny = toy_tasks.TINY_TRAINING
    return main(["train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *tiny, *overrides])


def weights(run_dir: Path) -> dict[str, np.ndarray]:
    checkpoint = find_checkpoint(run_dir)
    return load_file(checkpoint / "model.safetensors") | {
        f"trainer.{name}": value for name, value in load_file(checkpoint / "trainer.safetensors").items()
    }


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].tobytes() == right[name].tobytes(), name


def timeless(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in records]


def test_a_run_leaves_checkpoints_metrics_and_episodes(point_run):
    config = json.loads((point_run / "config.json").read_text())
    assert (config["task"], config["env_steps"]) == (toy_tasks.POINT, 200)
    assert sorted(path.name for path in (point_run / "checkpoints").iterdir()) == [
        "step_000000100",
        "step_000000200",
    ]
    dataset = EpisodeDataset.open(point_run / "dataset")
    assert dataset.info["task"] == "Point-v0"
    # 200 env steps in two environments: 10 episodes of 20, unless one was lost on the way.
    assert 200 - 2 * 20 < dataset.num_steps <= 200
    records = read_metrics(point_run)
    returns = [record["train/return"] for record in records if "train/return" in record]
    assert returns == pytest.approx([episode.total_reward for episode in dataset])
    assert [r["env_steps"] for r in records if "eval/return" in r] == [100, 200]
    assert all(np.isfinite(value) for record in records for value in record.values())


def test_updates_follow_the_ratio(point_run):
    ratio = json.loads((point_run / "config.json").read_text())["training"]["update_ratio"]
    assert load_checkpoint(point_run).state["trainer"]["num_updates"] == np.ceil(200 * ratio)


def test_the_same_seed_trains_the_same_and_another_does_not(point_run, tmp_path):
    assert train(tmp_path / "same") == 0
    assert_same(weights(tmp_path / "same"), weights(point_run))
    assert timeless(read_metrics(tmp_path / "same")) == timeless(read_metrics(point_run))
    assert train(tmp_path / "other", "seed=1", "env_steps=60") == 0
    assert train(tmp_path / "first", "env_steps=60") == 0
    assert timeless(read_metrics(tmp_path / "other")) != timeless(read_metrics(tmp_path / "first"))


def test_a_finished_run_goes_on_to_a_new_target(point_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(point_run, run_dir)
    before = EpisodeDataset.open(run_dir / "dataset")
    records = read_metrics(run_dir)
    assert main(["train", f"run_dir={run_dir}", "resume=true", "env_steps=300"]) == 0
    after = EpisodeDataset.open(run_dir / "dataset")
    checkpoint = load_checkpoint(run_dir)
    assert checkpoint.path.name == "step_000000300"
    assert checkpoint.info["num_episodes"] == len(after) > len(before)
    assert read_metrics(run_dir)[: len(records)] == records
    assert [r["env_steps"] for r in read_metrics(run_dir) if "eval/return" in r] == [100, 200, 300]
    # New starts, not the first ones again.
    starts = [tuple(episode.observation["state"][0]) for episode in after]
    assert len(set(starts)) == len(starts)
    # The target is remembered: the command that is printed on Ctrl-C does not name it.
    assert json.loads((run_dir / "config.json").read_text())["env_steps"] == 300


@pytest.mark.parametrize(("env_steps", "std"), [(0, 0.5), (50, 0.3), (100, 0.1), (10_000, 0.1)])
def test_exploration_falls_in_a_straight_line(env_steps, std):
    config = {"first_exploration_std": 0.5, "exploration_std": 0.1, "exploration_steps": 100}
    assert exploration_std(config, env_steps) == pytest.approx(std)


def test_a_run_explores_as_much_as_its_env_steps_say(point_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(point_run, run_dir)
    config = json.loads((run_dir / "config.json").read_text()) | {"resume": True, "env_steps": 400}
    config |= {"first_exploration_std": 1.0, "exploration_std": 0.0, "exploration_steps": 400}
    training = make_training(run_dir, config)
    try:
        acted = []
        act = training._agent.act
        training._agent.act = lambda *a: (acted.append(training._agent.exploration_std), act(*a))[1]
        while len(acted) < 3:
            training.advance()
        assert acted == pytest.approx([0.5, 0.495, 0.49])
    finally:
        training.close()


@pytest.mark.parametrize(("first_paid", "num_random"), [(10**9, 120), (2, 80)])
def test_a_run_explores_longer_where_all_rewards_are_the_same(tmp_path, monkeypatch, first_paid, num_random):
    """Two environments, episodes of 20 steps: the reward of the second pair is known after 80 steps."""
    monkeypatch.setattr(toy_tasks.Barren, "first_paid", first_paid)
    run_dir = tmp_path / "run"
    assert train(run_dir, f"task={toy_tasks.BARREN}", "env_steps=160", "max_random_steps=120") == 0
    policies = [episode.info["policy"] for episode in EpisodeDataset.open(run_dir / "dataset")]
    assert policies == ["random"] * (num_random // 20) + ["planner"] * ((160 - num_random) // 20)


def test_the_normalizer_has_seen_every_recorded_observation_once(point_run):
    dataset = EpisodeDataset.open(point_run / "dataset")
    states = np.concatenate([episode.observation["state"] for episode in dataset])
    normalizer = load_checkpoint(point_run).model.encoder.normalizer
    assert float(normalizer.count) == len(states)
    assert normalizer.mean.numpy() == pytest.approx(states.mean(0), abs=1e-4)


@pytest.mark.parametrize("capacity", [1_000_000, 60])
def test_episodes_after_the_last_checkpoint_are_counted_once(point_run, tmp_path, capacity):
    """As after kill -9: the newest checkpoint is gone, the episodes are there."""
    run_dir = tmp_path / "run"
    shutil.copytree(point_run, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_000000200")
    config = json.loads((run_dir / "config.json").read_text())
    config["data"]["capacity"] = capacity
    dataset = EpisodeDataset.open(run_dir / "dataset")
    num_episodes = load_checkpoint(run_dir).info["num_episodes"]
    num_observations = dataset.num_steps + len(dataset)
    training = make_training(run_dir, config | {"resume": True})
    try:
        assert training.num_episodes == len(dataset) == num_episodes + 6
        remembered = list(training.dataset)[-6:]
        assert training.env_steps == remembered[-1].info["env_steps"] == 200
        if capacity > dataset.num_steps:
            assert float(training.trainer.model.encoder.normalizer.count) == num_observations
    finally:
        training.close()


def test_a_forgetful_run_resumes(tmp_path):
    """With a capacity below what was recorded, old episodes must not be taken for new ones."""
    run_dir = tmp_path / "run"
    assert train(run_dir, "data.capacity=45") == 0
    count = float(load_checkpoint(run_dir).model.encoder.normalizer.count)
    config = json.loads((run_dir / "config.json").read_text())
    training = make_training(run_dir, config | {"resume": True})
    try:
        assert len(training.dataset) < training.num_episodes == load_checkpoint(run_dir).info["num_episodes"]
        assert float(training.trainer.model.encoder.normalizer.count) == count
    finally:
        training.close()


def test_a_run_folder_that_exists_is_left_alone(point_run, refused):
    before = (point_run / "config.json").read_bytes()
    line = refused("train", f"task={toy_tasks.POINT}", f"run_dir={point_run}", "seed=5")
    assert f"worldmodel train run_dir={point_run} resume=true" in line
    assert (point_run / "config.json").read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(tmp_path, refused):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "is no run folder" in refused("train", f"task={toy_tasks.POINT}", f"run_dir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=3", "seed=0"),
        ("planner.horizon=9", "planner.horizon="),
        ("planner=cem", "another planner"),
        ("model=small", "another model"),
        ("task=reacher-easy", f"task={toy_tasks.POINT}"),
    ],
)
def test_a_resumed_run_keeps_what_it_is(point_run, refused, override, expected):
    before = (point_run / "config.json").read_bytes()
    line = refused("train", f"run_dir={point_run}", "resume=true", override)
    assert f"was started with {expected}" in line
    assert "env_steps" in line
    assert "keep_checkpoints" in line
    assert (point_run / "config.json").read_bytes() == before


def test_there_must_be_a_run_to_resume(tmp_path, refused):
    assert "there is no run in" in refused("train", f"run_dir={tmp_path / 'none'}", "resume=true")
    assert not (tmp_path / "none").exists()


def test_a_bad_number_on_resume_does_not_stay(point_run, refused):
    before = (point_run / "config.json").read_bytes()
    assert "keep_checkpoints=0" in refused(
        "train", f"run_dir={point_run}", "resume=true", "keep_checkpoints=0"
    )
    assert (point_run / "config.json").read_bytes() == before


def test_offline_from_a_dataset(tmp_path, capsys):
    dataset, run_dir = tmp_path / "data", tmp_path / "run"
    task = [f"task={toy_tasks.POINT}", "env.action_repeat=1"]
    assert main(["collect", *task, "episodes=4", f"dataset={dataset}", "policy=colored"]) == 0
    offline = ["num_updates=30", "eval_every=20", "checkpoint_every=10", f"dataset={dataset}"]
    assert train(run_dir, *offline) == 0
    hint = f"worldmodel control checkpoint={run_dir} task={toy_tasks.POINT}\n"
    assert f"trained; see it act with:  {hint}" in capsys.readouterr().out
    assert load_checkpoint(run_dir).path.name == "step_000000030"
    assert load_checkpoint(run_dir).state["trainer"]["num_updates"] == 30
    assert not (run_dir / "dataset").exists()
    assert len(EpisodeDataset.open(dataset)) == 4
    assert [r["env_steps"] for r in read_metrics(run_dir) if "eval/return" in r] == [20, 30]
    # 30 updates at once, and 10 then 20 more, are the same to the bit.
    parts = tmp_path / "parts"
    assert train(parts, *offline, "num_updates=10") == 0
    assert main(["train", f"run_dir={parts}", "resume=true", "num_updates=30"]) == 0
    assert_same(weights(parts), weights(run_dir))


def test_offline_needs_a_dataset_of_the_task(point_run, tmp_path, refused):
    data, run_dir = point_run / "dataset", tmp_path / "run"
    tiny = toy_tasks.TINY_TRAINING
    line = refused("train", "task=toy_tasks:Broken-v0", f"dataset={data}", f"run_dir={run_dir}", *tiny)
    assert "was recorded with task Point-v0, not Broken-v0; give task=Point-v0" in line
    line = refused(
        "train",
        f"task={toy_tasks.POINT}",
        f"dataset={data}",
        f"run_dir={run_dir}",
        *tiny,
        "env.action_repeat=2",
    )
    assert "give env.action_repeat=1" in line
    line = refused(
        "train", f"task={toy_tasks.POINT}", f"dataset={tmp_path / 'no'}", f"run_dir={run_dir}", *tiny
    )
    assert f"there is no dataset at {tmp_path / 'no'}" in line
    assert not run_dir.exists()


def test_offline_takes_task_and_action_repeat_from_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect = ["collect", "task=Pendulum-v1", "env.action_repeat=4", "episodes=2", "dataset=data"]
    assert main(collect) == 0
    tiny = [word for word in toy_tasks.TINY_TRAINING if not word.startswith("env.")]
    assert main(["train", "dataset=data", "num_updates=4", "eval_every=4", *tiny]) == 0
    config = json.loads(Path("runs/Pendulum-v1/offline-seed-0/config.json").read_text())
    assert (config["task"], config["env"]["action_repeat"]) == ("Pendulum-v1", 4)


def recorded_elsewhere() -> Episode:
    """States of 2 numbers, actions of 3."""
    return Episode(
        observation={"state": np.zeros((6, 2), np.float32)},
        action=np.zeros((5, 3), np.float32),
        reward=np.zeros(5, np.float32),
        terminated=False,
        truncated=True,
    )


def test_a_dataset_does_not_get_a_module_imported(tmp_path):
    path, trace = tmp_path / "data", tmp_path / "imported"
    (tmp_path / "evil_module.py").write_text(f"open({str(trace)!r}, 'w').close()")
    EpisodeDataset(path, mode="a", info={"task": "evil_module:Point-v0"}).append(recorded_elsewhere())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        ended = end(start("train", f"dataset={path}", f"run_dir={tmp_path / 'run'}"))
    assert ended.code == 2
    assert "whose module is imported; give task=evil_module:Point-v0 to allow it" in ended.err
    assert not trace.exists()


def test_a_dataset_without_a_task_needs_one_of_its_sizes(tmp_path, refused):
    path, run_dir = tmp_path / "data", tmp_path / "run"
    EpisodeDataset(path, mode="a").append(recorded_elsewhere())
    arguments = ["train", f"dataset={path}", f"run_dir={run_dir}"]
    assert "names no task, and one is evaluated: give task=" in refused(*arguments)
    line = refused(*arguments, "task=cartpole-swingup")
    assert "has states of 2 numbers, and cartpole-swingup of 5" in line
    line = refused(*arguments, f"task={toy_tasks.POINT}")
    assert "has actions of 3 numbers, and Point-v0 of 1" in line
    assert not run_dir.exists()


def test_a_task_that_only_the_dataset_knows_is_told(tmp_path, refused):
    path = tmp_path / "data"
    EpisodeDataset(path, mode="a", info={"task": "Arm-v0"}).append(recorded_elsewhere())
    line = refused("train", f"dataset={path}", f"run_dir={tmp_path / 'run'}")
    assert f"dataset={path} says that it was recorded on Arm-v0, which is no task here" in line
    assert "give task=MODULE:Arm-v0 with the module that registers it (on PYTHONPATH)" in line


def test_actions_beyond_their_bounds_are_not_learned_from(tmp_path, refused):
    path, run_dir = tmp_path / "data", tmp_path / "run"
    command = ["collect", f"task={toy_tasks.POINT}", "env.action_repeat=1", "episodes=1", f"dataset={path}"]
    assert main(command) == 0
    dataset = EpisodeDataset(path, mode="a")
    (episode,) = dataset
    dataset.append(replace(episode, action=episode.action * 50))
    line = refused("train", f"task={toy_tasks.POINT}", f"dataset={path}", f"run_dir={run_dir}")
    assert "and they must lie in [-1, 1]" in line
    assert not run_dir.exists()


def test_a_file_does_not_get_a_module_imported(point_run):
    """A checkpoint that names `module:id` opens only if the user names it too."""
    ended = end(start("control", f"checkpoint={point_run}", "video=false"))
    assert ended.code == 2
    assert ended.err.startswith("worldmodel: ")
    assert f"give task={toy_tasks.POINT} to allow it" in ended.err
    ended = end(start("train", f"run_dir={point_run}", "resume=true"))
    assert ended.code == 2
    assert f"give task={toy_tasks.POINT}" in ended.err


def test_training_that_diverges_keeps_the_last_sound_checkpoint(tmp_path, refused):
    run_dir = tmp_path / "run"
    assert train(run_dir, "training.learning_rate=1e-3") == 0
    sound = weights(run_dir)
    path = run_dir / "config.json"
    config = json.loads(path.read_text()) | {"resume": True, "env_steps": 400}
    training = make_training(run_dir, config)
    for group in training.trainer.model_optimizer.param_groups:
        group["lr"] = 1e38
    with pytest.raises(DivergenceError, match=r"diverged at update \d+: .*learning_rate"):
        training.run()
    assert_same(weights(run_dir), sound)
    assert all(np.isfinite(value).all() for value in weights(run_dir).values())


def test_a_run_in_use_is_refused(tmp_path, refused):
    run_dir = tmp_path / "run"
    assert train(run_dir) == 0
    config = json.loads((run_dir / "config.json").read_text()) | {"resume": True}
    training = make_training(run_dir, config)
    try:
        line = refused("train", f"run_dir={run_dir}", "resume=true", "env_steps=300")
        assert "is in use by another process" in line
    finally:
        training.close()
    assert main(["train", f"run_dir={run_dir}", "resume=true", "env_steps=300"]) == 0


def test_an_evaluation_that_was_cut_off_is_made_up(tmp_path):
    run_dir = tmp_path / "run"
    assert train(run_dir) == 0
    config = json.loads((run_dir / "config.json").read_text()) | {"resume": True, "env_steps": 300}
    training = make_training(run_dir, config)

    def cut_off(*arguments):
        raise KeyboardInterrupt

    training._evaluate = cut_off
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert load_checkpoint(run_dir).info["env_steps"] == 300
    assert main(["train", f"run_dir={run_dir}", "resume=true", "env_steps=300"]) == 0
    assert [r["env_steps"] for r in read_metrics(run_dir) if "eval/return" in r] == [100, 200, 300]


def test_a_capacity_below_an_episode_is_told_before_training(tmp_path, refused):
    tiny = toy_tasks.TINY_TRAINING
    run_dir = tmp_path / "run"
    line = refused("train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *tiny, "data.capacity=10")
    assert "data.capacity=10: must hold an episode of 20 agent steps" in line
    assert not run_dir.exists()


def running(run_dir: Path):
    """Training in a process of its own that will not end by itself, once it has saved a checkpoint."""
    endless = [*toy_tasks.TINY_TRAINING, "env_steps=1_000_000"]
    process = start("train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *endless)
    until = time.monotonic() + 100
    while not list(run_dir.glob("checkpoints/step_*/state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no checkpoint in time"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_and_says_how_to_go_on(tmp_path, number, capsys):
    run_dir = tmp_path / "run"
    process = running(run_dir)
    process.send_signal(number)
    ended = end(process)
    assert ended.code == 130, ended
    # A task `module:id` is imported because the user says so, not because a file does.
    command = f"worldmodel train run_dir={run_dir} resume=true task={toy_tasks.POINT}"
    assert ended.err.split("\n\n")[-1].strip() == f"saved; go on with:  {command}"
    assert "finishing the step, then saving" in ended.err
    saved = load_checkpoint(run_dir)
    dataset = EpisodeDataset.open(run_dir / "dataset")
    assert saved.info["num_episodes"] == len(dataset)
    target = saved.info["env_steps"] + 100
    assert main([*command.split()[1:], f"env_steps={target}"]) == 0
    assert load_checkpoint(run_dir).info["env_steps"] == target
    assert len(EpisodeDataset.open(run_dir / "dataset")) > len(dataset)


def test_kill_9_costs_no_finished_episode(tmp_path, capsys):
    run_dir = tmp_path / "run"
    process = running(run_dir)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    end(process)
    saved = load_checkpoint(run_dir)
    saved.trainer()
    dataset = EpisodeDataset.open(run_dir / "dataset")
    returns = [r["train/return"] for r in read_metrics(run_dir) if "train/return" in r]
    assert len(dataset) - len(returns) in (0, 1)  # an episode is safe before it is logged
    recorded = [episode.total_reward for episode in dataset]
    assert recorded[: len(returns)] == pytest.approx(returns)
    target = saved.info["env_steps"] + dataset.num_steps + 50
    assert main(["train", f"run_dir={run_dir}", "resume=true", f"env_steps={target}"]) == 0
    assert load_checkpoint(run_dir).info["env_steps"] >= target
    again = EpisodeDataset.open(run_dir / "dataset")
    assert [episode.total_reward for episode in again][: len(recorded)] == recorded


@pytest.mark.parametrize("part", ["model", "averaged_model"])
def test_experience_is_made_with_the_latest_weights_and_judged_with_their_average(tmp_path, part):
    """Each without the other: NaN in the weights that it should not look at changes nothing."""
    run_dir = tmp_path / "run"
    assert train(run_dir) == 0
    config = json.loads((run_dir / "config.json").read_text()) | {"resume": True}
    training = make_training(run_dir, config)
    looks_at_it = {
        "model": training._agent,
        "averaged_model": training.planning_agent(seed=0, is_averaged=True),
    }
    observation, _ = training.env.reset()
    for weight in getattr(training.trainer, part).dynamics.parameters():
        weight.data.fill_(torch.nan)
    for name, agent in looks_at_it.items():
        if name == part:
            with pytest.raises(PlannerError):
                agent.act(observation)
        else:
            assert np.isfinite(agent.act(observation).action).all()
    training.close()
