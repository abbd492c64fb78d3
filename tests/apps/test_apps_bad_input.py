"""What can go wrong outside: each gives one clear line and exit code 2, and loses nothing."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import toy_tasks

from worldmodel.apps.cli import main
from worldmodel.data import EpisodeDataset
from worldmodel.training import find_checkpoint, load_checkpoint, metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def run_copy(point_run, tmp_path) -> Path:
    shutil.copytree(point_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=cartpole-swingpu"], ["'cartpole-swingpu'", "did you mean cartpole-swingup"]),
        (["task=CartPole-v1"], ["CartPole-v1 has the action space Discrete(2)", "continuous"]),
        ([f"task={toy_tasks.UNBOUNDED}"], ["Unbounded-v0", "must have bounds"]),
        (["task=null"], ["task=None: must be a word"]),
        (["planner=mpi"], ["no planner 'mpi'", "mppi"]),
        (["planner.name=mpi"], ["no planner 'mpi'", "mppi"]),
        (["planner.name=cem"], ["planner.name=cem has no", "temperature", "planner=cem"]),
        (["planner.num_elites=65", "planner.num_candidates=64"], ["num_elites is 65", "64 candidates"]),
        (
            ["planner.num_proposals=64", "planner.num_candidates=64"],
            ["planner.num_proposals=64", "below num_candidates=64"],
        ),
        (["planner.num_proposals=-1"], ["planner.num_proposals=-1", "at least 0"]),
        (["planner.horizon=0"], ["horizon is 0"]),
        (["planner.temperature=0"], ["temperature is 0"]),
        (["env_step=5"], ["'env_step'", "did you mean env_steps"]),
        (["env_steps=-5"], ["env_steps=-5: must be at least 1"]),
        (["num_envs=0"], ["num_envs=0: must be at least 1"]),
        (["seed=-1"], ["seed=-1: must be at least 0"]),
        (["exploration_std=-0.1"], ["exploration_std=-0.1: must be at least 0"]),
        (["first_exploration_std=-1"], ["first_exploration_std=-1.0: must be at least 0"]),
        (["exploration_steps=0"], ["exploration_steps=0: must be at least 1"]),
        (["training.learning_rate=-1"], ["learning_rate=-1", "above 0"]),
        (["training.learning_rate=nan"], ["learning_rate=nan", "above 0"]),
        (["training.discount=2"], ["discount=2", "at most 1"]),
        (["training.horizon=0"], ["horizon=0", "at least 1"]),
        (["training.batch_size=0"], ["batch_size=0"]),
        (["training.update_ratio=0"], ["update_ratio=0", "above 0"]),
        (["model.latent_dim=10"], ["latent_dim=10", "multiple of group_dim=8"]),
        (["data.capacity=0"], ["data.capacity=0: must hold an episode"]),
        (["env.action_repeat=0"], ["env.action_repeat=0: must be at least 1"]),
        (["env.observe=[smell]"], ["env.observe=[smell]", "write [state], [pixels] or [state,pixels]"]),
        (["env.observe=[]"], ["env.observe=[]"]),
        (["env.image_size=-4"], ["env.image_size=-4: must be at least 1"]),
        (["env.observe=[pixels]"], ["env.observe=[state,pixels]"]),
        (["device=abacus"], ["device=abacus", "device=cpu always works"]),
        (["device=cuda:99"], ["device=cuda:99", "device=cpu always works"]),
        (["dataset=no/such/folder"], ["no dataset at no/such/folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_run_that_cannot_start_leaves_nothing(tmp_path, refused, overrides, expected):
    run_dir = tmp_path / "runs" / "task" / "run"
    line = refused("train", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", *overrides)
    for part in expected:
        assert part in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["control", "imagine"])
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["episodes=0"], "episodes=0: must be at least 1"),
        (["seed=-1"], "seed=-1"),
        (["agent=planer"], "no agent 'planer' (did you mean planner"),
        (["planner=mpi"], "no planner 'mpi'"),
        (["planner=cem", "planner.num_elites=1000"], "num_elites is 1000"),
        (["task=reacher-easy"], "was trained on Point-v0"),
    ],
)
def test_what_looks_at_a_run(point_run, tmp_path, refused, verb, overrides, expected):
    line = refused(verb, f"checkpoint={point_run}", f"output={tmp_path / 'out'}", *overrides)
    assert expected in line


@pytest.mark.parametrize("verb", ["control", "imagine", "collect"])
def test_a_checkpoint_that_is_not_there(tmp_path, refused, verb):
    further = [f"dataset={tmp_path / 'd'}"] if verb == "collect" else []
    (tmp_path / "other").mkdir()
    line = refused(verb, f"checkpoint={tmp_path / 'mine'}", *further)
    assert f"no checkpoint at {tmp_path / 'mine'}" in line
    assert "other" in line
    assert "expected step_*" in refused(verb, f"checkpoint={tmp_path / 'other'}", *further)
    assert not (tmp_path / "d").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_checkpoint(run_copy, refused, damage, name):
    newest = find_checkpoint(run_copy)
    damage(newest / name)
    line = refused("control", f"checkpoint={newest}", "video=false", "episodes=1")
    assert str(newest) in line


def test_a_checkpoint_that_says_something_else_now(run_copy, refused):
    path = find_checkpoint(run_copy) / "state.json"
    state = json.loads(path.read_text())
    state["info"]["task"] = "reacher-easy"
    path.write_text(json.dumps(state))
    line = refused("control", f"checkpoint={run_copy}")
    assert "was altered" in line
    assert "step_000000100" in line  # the one that still works


def test_a_damaged_checkpoint_is_not_trained_on(run_copy, refused):
    newest = find_checkpoint(run_copy)
    truncate(newest / "trainer.safetensors")
    before = sorted(str(path) for path in run_copy.rglob("*"))
    line = refused("train", f"run_dir={run_copy}", "resume=true", "env_steps=300")
    assert "trainer.safetensors is damaged" in line
    assert sorted(str(path) for path in run_copy.rglob("*") if "tensorboard" not in str(path)) == [
        path for path in before if "tensorboard" not in path
    ]


def test_nan_from_the_simulator_saves_first(tmp_path, refused):
    run_dir = tmp_path / "run"
    tiny = [*toy_tasks.TINY_TRAINING, "env_steps=1000", "checkpoint_every=1000", "eval_every=1000"]
    line = refused("train", "task=toy_tasks:Broken-v0", f"run_dir={run_dir}", *tiny)
    assert "Broken-v0 diverged at agent step" in line
    assert "state are [nan]" in line
    assert f"worldmodel train run_dir={run_dir} resume=true" in line
    saved = load_checkpoint(run_dir)
    assert saved.info["env_steps"] == 2 * (toy_tasks.Broken.first_nan - 1)
    assert saved.info["num_episodes"] == len(EpisodeDataset.open(run_dir / "dataset")) >= 4
    # And it does go on, until the simulator breaks again.
    refused("train", f"run_dir={run_dir}", "resume=true")
    assert load_checkpoint(run_dir).info["env_steps"] > saved.info["env_steps"]


def full_disk(*arguments, **keywords):
    raise FULL


def opened_on_a_full_disk(path: Path, mode: str = "r", *further, **keywords):
    """Where the metrics should go, the kernel itself says that the disk is full, also on closing."""
    return open(
        "/dev/full" if path.name == metrics.METRICS_FILE and mode == "a" else path, mode, *further, **keywords
    )


@pytest.mark.parametrize("part", ["episode", "checkpoint", "metrics", "tensorboard", "config"])
def test_a_full_disk(run_copy, monkeypatch, refused, capsys, part):
    saved = load_checkpoint(run_copy)
    num_episodes = len(EpisodeDataset.open(run_copy / "dataset"))
    with monkeypatch.context() as full:
        if part == "episode":
            full.setattr("worldmodel.data.shard.write_array", full_disk)
        elif part == "checkpoint":
            full.setattr("worldmodel.training.checkpoint.save_file", full_disk)
        elif part == "metrics":
            full.setattr(Path, "open", opened_on_a_full_disk)
        elif part == "tensorboard":
            full.setattr(metrics.RecordWriter, "write", full_disk)
        else:
            full.setattr("worldmodel.apps.run.write_json", full_disk)
        line = refused("train", f"run_dir={run_copy}", "resume=true", "env_steps=300")
    assert "No space left on device" in line
    # All that was there is there, and it goes on when there is space again.
    assert len(EpisodeDataset.open(run_copy / "dataset")) >= num_episodes
    assert load_checkpoint(run_copy).info["env_steps"] >= saved.info["env_steps"]
    assert main(["train", f"run_dir={run_copy}", "resume=true", "env_steps=300"]) == 0
    assert load_checkpoint(run_copy).info["env_steps"] >= 300


@pytest.mark.parametrize("verb", ["control", "imagine"])
def test_an_output_that_cannot_be_written(point_run, tmp_path, refused, verb):
    (tmp_path / "file").write_text("")
    further = ["horizon=3"] if verb == "imagine" else []
    line = refused(
        verb, f"checkpoint={point_run}", "episodes=1", f"output={tmp_path / 'file' / 'x'}", *further
    )
    assert str(tmp_path / "file") in line


def test_a_task_that_cannot_be_drawn_is_controlled_without_a_video(tmp_path, refused):
    command = ["control", "task=toy_tasks:Count-v0", "agent=zero", f"output={tmp_path / 'out'}"]
    line = refused(*command)
    assert "video=true: Count-v0 has no rgb_array render mode" in line
    assert "With video=false it goes on without" in line


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=reacher-esay"], "did you mean reacher-easy"),
        (["policy=random"], "task= is missing"),
        ([f"task={toy_tasks.POINT}", "policy=pink"], "no policy 'pink'"),
        (
            ["task=drop", "policy=play"],
            "policy=play: drop does not say how to go at things, as push does; policy=colored",
        ),
        (["task=nope", "policy=play"], "nope"),
        (["task=push", "policy=play", "env.observe=[pixels]"], "env.observe=[state,pixels]"),
        ([f"task={toy_tasks.POINT}", "policy=planner"], "give checkpoint=RUN_DIR"),
        ([f"task={toy_tasks.POINT}", "episodes=0"], "episodes=0"),
        ([f"task={toy_tasks.POINT}", "num_envs=0"], "num_envs=0"),
        ([f"task={toy_tasks.POINT}", "num_workers=0"], "num_workers=0"),
        ([f"task={toy_tasks.POINT}", "policy='random + zero'"], "0.3 random + 0.7 planner"),
        ([f"task={toy_tasks.POINT}", "policy='1 zero + 2 zero'"], "zero is named twice"),
        ([f"task={toy_tasks.POINT}", "policy='0 zero + 0 random'"], "one share at least must be above 0"),
        ([f"task={toy_tasks.POINT}", "policy=scripted"], "needs script=FILE"),
        ([f"task={toy_tasks.POINT}", "policy=scripted", "script=nowhere.csv"], "cannot read script="),
        ([f"task={toy_tasks.POINT}", "policy=nowhere:act"], "No module named 'nowhere'"),
        ([f"task={toy_tasks.POINT}", "policy=toy_tasks:act"], "has no attribute 'act'"),
        ([f"task={toy_tasks.POINT}", "policy=toy_tasks:POINT"], "is a str: it must be a function"),
        ([f"task={toy_tasks.POINT}", "physics_state=true"], "has no MuJoCo physics state"),
    ],
)
def test_what_cannot_be_collected_leaves_no_dataset(tmp_path, refused, overrides, expected):
    assert expected in refused("collect", f"dataset={tmp_path / 'd'}", *overrides)
    assert not (tmp_path / "d").exists()


def test_a_demo_checks_all_before_it_trains(tmp_path, refused):
    run_dir = tmp_path / "demo"
    assert "episodes=0" in refused("demo", f"task={toy_tasks.POINT}", f"run_dir={run_dir}", "episodes=0")
    assert "did you mean" in refused("demo", "task=cartpole-swingpu", f"run_dir={run_dir}")
    assert not run_dir.exists()


def test_a_demo_in_the_folder_of_another_run(point_run, refused):
    line = refused("demo", "task=reacher-easy", f"run_dir={point_run}")
    assert f"holds a demo of {toy_tasks.POINT} with seed 0" in line


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "free some space, or choose another disk"),
        (errno.EROFS, "choose a folder that you may write to, or change its permissions"),
        (errno.EACCES, "choose a folder that you may write to, or change its permissions"),
    ],
)
def test_what_a_machine_refuses_is_told_with_its_remedy(tmp_path, refused, monkeypatch, number, expected):
    def refuse(config):
        raise OSError(number, "What it says", "a/file")

    monkeypatch.setattr("worldmodel.apps.datasets.look.info", refuse)
    line = refused("data", "info", f"dataset={tmp_path}")
    assert line == f"worldmodel: a/file: What it says: {expected}, then try again\n"
