"""`worldmodel bench planners`: what it measures, that it goes on, and what it refuses."""

import csv
from pathlib import Path

import pytest
import torch
import toy_tasks

from worldmodel.apps.bench.cells import COLUMNS, Budget
from worldmodel.apps.bench.linear import HORIZON, LinearPlant
from worldmodel.apps.bench.planners import make_cells
from worldmodel.apps.bench.planners_report import Point, pareto_front, summarize
from worldmodel.apps.build import build_planner
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.statistics import Mean, iqm_interval

SMALL = ("planners=[mppi,'icem noise=white']", "budgets.lqr=[8x1x3,16x2x3]", "num_workers=1")


def bench(output: Path, *arguments: str) -> list[dict[str, str]]:
    assert main(["bench", "planners", f"output={output}", *arguments]) == 0
    with (output / "planners.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("planners")
    bench(output, *SMALL, "problems=[lqr]", "seeds=[0,1]")
    return output


def test_every_cell_is_a_row_with_its_cost_and_its_quality(swept):
    with (swept / "planners.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {(r["planner"], r["budget"], r["seed"]) for r in rows} == {
        (planner, budget, seed)
        for planner in ("mppi", "icem noise=white")
        for budget in ("8x1x3", "16x2x3")
        for seed in "01"
    }
    for row in rows:
        assert float(row["cost_ratio"]) > 1  # nothing is better than the exact controller
        assert float(row["cpu_ms"]) > 0
        assert float(row["evaluations"]) == pytest.approx(8 if row["budget"] == "8x1x3" else 32, abs=1)


def test_the_report_names_planners_intervals_and_where_numbers_come_from(swept):
    page = (swept / "planners.md").read_text()
    assert "| icem noise=white | 16x2x3 |" in page
    assert "Commit:" in page
    assert (swept / "lqr.png").stat().st_size > 10_000


def test_finished_cells_are_not_run_again_and_a_cut_line_is(swept, tmp_path):
    text = (swept / "planners.csv").read_text()
    whole, last = text.rstrip("\r\n").rsplit("\n", 1)
    output = tmp_path / "again"
    output.mkdir()
    (output / "planners.csv").write_text(f"{whole}\n{last[:10]}")
    rows = bench(output, *SMALL, "problems=[lqr]", "seeds=[0,1]")
    assert len(rows) == 8
    (output / "planners.csv").write_text(text)
    bench(output, *SMALL, "problems=[lqr]", "seeds=[0,1]")
    assert [line.split() for line in (output / "planners.csv").read_text().splitlines()] == [
        line.split() for line in text.splitlines()
    ]


def test_the_same_cell_gives_the_same_cost_to_the_bit(swept, tmp_path):
    rows = bench(tmp_path, *SMALL, "problems=[lqr]", "seeds=[1]")
    with (swept / "planners.csv").open() as file:
        before = {(r["planner"], r["budget"], r["seed"]): r["return"] for r in csv.DictReader(file)}
    assert all(before[r["planner"], r["budget"], r["seed"]] == r["return"] for r in rows)


def test_a_learned_model_and_the_simulator_are_problems_too(tmp_path, point_run):
    folder = tmp_path / "checkpoints" / toy_tasks.POINT
    folder.mkdir(parents=True)
    (folder / "seed-0").symlink_to(point_run)
    rows = bench(
        tmp_path / "learned", "problems=[learned]", f"tasks=['{toy_tasks.POINT}']", "num_workers=1",
        "planners=[mppi,gradient]", "budgets.learned=[32x1x2]", "seeds=[0]",
        f"checkpoints={tmp_path / 'checkpoints'}",
    )  # fmt: skip
    assert {row["evaluations"] for row in rows} == {"32.0"}
    rows = bench(
        tmp_path / "oracle", "problems=[oracle]", "tasks=[pendulum-swingup]", "planners=[mppi,gradient]",
        "budgets.oracle=[4x1x2]", "seeds=[0]", "action_repeat=8", "num_workers=1",
    )  # fmt: skip
    assert [row["planner"] for row in rows] == ["mppi"]  # the simulator has no gradient


def composed(*overrides: str) -> dict:
    return to_dict(compose_config("bench_planners", list(overrides)))


@pytest.mark.parametrize(
    ("budget", "expected"), [("8x1", 8), ("16x2", 32), ("64x3", 192), ("64x6", 384), ("512x6", 3072)]
)
def test_every_planner_gets_the_same_number_of_evaluations(budget, expected):
    cells = make_cells(composed("problems=[lqr]", f"budgets.lqr=[{budget}x15]", "seeds=[0]"))
    assert len(cells) == 8
    for cell in cells:
        config = cell.planner_config
        planner = build_planner(config, 2)
        scored = sum(planner.num_candidates_in(i) for i in range(planner.num_iterations))
        assert scored == pytest.approx(expected, rel=0.05), config["name"]
        assert config["num_proposals"] == 0
        assert config["horizon"] == 15


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("problems=[lrq]",), "did you mean lqr"),
        (("problems=[lqr]", "budgets.lqr=[64x3]"), "CANDIDATESxITERATIONSxHORIZON"),
        (("problems=[lqr]", "budgets.lqr=[0x3x3]"), "0x3x3"),
        (("problems=[lqr]", "planners=[mpi]"), "did you mean mppi"),
        (("problems=[lqr]", "planners=['mppi planner.horzon=3']"), "planner.horizon"),
        (("problems=[lqr]", "planners=[]"), "planners=[]"),
        (("problems=[lqr]", "planners=['mppi planner.horizon=9']"), "what the budget sets"),
        (("problems=[lqr]", "seeds=[1,1]"), "seeds"),
        (("problems=[oracle]", "tasks=[cartpole-swing]"), "cartpole-swingup"),
        (("problems=[learned]", "checkpoints=nowhere"), "bench learning"),
        (("report=true",), "holds no finished cell"),
        (("problems=[oracle]", "tasks=[pendulum-swingup]", "planners=[gradient]"), "cannot climb"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_runs(refused, tmp_path, arguments, told):
    assert told in refused("bench", "planners", f"output={tmp_path}", *arguments)
    assert not (tmp_path / "planners.csv").exists()


def test_a_table_of_another_version_is_refused(refused, tmp_path):
    (tmp_path / "planners.csv").write_text("planner,return\nmppi,1\n")
    assert "other columns" in refused("bench", "planners", f"output={tmp_path}", "problems=[lqr]", *SMALL)


def test_a_budget_reads_as_it_is_written():
    assert Budget.parse("64x3x15") == Budget(num_candidates=64, num_iterations=3, horizon=15)


def test_the_exact_controller_is_the_optimum_that_a_gradient_finds():
    plant = LinearPlant(torch.float64)
    states = plant.starts(0, count=3)
    actions = torch.zeros(3, 1, HORIZON, 2, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [actions], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        cost = -plant.scorer(states)(actions).sum()
        cost.backward()
        return cost

    search.step(closure)
    exact = plant.exact_action(states)
    assert torch.allclose(actions[:, 0, 0].detach(), exact, atol=1e-3)
    assert exact.abs().max() < 1  # the bounds of planners do not bind
    # Acting exactly costs what the value says.
    assert plant.closed_loop_cost(states, plant.exact_action) == pytest.approx(
        -plant.value(states).sum().item()
    )


def point(cpu_ms: float, quality: float, problem: str = "oracle") -> Point:
    mean = Mean(mean=quality, low=quality, high=quality, count=1)
    return Point(
        problem=problem, task="t", planner=f"{cpu_ms}", budget="1x1x1", values=(quality,), quality=mean,
        evaluations=1.0, cpu_ms=cpu_ms, effective_sample_size=1.0,
    )  # fmt: skip


def test_the_pareto_front_holds_what_no_other_beats_for_less():
    points = [point(*pair) for pair in ((1.0, 10.0), (2.0, 8.0), (3.0, 20.0), (4.0, 20.0), (0.5, 1.0))]
    assert [p.cpu_ms for p in pareto_front(points)] == [0.5, 1, 3]
    costs = [point(cost, quality, "lqr") for cost, quality in ((1.0, 1.5), (2.0, 1.2), (3.0, 1.3))]
    assert [p.cpu_ms for p in pareto_front(costs)] == [1, 2]


def test_the_interquartile_mean_leaves_out_both_tails_and_says_how_sure_it_is():
    values = [0.0, 500.0, 500.0, 502.0, 498.0, 1e9, 500.0, 500.0]
    found = iqm_interval([values])
    assert found.mean == pytest.approx(500)
    assert found.low <= found.mean <= found.high
    assert iqm_interval([[3.0], [5.0]]).mean == 4.0
    assert not iqm_interval([[3.0]]).has_interval
    narrow, wide = (iqm_interval([[m - s, m, m + s] for m in (1.0, 2.0)]) for s in (0.1, 1.0))
    assert narrow.high - narrow.low < wide.high - wide.low


def test_another_setting_is_another_cell_and_the_newest_counts(tmp_path):
    one = ("problems=[lqr]", "planners=[mppi]", "budgets.lqr=[8x1x3]", "seeds=[0]", "num_workers=1")
    (first,) = bench(tmp_path, *one)
    again = bench(tmp_path, *one[:1], "planners=[mppi]", *one[2:])
    assert again == [first]
    changed = dict(first, settings="other", cost_ratio="9.0")
    points = summarize([first, changed])
    assert [point.values for point in points] == [(9.0,)]


def test_each_seed_keeps_its_run_in_whatever_order_seeds_are_named(tmp_path, point_run):
    folder = tmp_path / toy_tasks.POINT
    folder.mkdir(parents=True)
    for seed in (0, 2, 10):
        (folder / f"seed-{seed}").symlink_to(point_run)
    arguments = (
        "problems=[learned]",
        f"tasks=['{toy_tasks.POINT}']",
        f"checkpoints='{tmp_path}'",
        "planners=[mppi]",
    )
    runs = {
        cell.seed: cell.checkpoint.name
        for seeds in ("[0,1,2]", "[2]", "[1,0]")
        for cell in make_cells(composed(*arguments, f"seeds={seeds}"))
    }
    assert runs == {0: "seed-0", 1: "seed-2", 2: "seed-10"}
