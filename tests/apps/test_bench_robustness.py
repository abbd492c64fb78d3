"""`worldmodel bench robustness`: what it plays, that all play the same, that it goes on, what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_tasks

import envs
from worldmodel.apps.bench import robustness
from worldmodel.apps.bench.disturbed import (
    COLUMNS,
    DISTURBANCES,
    ORACLES,
    UNDISTURBED,
    Cell,
    _usual_std,
    disturbed_env,
    level_text,
    play,
    run_cell,
)
from worldmodel.apps.bench.robustness import make_cells
from worldmodel.apps.bench.robustness_report import Results, write_report
from worldmodel.apps.build import build_env
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.simple_agents import ZeroAgent
from worldmodel.apps.trained import make_agent, open_run
from worldmodel.errors import ConfigError

CARTPOLE = "pretrained/cartpole-swingup"
SMALL = (
    "agents=[planner,policy]",
    "disturbances=[observation_noise,action_delay]",
    "levels.observation_noise=[0.5]",
    "levels.action_delay=[3]",
    "episodes=2",
    "num_workers=1",
)


def cells_of(*overrides: str) -> list[Cell]:
    given = [f"checkpoints=[{CARTPOLE}]", *overrides]
    return make_cells(to_dict(compose_config("bench_robustness", given)))


def cell_of(*overrides: str, **changes) -> Cell:
    """The undisturbed cell of one agent, changed."""
    return replace(cells_of(*overrides, "episodes=2")[0], **changes)


def disturbances(cells: list[Cell], agent: str) -> set[str]:
    return {cell.disturbance for cell in cells if cell.agent == agent}


@pytest.fixture(scope="module")
def arguments(point_run) -> list[str]:
    return ["bench", "robustness", f"checkpoints=[{point_run}]", f"task={toy_tasks.POINT}", *SMALL]


@pytest.fixture(scope="module")
def measured(arguments, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("robustness")
    assert main([*arguments, f"output={output}"]) == 0
    return output


def test_every_agent_has_a_row_for_each_level_and_one_undisturbed(measured):
    with (measured / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert sorted((row["agent"], row["disturbance"], row["level"]) for row in rows) == [
        (agent, disturbance, level)
        for agent in ("planner", "policy")
        for disturbance, level in (("action_delay", "3"), (UNDISTURBED, "0"), ("observation_noise", "0.5"))
    ]
    for row in rows:
        returns = [float(each) for each in row["returns"].split()]
        assert float(row["return"]) == pytest.approx(np.mean(returns), rel=1e-4)
        assert (row["episodes"], row["diverged"]) == ("2", "0")


def test_the_page_shows_every_level_and_where_numbers_come_from(measured):
    found = json.loads((measured / "robustness.json").read_text())
    assert found["command"].startswith("worldmodel bench robustness checkpoints=[")
    assert len(found["results"]) == 6
    page = (measured / "robustness.md").read_text()
    for line in ("| action delay | 0 (none) |", "| action delay | 3 |", "| observation noise | 0.5 |"):
        assert page.count(line) == 1
    assert "Commit:" in page
    picture = next(measured.glob("*.png"))
    assert picture.name in page
    assert picture.stat().st_size > 10_000


def row(
    disturbance: str, level: str, mean: float, *, agent: str = "policy", diverged: int = 0, checkpoint="here"
) -> dict[str, str]:
    return {
        "checkpoint": checkpoint, "task": "cheetah-run", "episodes": "3", "diverged": str(diverged),
        "agent": agent, "disturbance": disturbance, "level": level,
        "return": str(mean), "return_low": str(mean - 10), "return_high": str(mean + 10),
        "commit": "abc", "machine": "a quick one",
    }  # fmt: skip


def lost(disturbance: str, level: str) -> dict[str, str]:
    """The row of a cell of which every episode diverged."""
    no_return = {"return": "", "return_low": "", "return_high": "", "episodes": "0"}
    return row(disturbance, level, 0, diverged=3) | no_return


def report(folder: Path, rows: list[dict[str, str]], *given: str) -> tuple[list[str], list[dict]]:
    """The lines of the page, and what the JSON says of each cell."""
    config = to_dict(compose_config("bench_robustness", ["checkpoints=[here]", *given]))
    record = {"packages": {}, "accelerator": None, "num_threads": 1, "command": "", "commit": "abc"}
    record |= {"processor": "", "cores": 1, "load_average_1_min": 0, "python": ""}
    lines = write_report(folder, rows, config, record).read_text().splitlines()
    return lines, json.loads((folder / "robustness.json").read_text())["results"]


def test_shares_are_of_the_same_agents_undisturbed_return(tmp_path):
    rows = [
        row(UNDISTURBED, "0", 800), row("push", "1", 600), row("push", "2", 200), row("mass", "2", 400),
        row(UNDISTURBED, "0", 500, agent="oracle"), row("push", "2", 250, agent="oracle"),
    ]  # fmt: skip
    given = ["disturbances=[push,observation_noise,mass]", "levels.push=[1,2]", "levels.mass=[2]"]
    lines, told = report(tmp_path, rows, "agents=[oracle,policy]", *given)
    assert "| oracle | 500 [490, 510] | 50% | 100% | - |" in lines  # it does not see noise
    assert "| policy | 800 [790, 810] | 25% | - | 50% |" in lines
    assert "| push | 1 | - | 600 [590, 610], 75% |" in lines
    assert "| push | 2 | 250 [240, 260], 50% | 200 [190, 210], 25% |" in lines
    assert "| mass | 1 (none) | 500 [490, 510], 100% | 800 [790, 810], 100% |" in lines
    assert [each["share"] for each in told] == [1, 0.75, 0.25, 0.5, 1, 0.5]
    assert (tmp_path / "cheetah-run.png").stat().st_size > 10_000


def test_what_diverged_is_told_beside_the_mean_of_the_others(tmp_path):
    rows = [
        row(UNDISTURBED, "0", 800, diverged=1), row("push", "1", 600, diverged=2), row("push", "2", 700),
        row("mass", "2", 400), lost("mass", "3"),
    ]  # fmt: skip
    given = ["agents=[policy]", "disturbances=[push,mass]", "levels.push=[1,2]", "levels.mass=[2,3]"]
    lines, told = report(tmp_path, rows, *given)
    assert "| policy | 800 [790, 810] (1 diverged) | 75% (2 diverged) | diverged |" in lines
    assert "| push | 1 | 600 [590, 610], 75% (2 diverged) |" in lines
    assert "| push | 2 | 700 [690, 710], 88% |" in lines
    assert "| mass | 3 | diverged |" in lines
    assert [each["diverged"] for each in told] == [1, 2, 0, 0, 3]
    assert (told[-1]["return"], told[-1]["share"]) == (None, None)
    assert told[1]["return"]["count"] == 3


def test_where_nothing_but_divergence_was_seen_there_is_a_page_all_the_same(tmp_path):
    lines, _ = report(tmp_path, [lost(UNDISTURBED, "0")], "agents=[policy]", "disturbances=[push]")
    assert "| policy | diverged | - |" in lines


def test_each_checkpoint_of_a_task_has_a_picture_of_its_own(tmp_path):
    names = ["one", "two", "three"]
    rows = [row(UNDISTURBED, "0", 800, checkpoint=name) for name in names]
    lines, _ = report(tmp_path, rows, f"checkpoints=[{','.join(names)}]", "disturbances=[push]")
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"cheetah-run.png", "cheetah-run-2.png", "cheetah-run-3.png"}
    assert all(f"![return under each disturbance]({name})" in lines for name in pictures)


def test_a_level_keeps_all_its_digits(tmp_path):
    assert [level_text(level) for level in (2.0, 0.25, 1000000.0, 1e-7)] == ["2", "0.25", "1000000", "1e-07"]
    given = ["agents=[policy]", "disturbances=[push]", "levels.push=[0.12345671,0.12345672]"]
    keys = [cell.key[3] for cell in cells_of(*given)]
    assert keys == ["0", "0.12345671", "0.12345672"]
    lines, _ = report(tmp_path, [row(UNDISTURBED, "0", 800), row("push", keys[1], 600)], *given)
    assert "| push | 0.12345671 | 600 [590, 610], 75% |" in lines
    assert "| push | 0.12345672 | - |" in lines


def test_an_informed_oracle_is_the_oracle_where_physics_are_as_usual(tmp_path):
    rows = [
        row(UNDISTURBED, "0", 500, agent="oracle"), row("push", "2", 250, agent="oracle"),
        row("mass", "2", 100, agent="oracle"), row("mass", "2", 400, agent="informed_oracle"),
    ]  # fmt: skip
    given = ["disturbances=[push,observation_noise,mass]", "levels.push=[2]", "levels.mass=[2]"]
    lines, _ = report(tmp_path, rows, "agents=[oracle,informed_oracle]", *given)
    assert "| oracle | 500 [490, 510] | 50% | 100% | 20% |" in lines
    assert "| informed oracle | 500 [490, 510] | 50% | 100% | 80% |" in lines


def test_of_a_return_below_zero_there_is_no_share():
    results = Results.of([row(UNDISTURBED, "0", -5), row("push", "1", -9)], "here")
    assert results.share("policy", results.at("policy", "push", 1.0)) is None


def test_finished_cells_are_kept_and_a_report_can_be_written_again(measured, arguments):
    table, page = measured / "robustness.csv", measured / "robustness.md"
    before = table.read_text()
    page.unlink()
    assert main([*arguments, f"output={measured}", "report=true"]) == 0
    assert page.exists()
    table.write_text(before[:-5])  # the last line was cut
    assert main([*arguments, f"output={measured}"]) == 0
    assert sorted(table.read_text().split()) == sorted(before.split())


def test_what_makes_no_difference_is_not_played():
    cells = cells_of("agents=[planner,oracle,informed_oracle,policy]")
    every = {UNDISTURBED, *DISTURBANCES}
    assert disturbances(cells, "planner") == disturbances(cells, "policy") == every
    assert disturbances(cells, "oracle") == every - {"observation_noise", "observation_delay"}
    assert disturbances(cells, "informed_oracle") == {"mass", "friction", "gravity"}
    assert len({cell.key for cell in cells}) == len(cells)
    alone = cells_of("agents=[informed_oracle]", "disturbances=[push,observation_delay,mass]")
    assert disturbances(alone, "informed_oracle") == {UNDISTURBED, "push", "mass"}
    (cell,) = cells_of("agents=[policy]", "disturbances=[mass]", "levels.mass=[1]")
    assert cell.disturbance == UNDISTURBED
    assert {cell.episodes for cell in cells if cell.agent in ORACLES} == {2}


def test_a_cell_is_another_one_with_other_settings_and_the_same_with_other_levels():
    usual = {cell.key for cell in cells_of("agents=[policy]")}
    fewer = {cell.key for cell in cells_of("agents=[policy]", "levels.push=[0.5]", "disturbances=[push]")}
    assert fewer <= usual
    assert not usual & {cell.key for cell in cells_of("agents=[policy]", "seed=1")}
    other = {cell.key for cell in cells_of("agents=[policy]", "push_interval_s=2")}
    assert {key[2] for key in usual - other} == {"push"}


def test_everybody_starts_at_the_same_places_under_the_same_chance():
    run, cell = open_run(CARTPOLE), cell_of("agents=[policy]", "disturbances=[push]")
    starts, chances = [], []
    for disturbance, level in [(UNDISTURBED, 0.0), ("push", 1.0), ("action_delay", 2.0), ("mass", 2.0)]:
        env = disturbed_env(
            replace(cell, disturbance=disturbance, level=level, push_interval_s=1.0, episodes=3), run
        )
        starts.append(env.reset(seed=list(env.env_seeds))[0]["state"])
        chances.append(env.env_seeds)
        env.close()
    for start in starts:
        np.testing.assert_array_equal(start, starts[0])
    fewer = disturbed_env(replace(cell, episodes=2), run)  # the oracle's are the first of them
    assert fewer.env_seeds == chances[0][:2]
    fewer.close()


def test_physics_reach_the_simulation():
    env = disturbed_env(cell_of("agents=[policy]", disturbance="mass", level=2.0), open_run(CARTPOLE))
    env.reset(seed=list(env.env_seeds))
    assert env.factors() == [{"mass": 2.0}] * 2
    env.close()


def test_a_checkpoint_that_was_trained_in_other_physics_is_refused(monkeypatch):
    usual = open_run(CARTPOLE)
    env_config = {**usual.config["env"], "factors": {"mass": [0.5, 2.0]}}
    other = replace(usual, config={**usual.config, "env": env_config})
    monkeypatch.setattr(robustness, "open_run", lambda checkpoint, task: other)
    with pytest.raises(ConfigError, match=r"trained with env\.factors=\{'mass': \[0\.5, 2\.0\]\}"):
        cells_of("agents=[policy]", "disturbances=[push]")


def test_noise_is_measured_in_what_entries_vary_undisturbed(point_run):
    run = open_run(point_run, task=toy_tasks.POINT)
    found = _usual_std(str(point_run), toy_tasks.POINT, 5)
    env = build_env(toy_tasks.POINT, run.config["env"], num_envs=3, seed=3_000_017 + 5, how="sync")
    episodes = play(env, make_agent("policy", 1, seed=5, run=run))
    env.close()
    states = np.concatenate([episode.observation["state"] for episode in episodes])
    np.testing.assert_allclose(found["state"], states.std(0), rtol=1e-5)


def test_an_oracle_that_knows_the_physics_plays_otherwise_than_one_that_does_not():
    """Undisturbed they are the same."""
    short = {"action_repeat": 50, "observe": ["state"], "image_size": 64}
    cell = cell_of("agents=[oracle]", "oracle_budget=8x1x3", env_config=short)
    heavy = replace(cell, disturbance="mass", level=3.0)
    returns = {
        (one.disturbance, agent): run_cell(replace(one, agent=agent))["returns"]
        for one in (cell, heavy)
        for agent in ORACLES
    }
    assert returns[UNDISTURBED, "oracle"] == returns[UNDISTURBED, "informed_oracle"]
    assert returns["mass", "oracle"] != returns["mass", "informed_oracle"]
    assert returns["mass", "oracle"] != returns[UNDISTURBED, "oracle"]


def test_an_episode_that_diverges_is_left_out_and_the_others_stay_in_order():
    env = build_env(toy_tasks.FRAGILE, {}, num_envs=6, seed=2, how="sync")
    episodes = play(env, ZeroAgent(1))
    fates = []
    for seed in env.env_seeds:
        one = envs.make(toy_tasks.FRAGILE)
        one.reset(seed=seed)
        fates.append(one.unwrapped.kind)
    env.close()
    assert set(fates) == set(toy_tasks.Fragile.KINDS)
    for fate, episode in zip(fates, episodes, strict=True):
        if fate == "diverges":
            assert episode is None
        else:
            assert episode.num_steps == (5 if fate == "ends early" else toy_tasks.POINT_STEPS)


def test_a_cell_of_which_every_episode_diverges_is_a_row(point_run, monkeypatch):
    def explode(self, action):
        return np.full(2, np.nan, np.float32), 0.0, False, False, {}

    monkeypatch.setattr(toy_tasks.Point, "step", explode)
    base = [f"checkpoints=[{point_run}]", f"task={toy_tasks.POINT}", "agents=[policy]", "episodes=2"]
    config = to_dict(compose_config("bench_robustness", [*base, "disturbances=[action_delay]"]))
    found = run_cell(make_cells(config)[0])
    assert (found["episodes"], found["diverged"], found["return"], found["returns"]) == (0, 2, "", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("disturbances=[pusch]", "did you mean push"),
        ("disturbances=[wind]", "Known: push, observation_noise"),
        ("levels.wind=[1]", "there is no config key 'levels.wind'"),
        ("agents=[orakel]", "did you mean oracle"),
        ("levels.push=[-1]", "levels.push=[-1]: must be numbers of at least 0"),
        ("levels.mass=[]", "levels.mass=[]"),
        ("levels.action_delay=[1.5]", "levels.action_delay=[1.5]: must be whole numbers"),
        ("levels.mass=[100]", "levels.mass: 100 is not from 0.1 to 10"),
        ("push_interval_s=0", "push_interval_s=0.0: must be above 0"),
        ("episodes=0", "episodes=0: must be at least 1"),
        ("oracle_budget=64x3", "CANDIDATESxITERATIONSxHORIZON"),
        ("checkpoints=[]", "must name at least one"),
        ("checkpoints=[runs/nowhere]", "runs/nowhere"),
        ("report=true", "holds no finished cell"),
    ],
)
def test_a_mistake_is_told_before_anything_is_played(given, said, refused, tmp_path):
    few = [f"checkpoints=[{CARTPOLE}]", f"output={tmp_path}"]
    few = [word for word in few if word.partition("=")[0] != given.partition("=")[0]]
    assert said in refused("bench", "robustness", *few, given)


def test_what_a_task_cannot_do_is_told_too(point_run, refused, tmp_path):
    base = [f"checkpoints=[{point_run}]", f"task={toy_tasks.POINT}", f"output={tmp_path}"]
    for given, said in (
        (["agents=[policy]", "disturbances=[push]"], "no MuJoCo physics state"),
        (["agents=[policy]", "disturbances=[mass]"], "no factors that may vary"),
        (["agents=[oracle]", "disturbances=[action_delay]"], "no batched observation and reward"),
    ):
        assert said in refused("bench", "robustness", *base, *given)
