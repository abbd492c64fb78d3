"""Goals: a model that learned without rewards plans to them, is judged by them, and is probed."""

import csv
import json
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

import envs
from worldmodel.apps import progress, training_loop
from worldmodel.apps.bench import goals as bench_goals
from worldmodel.apps.build import build_env, build_planning_agent
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.foresight import OracleForesight
from worldmodel.apps.goals import GoalEvaluation, GoalForesight, always, goals_of, pair_seeds
from worldmodel.apps.memory import Memory
from worldmodel.apps.serve import describe, session_agent
from worldmodel.apps.serving.request import RequestReader
from worldmodel.apps.sessions import Session
from worldmodel.apps.simple_agents import ZeroAgent
from worldmodel.apps.statistics import success_interval
from worldmodel.apps.trained import open_run
from worldmodel.data import Episode, EpisodeDataset
from worldmodel.model import LatentModel, WorldModelSize

TASK = "task=tworoom"
SMALL = ["env.action_repeat=3", "env.image_size=32"]
PLANNERS = sorted(path.name.removesuffix(".yaml") for path in files("configs.planner").iterdir())
PLANNER = ["planner.num_candidates=32", "planner.num_elites=8", "planner.num_iterations=2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("goals") / "data"
    command = ["collect", TASK, *SMALL, "env.observe=[state,pixels]", "policy=colored", "episodes=60"]
    command += ["num_envs=20", "physics_state=true", "env.factors.mass=[0.5,2.0]", f"dataset={path}"]
    assert main(command) == 0
    return path


@pytest.fixture(scope="module")
def run_dir(dataset):
    path = dataset.parent / "run"
    command = ["train", f"dataset={dataset}", "experiment=jepa", f"run_dir={path}", *SMALL, *PLANNER]
    command += ["model.hidden_dim=64", "model.latent_dim=16", "num_updates=250", "eval_every=250"]
    assert main([*command, "eval_episodes=5", "training.batch_size=64", "model.history=2"]) == 0
    return path


def small_model(**sizes):
    torch.manual_seed(0)
    fixed = {"state_dim": 2, "action_dim": 2, "latent_dim": 4, "hidden_dim": 8, "encoder_dim": 8}
    fixed |= {"latent_norm": "none", "predicts_return": False}
    return LatentModel(WorldModelSize(**(fixed | sizes)))


def test_a_run_without_rewards_is_judged_by_goals(run_dir):
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    judged = [record for record in records if "eval/success" in record]
    assert [record["env_steps"] for record in judged] == [250]
    assert 0 <= judged[0]["eval/success"] <= 1
    last = [record for record in records if "train/prediction_loss" in record][-1]
    assert last["train/embedding_rank"] > 1.5
    assert last["train/embedding_std"] > 0.2
    assert last["train/embedding_sigreg"] > 0


def test_signs_of_collapse_are_shown_whatever_the_loss(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    command = ["train", f"dataset={dataset}", "experiment=jepa", f"run_dir={tmp_path}", *SMALL, *PLANNER]
    command += ["model.hidden_dim=16", "model.latent_dim=8", "num_updates=100", "eval_episodes=1"]
    assert main([*command, "training.sigreg_coefficient=0", "training.variance_coefficient=1"]) == 0
    assert re.search(
        r"100 updates, .*prediction [\d.]+  rank [\d.]+  std [\d.]+  sigreg [\d.]+", capsys.readouterr().out
    )


def test_control_plans_to_the_episodes_goals_and_counts_them(run_dir, capsys):
    assert main(["control", f"checkpoint={run_dir}", "episodes=2", "video=false"]) == 0
    assert "(of the goals)" in capsys.readouterr().out
    result = json.loads((run_dir / "control-icem" / "control.json").read_text())
    assert result["success"]["count"] == 2


def test_bench_goals_measures_agents_on_the_same_goals(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_goals, "ORACLE", (*bench_goals.ORACLE, *PLANNER))
    command = ["bench", "goals", f"checkpoint={run_dir}", "episodes=4", "oracle_episodes=1"]
    command += [f"output={tmp_path}", "planner.horizon=4", "inverse_updates=20", "cloning_updates=5"]
    assert main(command) == 0
    with (tmp_path / "goals.csv").open() as file:
        rows = {row["agent"]: row for row in csv.DictReader(file)}
    learned = ["planner", "open_loop", "inverse_dynamics", "behaviour_cloning"]
    assert list(rows) == [*learned, "random", "zero", "oracle"]
    assert [name for name in rows if rows[name]["training_cpu_s"]] == learned
    assert float(rows["zero"]["success"]) == 0
    assert (rows["planner"]["episodes"], rows["oracle"]["episodes"]) == ("4", "1")
    for row in rows.values():
        assert float(row["success_low"]) <= float(row["success"]) <= float(row["success_high"])
    assert float(rows["planner"]["cpu_ms_per_decision"]) > float(rows["open_loop"]["cpu_ms_per_decision"])
    assert (tmp_path / "goals.png").stat().st_size > 5000
    assert "of the goals" not in (tmp_path / "goals.md").read_text().splitlines()[0]


def test_bench_goals_goes_on_where_it_was_cut(run_dir, tmp_path):
    command = ["bench", "goals", f"checkpoint={run_dir}", "episodes=2", f"output={tmp_path}"]
    assert main([*command, "agents=[random,zero]"]) == 0
    table = tmp_path / "goals.csv"
    whole = table.read_text().splitlines(keepends=True)
    table.write_text("".join(whole[:2]) + whole[2][:9])  # killed as it wrote the last row
    assert main([*command, "agents=[zero,random]"]) == 0
    again = table.read_text().splitlines(keepends=True)
    assert again[:2] == whole[:2]
    assert [row.split(",")[:5] for row in again[2:]] == [whole[2].split(",")[:5]]
    page = (tmp_path / "goals.md").read_text()
    assert page.index("| zero |") < page.index("| random |")
    assert main([*command, "agents=[random]", "episodes=3"]) == 0  # another measurement, beside the first
    assert len(table.read_text().splitlines()) == 4
    assert "| random | even noise | 3 |" in (tmp_path / "goals.md").read_text()


def test_probes_read_places_from_latents_better_than_chance(run_dir, dataset, tmp_path):
    command = ["probe", f"checkpoint={run_dir}", f"dataset={dataset}", f"output={tmp_path}", "every=3"]
    assert main([*command, "kinds=[linear]"]) == 0
    with (tmp_path / "probe.csv").open() as file:
        rows = {(row["quantity"], row["features"]): float(row["r2"]) for row in csv.DictReader(file)}
    quantities = {quantity for quantity, _ in rows}
    assert quantities == {"x", "x_velocity", "y", "y_velocity", "mass"}
    assert rows["x", "latent"] > 0.8
    assert rows["y", "observation"] > 0.99
    assert rows["y", "places"] > 0.999
    assert rows["x_velocity", "places"] > 0.8
    assert (tmp_path / "probe.png").stat().st_size > 5000


@pytest.mark.parametrize("is_told", [True, False])
def test_a_mass_is_read_where_states_tell_it(run_dir, tmp_path, is_told):
    """Of discs that lie still: where a disc lies tells its mass, or has nothing to do with it."""
    rng = np.random.default_rng(0)
    env = build_env("tworoom", {}, num_envs=1, seed=0, how="sync")
    env.reset()
    simulation, (width,) = env.simulations[0], env.single_observation_space["state"].shape
    simulation.data.qvel[:] = 0.0
    data = EpisodeDataset(tmp_path / "data", mode="a", info={"task": "tworoom"})
    for _ in range(60):
        place = rng.uniform(-0.8, 0.8, 2)
        mass = 1.25 + 0.75 * (place[0] if is_told else rng.uniform(-0.8, 0.8))
        state = np.concatenate([place, np.zeros(width - 2)]).astype(np.float32)
        simulation.data.qpos[:] = place
        data.append(
            Episode(
                observation={"state": np.tile(state, (7, 1))},
                action=np.zeros((6, 2), np.float32),
                reward=np.zeros(6, np.float32),
                terminated=False,
                truncated=True,
                extra={"physics_state": np.tile(simulation.state(), (6, 1))},
                info={"factors.mass": float(mass), "factors.hue": 0.5},
            )
        )
    env.close()
    command = ["probe", f"checkpoint={run_dir}", f"dataset={tmp_path / 'data'}", f"output={tmp_path}"]
    assert main([*command, "kinds=[linear]", "held_out=0.4"]) == 0
    with (tmp_path / "probe.csv").open() as file:
        rows = {(row["quantity"], row["features"]): float(row["r2"]) for row in csv.DictReader(file)}
    assert {quantity for quantity, _ in rows} == {"x", "y", "mass"}, "what varies"
    for features in ("latent", "observation"):
        assert (rows["mass", features] > 0.9) == is_told
        assert rows["x", features] > 0.9


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["probe", "checkpoint={run}", "dataset={data}", "held_out=1.5"], "held_out=1.5: a share"),
        (["probe", "checkpoint={run}", "dataset={data}", "kinds=[deep]"], "there is no kind 'deep'"),
        (["probe", "checkpoint={run}", "dataset=nowhere"], "no dataset at nowhere"),
        (
            ["bench", "goals", "checkpoint={run}", "agents=[planer]"],
            "no agent 'planer' (did you mean",
        ),
        (
            ["bench", "goals", "checkpoint={run}", "dataset=nowhere"],
            "leave them out: agents=[planner,open_loop,random,zero,oracle]",
        ),
        (
            ["bench", "goals", "checkpoint={run}", "cloning_updates=0"],
            "cloning_updates=0: must be at least 1",
        ),
        (["control", "checkpoint={run}", "agent=policy"], "was trained without rewards"),
        (["train", TASK, "experiment=jepa", "run_dir=x"], "learns from a dataset"),
        (["train", "dataset={data}", "experiment=jepa", "run_dir=y", "model.observes=[depth]"], "depth"),
        (["control", "checkpoint={run}", "state_weight=2"], "observes state alone"),
        (["control", "checkpoint={run}", "last_weight=1.5"], "last_weight=1.5: must be at least 0"),
        (["serve", "checkpoint={run}", "state_weight=2"], "observes state alone"),
    ],
)
def test_a_mistake_is_one_line(run_dir, dataset, tmp_path, monkeypatch, capsys, command, expected):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(run=run_dir, data=dataset) for word in command]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


def test_the_evaluation_plays_the_same_goals_and_doing_nothing_reaches_none():
    evaluation = GoalEvaluation("tworoom", {"action_repeat": 3}, num_episodes=3, seed=0)
    assert evaluation.values(ZeroAgent(2)) == [0.0, 0.0, 0.0]
    first = [env.unwrapped.goal for env in evaluation.env.task_envs]
    evaluation.play(ZeroAgent(2))
    np.testing.assert_array_equal([env.unwrapped.goal for env in evaluation.env.task_envs], first)
    evaluation.close()


def test_no_training_judges_itself_by_pairs_that_are_held_out():
    """Whatever the seeds: by what remains of them when they are halved."""
    for is_held_out in (False, True):
        for seed in range(200):
            seeds = pair_seeds(50, seed, is_held_out=is_held_out)
            assert {word % 2 for word in seeds} == {int(is_held_out)}
            assert len(set(seeds)) == 50
            assert all(0 <= word < 2**32 for word in seeds)


def test_training_and_the_benchmark_ask_for_different_pairs(run_dir, dataset, tmp_path, monkeypatch):
    made = []

    class Spied(GoalEvaluation):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self.seeds)

    monkeypatch.setattr(bench_goals, "GoalEvaluation", Spied)
    command = ["bench", "goals", f"checkpoint={run_dir}", "episodes=2", f"output={tmp_path}", "agents=[zero]"]
    assert main(command) == 0
    assert [word % 2 for word in made[0]] == [1, 1]
    monkeypatch.setattr(training_loop, "GoalEvaluation", Spied)
    command = ["train", f"dataset={dataset}", "experiment=jepa", f"run_dir={tmp_path / 'run'}", *SMALL]
    command += ["model.hidden_dim=16", "model.latent_dim=8", "num_updates=2", "eval_episodes=2", *PLANNER]
    assert main(command) == 0
    assert [word % 2 for word in made[-1]] == [0, 0]
    assert len(made) == 2


class Follows(LatentModel):
    """What is observed are two numbers, which an action moves; embeddings are these numbers."""

    def embed(self, observation):
        return observation["state"]

    def step(self, latent, action):
        return latent + action


@pytest.mark.parametrize("planner", PLANNERS)
def test_every_planner_reaches_a_goal(planner):
    settings = to_dict(compose_config("control", [f"planner={planner}"]))["planner"]
    goal, place = np.array([4.0, -2.0], np.float32), np.zeros((1, 2), np.float32)
    model = Follows(small_model(latent_dim=2).size)
    agent = build_planning_agent(GoalForesight(model, always({"state": goal})), settings, seed=0)
    for _ in range(6):
        place = place + agent.act({"state": place}).action
    assert np.linalg.norm(goal - place) < 0.5, "of 4.5"


def test_the_distance_to_a_goal_tells_gradients_the_way():
    """Of the toy by hand: what the first of two actions moves, both steps feel; the last one only its own."""
    goal = np.array([4.0, -2.0], np.float32)
    model = Follows(small_model(latent_dim=2).size)
    foresight = GoalForesight(model, always({"state": goal}), last_weight=0.5)
    score = foresight.outlook({"state": np.zeros((1, 2), np.float32)}).score
    candidates = torch.zeros(1, 1, 2, 2, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(score(candidates).sum(), candidates)
    last, first = 0.5 + 0.5 / 2, 1.0  # shares: the last step counts 0.75, all together 1
    expected = 2 * torch.from_numpy(goal) * torch.tensor([[first], [last]])
    torch.testing.assert_close(gradient[0, 0], expected)


def test_poses_have_a_clock_of_their_own_and_the_simulators_planner_reaches_them():
    evaluation = GoalEvaluation("reacher-easy", {"action_repeat": 5}, num_episodes=3, seed=1)
    assert [attempt.num_steps for attempt in evaluation.play(ZeroAgent(2))] == [20, 20, 20]
    overrides = ["planner=icem", "planner.horizon=10", "planner.num_candidates=64", "planner.num_elites=8"]
    planner = to_dict(compose_config("control", overrides))["planner"]
    agent = build_planning_agent(OracleForesight(evaluation.env, seeks_goals=True), planner, seed=0)
    assert sum(evaluation.values(agent)) == 3
    evaluation.close()


def test_goals_of_environments_are_those_of_their_episodes():
    env = build_env("tworoom", {}, num_envs=2, seed=0, how="sync")
    env.reset(seed=[1, 2])
    observed = goals_of(env)()
    for index, each in enumerate(env.task_envs):
        np.testing.assert_array_equal(observed["state"][index], envs.goal_observation(each)["state"])
    env.close()


def test_the_foresight_prefers_futures_that_come_near_the_goal_and_asks_again_for_a_new_episode():
    model, asked = small_model(), []

    def goals():
        asked.append(len(asked))
        return {"state": np.full((1, 2), float(len(asked)), np.float32)}

    foresight = GoalForesight(model, goals)
    observation = {"state": np.zeros((1, 2), np.float32)}
    candidates = torch.rand(1, 6, 3, 2)
    first = foresight.outlook(observation).score(candidates)
    assert first.shape == (1, 6)
    foresight.note(np.zeros((1, 2), np.float32))
    torch.testing.assert_close(foresight.outlook(observation).score(candidates), first)
    assert asked == [0]
    foresight.reset(np.array([True]))
    assert (foresight.outlook(observation).score(candidates) - first).abs().max() > 1e-6
    assert asked == [0, 1]


def test_one_goal_for_ever():
    assert always({"state": np.array([1.0, 2.0])})()["state"].tolist() == [[1.0, 2.0]]


def test_memory_is_the_latent_of_what_was_seen_and_done():
    model = small_model(history=3)
    memory = Memory(model)
    states, actions = torch.rand(4, 2, 2), torch.rand(3, 2, 2)
    seen = []
    for index, state in enumerate(states):
        seen.append(memory.see({"state": state}))
        if index < 3:
            memory.note(actions[index].numpy())
    with torch.no_grad():
        embeddings = model.embed({"state": states}).transpose(0, 1)
    torch.testing.assert_close(seen[0], model.layout.start(embeddings[:, 0]))
    expected = model.layout.over(embeddings, actions.transpose(0, 1))
    torch.testing.assert_close(seen[2], expected[:, 0])
    torch.testing.assert_close(seen[3], expected[:, 1])
    memory.note(actions[0].numpy())
    memory.reset(np.array([False, True]))
    mixed = memory.see({"state": states[0]})
    torch.testing.assert_close(mixed[1], seen[0][1])
    assert not torch.allclose(mixed[0], seen[0][0])


def test_a_share_has_wilsons_interval():
    """Known values: 8 of 10, and none of 10."""
    some, none = success_interval(8, 10), success_interval(0, 10)
    assert (some.mean, none.mean) == (0.8, 0.0)
    assert (some.low, some.high) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-3)


def test_a_model_of_goals_is_served_to_robots_that_have_their_own(run_dir):
    run, config = open_run(run_dir), to_dict(compose_config("serve", [f"checkpoint={run_dir}"]))
    reader = RequestReader.of(run.model)
    told = describe(run, config, reader)
    assert (told["takes_goal"], told["task"], told["action_dim"]) == (True, "tworoom", 2)
    assert list(told["observation"]) == list(run.model.size.observes)
    json.dumps(told)
    agent = session_agent(run, config)
    seen = {key: np.zeros(entry["shape"], entry["dtype"]) for key, entry in told["observation"].items()}
    goals = [reader.read(seen | {f"goal/{key}": seen[key] + shift for key in seen}).goal for shift in (0, 1)]
    sessions = [Session(goal=goal) for goal in goals]
    for _ in range(2):
        plans = agent.act(sessions, {key: np.stack([value, value]) for key, value in seen.items()})
    assert plans.shape == (2, told["horizon"], 2)
    assert np.abs(plans[0] - plans[1]).max() > 0
