"""collect: each episode is what its number says, whoever plays it, whatever is cut off in between."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from itertools import islice

import numpy as np
import pytest
import toy_tasks
from processes import start

import envs
from worldmodel.apps.cli import main
from worldmodel.apps.collection import Collection, parse_shares, turns
from worldmodel.apps.simple_agents import MixedAgent, RandomAgent, ScriptedAgent, ZeroAgent
from worldmodel.apps.statistics import mean_interval
from worldmodel.data import EpisodeDataset

POINT = [f"task={toy_tasks.POINT}", "env.action_repeat=1"]


def collect(path, *overrides, expected=0):
    assert main(["collect", f"dataset={path}", *POINT, *overrides]) == expected
    return by_number(path)


def by_number(path):
    return {episode.info["number"]: episode for episode in EpisodeDataset.open(path)}


def same(left, right):
    """Equal to the bit, whatever the order of recording."""
    assert left.keys() == right.keys()
    for number, episode in left.items():
        for name in ("action", "reward"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(right[number], name))
        np.testing.assert_array_equal(episode.observation["state"], right[number].observation["state"])
        assert episode.info == right[number].info


def test_the_same_command_records_nothing_twice_and_more_go_on(tmp_path, capsys):
    first = collect(tmp_path / "a", "episodes=3", "num_envs=2")
    assert sorted(first) == [0, 1, 2]
    assert len({episode.observation["state"].tobytes() for episode in first.values()}) == 3
    same(collect(tmp_path / "a", "episodes=3", "num_envs=2"), first)
    assert "has all 3 episodes of this collection" in capsys.readouterr().out
    more = collect(tmp_path / "a", "episodes=5", "num_envs=2")
    assert f"2 more, 5 episodes now, in {tmp_path / 'a'}; mean return" in capsys.readouterr().out
    same({number: more[number] for number in first}, first)
    same(collect(tmp_path / "b", "episodes=5", "num_envs=2"), more)


def test_another_seed_is_another_collection_in_the_same_dataset(tmp_path):
    collect(tmp_path / "a", "episodes=2")
    assert main(["collect", f"dataset={tmp_path / 'a'}", *POINT, "episodes=2", "seed=1"]) == 0
    episodes = list(EpisodeDataset.open(tmp_path / "a"))
    assert len({episode.observation["state"].tobytes() for episode in episodes}) == 4
    assert len({episode.info["collection"] for episode in episodes}) == 2


def test_workers_change_nothing(tmp_path):
    alone = collect(tmp_path / "one", "episodes=7", "num_envs=2", "policy=colored")
    same(collect(tmp_path / "two", "episodes=7", "num_envs=2", "policy=colored", "num_workers=2"), alone)


def test_a_full_disk_keeps_what_is_recorded_and_it_goes_on_once_there_is_room(tmp_path, monkeypatch, capsys):
    path, num_calls, fsync = tmp_path / "full", 0, os.fsync

    def full(descriptor):
        nonlocal num_calls
        num_calls += 1
        if num_calls > 30:  # some shards are written by then
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(["collect", f"dataset={path}", *POINT, "episodes=20", "num_envs=2"]) == 2
    assert "is full" in " ".join(capsys.readouterr().err.split())
    monkeypatch.undo()
    kept = by_number(path)
    assert 0 < len(kept) < 20
    assert main(["data", "validate", f"dataset={path}"]) == 0
    more = collect(path, "episodes=20", "num_envs=2")
    assert sorted(more) == list(range(20))
    same({number: more[number] for number in kept}, kept)


@pytest.mark.slow  # a few kills of `collect` are in tests/reliability
@pytest.mark.parametrize("num_workers", [1, 2])
def test_killed_at_any_moment_it_goes_on_to_just_what_was_asked_for(tmp_path, num_workers):
    chance = np.random.default_rng(0)
    path = tmp_path / "killed"
    command = ["num_envs=4", "policy=colored", f"num_workers={num_workers}"]
    num_before = 0
    for _ in range(3):
        process = start("collect", f"dataset={path}", *POINT, *command, "episodes=10000000")
        deadline = time.monotonic() + 60
        while len(list(path.glob("shards/[!.]*"))) <= num_before // 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()  # also of its workers, which hold the pipe
        num_now = len(by_number(path))
        assert num_now > num_before
        num_before = num_now
    wanted = max(by_number(path)) + 7
    killed = collect(path, *command, f"episodes={wanted}")
    assert len(EpisodeDataset.open(path)) == len(killed) == wanted  # none twice
    assert main(["data", "validate", f"dataset={path}"]) == 0
    same(killed, collect(tmp_path / "whole", *command, f"episodes={wanted}"))


def test_two_do_not_record_the_same_at_once(tmp_path, refused):
    path = tmp_path / "data"
    arguments = [f"dataset={path}", *POINT, "episodes=100000", "policy=toy_tasks:slow_push"]
    process = start("collect", *arguments)
    deadline = time.monotonic() + 180
    while not list(path.glob("shards/[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "another process records this collection" in refused("collect", *arguments)
    process.kill()
    process.communicate()


def kind_of(number: int) -> str:
    """What becomes of an episode of the fragile point."""
    env = toy_tasks.Fragile()
    env.reset(seed=int(np.random.SeedSequence([0, number]).generate_state(1)[0]))
    return env.kind


@pytest.mark.parametrize(
    "shares",
    [
        ["num_envs=1"],
        ["num_envs=4"],
        pytest.param(["num_envs=5", "num_workers=2"], marks=pytest.mark.slow),
    ],
)
def test_only_episodes_whose_simulation_diverges_are_left_out(tmp_path, capsys, monkeypatch, shares):
    """Also where others of the batch are not over, or go on after their end, and diverge then."""
    path = tmp_path / "a"
    command = ["collect", f"dataset={path}", f"task={toy_tasks.FRAGILE}", "env.action_repeat=1", *shares]
    assert main([*command, "episodes=20"]) == 0
    lost = [number for number in range(20) if kind_of(number) == "diverges"]
    assert len(lost) > 3
    found = by_number(path)
    assert sorted(found) == [number for number in range(20) if number not in lost]
    for number, episode in found.items():
        assert episode.num_steps == (5 if kind_of(number) == "ends early" else 20)
    assert f"{len(lost)} of 20 are left out: their simulation diverged" in capsys.readouterr().out

    def played(self, group, wanted):
        raise AssertionError("played again")

    monkeypatch.setattr(Collection, "play", played)
    assert main([*command, "episodes=20"]) == 0  # says the same, and plays none of them
    out = " ".join(capsys.readouterr().out.split())
    assert f"has all {20 - len(lost)} episodes of this collection" in out
    assert f"{len(lost)} of 20 are left out: their simulation diverged" in out
    assert main([*command, f"episodes={lost[1]}"]) == 0
    assert f"1 of {lost[1]} are left out" in capsys.readouterr().out


def test_an_episode_that_goes_on_beside_one_that_diverges_is_what_it_is_alone(tmp_path):
    command = ["policy=toy_tasks:against", f"task={toy_tasks.FRAGILE}", "episodes=20"]
    together = collect(tmp_path / "a", *command, "num_envs=10")
    alone = collect(tmp_path / "b", *command, "num_envs=1")
    assert together.keys() == alone.keys()
    for number, episode in together.items():
        np.testing.assert_array_equal(
            episode.observation["state"], alone[number].observation["state"], err_msg=str(number)
        )


def test_it_is_an_error_where_all_diverge(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(toy_tasks.Fragile, "KINDS", ("diverges",))
    arguments = ["collect", f"dataset={tmp_path / 'a'}", f"task={toy_tasks.FRAGILE}", "env.action_repeat=1"]
    for _ in range(2):
        assert "all 3 episodes that were played diverged" in refused(*arguments, "episodes=3")


def test_a_note_of_what_diverged_that_is_damaged_is_told(tmp_path, refused, monkeypatch):
    path = tmp_path / "a"
    command = ["collect", f"dataset={path}", f"task={toy_tasks.FRAGILE}", "env.action_repeat=1"]
    assert main([*command, "episodes=6"]) == 0
    (note,) = path.glob(".collect-*.json")
    note.write_text("[]")
    assert f"cannot read {note}" in refused(*command, "episodes=6")


def test_a_worker_that_is_killed_is_told_and_only_workers_are_ended(tmp_path, refused):
    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    bystander.start()
    command = [f"dataset={tmp_path / 'a'}", *POINT, "num_workers=2", "policy=toy_tasks:kill_itself"]
    assert "give a smaller num_workers= or num_envs=" in refused("collect", *command, "episodes=4")
    assert bystander.is_alive()
    bystander.kill()
    bystander.join()


def test_episodes_can_be_cut_short_and_are_the_same_until_then(tmp_path, refused):
    whole = collect(tmp_path / "a", "episodes=3", "num_envs=2")
    short = collect(tmp_path / "b", "episodes=3", "num_envs=2", "max_steps=4")
    assert short.keys() == whole.keys()
    for number, episode in short.items():
        assert episode.num_steps == 4
        assert episode.truncated
        assert not episode.terminated
        np.testing.assert_array_equal(episode.action, whole[number].action[:4])
        np.testing.assert_array_equal(episode.observation["state"], whole[number].observation["state"][:5])
    same(collect(tmp_path / "b", "episodes=3", "num_envs=2", "max_steps=4"), short)
    both = collect(tmp_path / "b", "episodes=3", "num_envs=2")
    assert len(EpisodeDataset.open(tmp_path / "b")) == 6, "whole episodes are another collection"
    assert both.keys() == whole.keys()
    assert "max_steps=-1: must be at least 0" in refused(
        "collect", f"dataset={tmp_path / 'c'}", *POINT, "max_steps=-1"
    )


def test_a_task_without_an_end_is_refused(tmp_path, refused):
    line = refused("collect", f"dataset={tmp_path / 'a'}", "task=toy_tasks:Pendulum-v77")
    assert "never ends an episode" in line
    assert not (tmp_path / "a").exists()


def test_other_weights_are_another_collection(point_run, tmp_path):
    path, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(point_run, run)
    command = ["collect", f"checkpoint={run}", "policy=policy", f"dataset={path}", "episodes=2"]
    command += ["env.action_repeat=1", f"task={toy_tasks.POINT}"]
    assert main(command) == 0
    assert main(["train", f"run_dir={run}", "resume=true", "env_steps=300"]) == 0
    assert main(command) == 0
    assert len(EpisodeDataset.open(path)) == 4


def test_ctrl_c_ends_all_workers_and_says_nothing_wrong(tmp_path):
    path = tmp_path / "data"
    arguments = [f"dataset={path}", *POINT, "episodes=100000", "num_workers=2", "num_envs=2"]
    process = start("collect", *arguments)
    deadline = time.monotonic() + 180
    while not list(path.glob("shards/[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    num_episodes = len(EpisodeDataset.open(path))
    assert f"stopped: {num_episodes} of 100,000 episodes are safe in {path}; the same command goes on" in err
    time.sleep(0.5)
    assert len(EpisodeDataset.open(path)) == num_episodes > 0  # nobody goes on in the background


def test_a_mixture_gives_each_its_share(tmp_path):
    found = collect(tmp_path / "a", "episodes=8", "num_envs=3", "policy='0.25 zero + 0.75 random'")
    policies = [found[number].info["policy"] for number in sorted(found)]
    assert policies.count("zero") == 2
    for episode in found.values():
        assert (episode.info["policy"] == "zero") == (not episode.action.any())


def test_shares_are_kept_from_the_beginning():
    shares = parse_shares("1 a + 2 b + 1 c")
    assert shares == {"a": 0.25, "b": 0.5, "c": 0.25}
    order = list(islice(turns(shares), 40))
    for count in range(1, 41):
        for policy, share in shares.items():
            assert abs(order[:count].count(policy) - share * count) < 1
    assert parse_shares("planner") == {"planner": 1.0}


def test_a_mixed_agent_asks_each_for_its_own_rows():
    scripted = ScriptedAgent(np.array([[0.1], [0.2], [0.3]], np.float32), 1)
    agent = MixedAgent([(scripted, np.array([0, 2])), (ZeroAgent(1), np.array([1]))])
    observation = {"state": np.zeros((3, 2), np.float32)}
    agent.reset(None)
    assert agent.act(observation).action[:, 0] == pytest.approx([0.1, 0, 0.1])
    agent.reset(np.array([True, False, False]))
    assert agent.act(observation).action[:, 0] == pytest.approx([0.1, 0, 0.2])
    agent.reset(np.zeros(3, bool))
    decision = agent.act(observation)
    assert decision.action[:, 0] == pytest.approx([0.2, 0, 0.3])
    noisy = MixedAgent([(RandomAgent(1, np.random.default_rng(0)), np.arange(3))]).act(observation)
    assert noisy.std == pytest.approx(np.full((3, 1), 3**-0.5))


def test_who_plays_pushes_what_noise_leaves_alone(tmp_path):
    def pushed(policy):
        """The share of an episode's steps after which the block moves, of each episode."""
        command = ["collect", f"dataset={tmp_path / policy}", "task=push", f"policy={policy}", "episodes=10"]
        assert main([*command, "env.action_repeat=3", "num_envs=5"]) == 0
        states = [episode.observation["state"] for episode in EpisodeDataset.open(tmp_path / policy)]
        return np.array([(np.linalg.norm(state[:, 8:10], axis=-1) > 0.01).mean() for state in states])

    assert pushed("play").min() > 0.05
    assert pushed("play").mean() > 4 * pushed("colored").mean()


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_a_script_is_played_over_and_over(tmp_path, kind):
    actions = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    path = tmp_path / f"script.{kind}"
    if kind == "csv":
        np.savetxt(path, actions, delimiter=",")
    else:
        np.save(path, actions)
    found = collect(tmp_path / "a", "episodes=2", "policy=scripted", f"script={path}")
    for episode in found.values():
        expected = np.tile(actions, (3, 1))[: episode.num_steps]
        np.testing.assert_allclose(episode.action, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["empty", "archive", "objects"])
def test_a_script_that_is_no_array_is_refused(tmp_path, refused, kind):
    script = tmp_path / "script.npy"
    with open(script, "wb") as file:
        if kind == "archive":
            np.savez(file, actions=np.zeros((3, 1)))
        elif kind == "objects":
            np.save(file, np.array([[0.5, "what"]], object))
    line = refused("collect", *POINT, f"dataset={tmp_path / 'a'}", "policy=scripted", f"script={script}")
    assert f"cannot read script={script}" in line


@pytest.mark.parametrize("content", ["", "1,2\n3,4\n", "nan\n", "what\n"])
def test_a_script_that_does_not_fit_is_refused(tmp_path, refused, content):
    script = tmp_path / "script.csv"
    script.write_text(content)
    line = refused("collect", *POINT, f"dataset={tmp_path / 'a'}", "policy=scripted", f"script={script}")
    assert f"script={script}" in line
    assert not (tmp_path / "a").exists()


def test_a_function_of_the_users_acts(tmp_path, refused):
    found = collect(tmp_path / "a", "episodes=4", "num_envs=2", "policy=toy_tasks:push_back")
    for episode in found.values():
        position = episode.observation["state"][:-1, :1]
        assert np.abs(episode.action + position.clip(-1, 1)).max() < 0.6
    line = refused("collect", *POINT, f"dataset={tmp_path / 'b'}", "policy=toy_tasks:three_actions")
    assert "three_actions returned shape (1, 3): it must return finite actions (1, 1)" in line


def test_an_episode_can_be_set_up_again_to_the_bit(tmp_path):
    path = tmp_path / "a"
    overrides = ["task=reacher-easy", "episodes=3", "num_envs=2", "physics_state=true", "policy=colored"]
    assert main(["collect", f"dataset={path}", *overrides]) == 0
    env = envs.make("reacher-easy", action_repeat=2)
    for episode in EpisodeDataset.open(path):
        observation, _ = env.reset(seed=episode.info["seed"])
        np.testing.assert_array_equal(observation["state"], episode.observation["state"][0])
        for step in (0, 137, 498):
            env.set_physics_state(episode.extra["physics_state"][step])
            observation, reward, *_ = env.step(episode.action[step])
            np.testing.assert_array_equal(observation["state"], episode.observation["state"][step + 1])
            assert reward == episode.reward[step]


def test_the_dataset_says_how_it_came_about(tmp_path):
    path = tmp_path / "a"
    assert main(["collect", f"dataset={path}", "task=cup-catch", "episodes=1"]) == 0
    info = EpisodeDataset.open(path).info
    assert info["task"] == "ball-in-cup-catch"
    assert info["control_period_s"] == pytest.approx(0.04)
    assert "float32" in info["spaces"]["observation"]
    assert set(info["made_with"]["packages"]) >= {"mujoco", "torch"}
    assert "image_quality" not in info


def test_images_say_how_they_were_drawn(tmp_path):
    path = tmp_path / "a"
    observe = ["env.observe=[state,pixels]", "env.image_size=16", "env.action_repeat=50", "camera=-1"]
    assert main(["collect", f"dataset={path}", "task=pendulum-swingup", "episodes=1", *observe]) == 0
    dataset = EpisodeDataset.open(path)
    assert dataset.info["camera"] == "-1"
    assert dataset.columns["observation.pixels"].shape == (3, 16, 16)
    assert dataset.info["image_quality"] == {
        "num_samples": 0,
        "shadow_map_size": 0,
        "has_reflections": False,
    }


def test_other_columns_than_the_dataset_has_are_told_before_anything_is_played(
    tmp_path, refused, monkeypatch
):
    path = tmp_path / "a"
    command = ["collect", f"dataset={path}", "task=pendulum-swingup", "env.action_repeat=100"]
    assert main([*command, "episodes=1"]) == 0

    def played(self, group, wanted):
        raise AssertionError("played")

    monkeypatch.setattr(Collection, "play", played)
    for overrides, expected in (
        (["physics_state=true"], "extra.physics_state is absent there and would be float64["),
        (["env.observe=[state,pixels]"], "observation.pixels is absent there and would be uint8[3, 64, 64]"),
        (["env.observe=[pixels]"], "observation.state is float32[3] there and would be absent"),
    ):
        line = refused(*command, "episodes=2", *overrides)
        assert expected in line
        assert "Give env.observe=[state] physics_state=false, as it was recorded" in line


def test_a_folder_with_other_things_is_no_place_for_a_dataset(tmp_path, refused):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").touch()
    line = refused("collect", f"dataset={tmp_path / 'docs'}", *POINT, "episodes=1")
    assert "is no dataset, and not empty (guide.md)" in line
    assert [entry.name for entry in (tmp_path / "docs").iterdir()] == ["guide.md"]
    (tmp_path / "begun" / "shards").mkdir(parents=True)  # killed at once
    (tmp_path / "begun" / ".collect-0.lock").touch()
    assert sorted(collect(tmp_path / "begun", "episodes=1")) == [0]


def test_pixels_that_are_not_recorded_cannot_be_compressed(tmp_path, refused):
    line = refused("collect", f"dataset={tmp_path / 'a'}", *POINT, "compress_pixels=true")
    assert "compress_pixels=true: no pixels are recorded" in line


def test_episodes_that_end_together_are_one_shard(tmp_path):
    found = collect(tmp_path / "a", "episodes=5", "num_envs=3")
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "a").glob("shards/*"))) == 2


def test_images_can_be_compressed(tmp_path):
    observe = ["env.observe=[pixels]", "env.image_size=32", "env.action_repeat=50"]
    found = {}
    for compress in ("true", "false"):
        path = tmp_path / compress
        command = ["collect", f"dataset={path}", "task=pendulum-swingup", "episodes=1", *observe]
        assert main([*command, f"compress_pixels={compress}"]) == 0
        (found[compress],) = EpisodeDataset.open(path)
        assert bool(list(path.glob("shards/*/observation.pixels.zlib"))) == (compress == "true")
    images = [found[compress].observation["pixels"] for compress in ("true", "false")]
    np.testing.assert_array_equal(*images)


def test_collecting_with_the_planner(point_run, tmp_path, capsys):
    path = tmp_path / "data"
    command = ["collect", f"checkpoint={point_run}", "policy=planner", f"dataset={path}", "episodes=2"]
    assert main([*command, "env.action_repeat=1"]) == 0
    episodes = list(EpisodeDataset.open(path))
    assert [episode.info["policy"] for episode in episodes] == ["planner"] * 2
    for episode in episodes:
        assert episode.extra["plan_mean"].shape == episode.extra["plan_std"].shape == episode.action.shape
        assert (episode.extra["plan_std"] > 0).all()
    mean = mean_interval([e.total_reward for e in episodes]).precise()
    assert f"2 episodes in {path}; mean return {mean}\n" in capsys.readouterr().out


def test_collecting_acts_as_the_model_was_trained(point_run, tmp_path, refused):
    line = refused("collect", f"checkpoint={point_run}", "env.action_repeat=4", f"dataset={tmp_path / 'd'}")
    assert "give env.action_repeat=1" in line


def test_a_dataset_keeps_to_one_task(tmp_path, refused):
    command = ["collect", f"dataset={tmp_path / 'd'}", "episodes=1", "env.action_repeat=1"]
    assert main([*command, f"task={toy_tasks.POINT}"]) == 0
    assert "Point-v0" in refused(*command, "task=toy_tasks:Broken-v0")
    assert len(EpisodeDataset.open(tmp_path / "d")) == 1
