"""bench speed: every case is measured and written down, and a mistake is told before anything is measured."""

import csv
import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from worldmodel.apps.bench import problems, speed
from worldmodel.apps.bench.output import command_line
from worldmodel.apps.bench.timing import MatrixProducts, Spread, take_turns, timed
from worldmodel.apps.cli import main
from worldmodel.model import Acceleration

CPU = torch.device("cpu")
TINY = [
    "num_candidates=16",
    "horizon=2",
    "num_iterations=1",
    "scale_candidates=[16,32]",
    "scale_horizon=[1,2]",
    "scale_iterations=[1,2]",
    "scale_envs=[1,2]",
    "repeats=1",
    "model.hidden_dim=16",
    "model.latent_dim=16",
]


class Operands(TorchDispatchMode):
    """Writes down the dtypes of what operations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.dtypes |= {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        return func(*args, **(kwargs or {}))


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    output = tmp_path_factory.mktemp("speed") / "out"
    assert main(["bench", "speed", "planners=[cem,gradient]", f"output={output}", *TINY]) == 0
    return output


def test_every_case_of_every_problem_is_a_row(measured):
    rows = table(measured / "speed.csv")
    assert len(rows) == 3 * (2 + 4 * 2)  # problems x (planners + factors x values)
    assert {row["problem"] for row in rows} == {"linear", "latent", "model"}
    assert {row["planner"] for row in rows if row["varied"] == "base"} == {"cem", "gradient"}
    assert {row["planner"] for row in rows if row["varied"] != "base"} == {"cem"}
    varied = [row["num_envs"] for row in rows if row["varied"] == "num_envs" and row["problem"] == "linear"]
    assert varied == ["1", "2"]


def test_rates_follow_from_times(measured):
    for row in table(measured / "speed.csv"):
        seconds = float(row["cpu_ms"]) / 1e3
        assert seconds > 0
        assert float(row["wall_ms"]) > 0
        evaluations = int(row["num_candidates"]) * int(row["num_iterations"]) * int(row["num_envs"])
        assert int(row["evaluations"]) == evaluations
        assert float(row["evaluations_per_s"]) == pytest.approx(evaluations / seconds, rel=1e-3)
        steps = evaluations * int(row["horizon"])
        assert float(row["model_steps_per_s"]) == pytest.approx(steps / seconds, rel=1e-3)
        assert float(row["floor_fraction"]) == pytest.approx(float(row["floor_ms"]) / 1e3 / seconds, rel=1e-3)


def test_the_page_tells_where_its_numbers_come_from(measured):
    page = (measured / "speed.md").read_text()
    record = json.loads((measured / "speed.json").read_text())
    assert record["commit"] in page
    assert record["processor"] in page
    assert record["command"] in page
    assert "scale_envs=[1,2]" in record["command"]
    assert (measured / "speed.png").stat().st_size > 10_000


def test_the_simulator_is_measured_against_bare_physics(tmp_path):
    arguments = ["bench", "speed", "task=cartpole-swingup", "problems=[linear]", "planners=[gradient,icem]"]
    assert main([*arguments, f"output={tmp_path}", *TINY, "scale_horizon=[2]"]) == 0
    rows = [row for row in table(tmp_path / "speed.csv") if row["problem"] == "simulator"]
    assert {row["planner"] for row in rows} == {"icem"}  # a simulator has no gradient
    for row in rows:
        assert float(row["physics_steps_per_s"]) > 0
        assert float(row["bare_physics_steps_per_s"]) > 0
        assert row["gflop"] == ""
    assert "mujoco.rollout" in (tmp_path / "speed.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["planners=[cme]"], ["there is no planner 'cme'", "did you mean cem"]),
        (["problems=[laten]"], ["there is no problem 'laten'", "did you mean latent"]),
        (["problems=[]"], ["problems=[]: must name at least one of linear"]),
        (["planners=[cem,cem]"], ["cem must be named once"]),
        (["repeats=0"], ["repeats=0: must be at least 1"]),
        (["scale_envs=[0]"], ["scale_envs: 0 must be a whole number, at least 1"]),
        (["scale_horizon=[2,2]"], ["each must be named once"]),
        (["num_candidates=1"], ["num_candidates: 1 must be a whole number, at least 2"]),
        (["device=cdua"], ["device=cdua:", "device=cpu always works"]),
        (["task=cartpole-swingp"], ["cartpole-swingp", "cartpole-swingup"]),
        (["planners=[gradient]", "task=cartpole-swingup"], ["a simulator has no gradient"]),
        (["model=oracle"], ["there is no model 'oracle'"]),
        (["num_candidats=8"], ["no config key 'num_candidats'", "did you mean num_candidates"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line(tmp_path, refused, overrides, expected):
    line = refused("bench", "speed", f"output={tmp_path / 'out'}", *overrides)
    for part in expected:
        assert part in line


def test_an_output_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").touch()
    assert "cannot write output=" in refused("bench", "speed", f"output={tmp_path / 'file' / 'x'}")


def test_matrix_products_are_counted_and_can_be_made_again_alone():
    with MatrixProducts() as products:
        torch.addmm(torch.zeros(4), torch.ones(2, 3), torch.ones(3, 4))
        torch.ones(5, 2, 3) @ torch.ones(5, 3, 4)
        torch.ones(7) * 2
    assert products.shapes == [((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4))]
    assert products.gflop == pytest.approx(2 * (2 * 3 * 4 + 5 * 2 * 3 * 4) / 1e9)
    with MatrixProducts() as again:
        products.bare(CPU)()
    assert again.shapes == products.shapes


def test_the_floor_has_the_precision_of_what_it_is_a_floor_of():
    problem = problems.latent(CPU, 0)
    sizes = {"num_envs": 1, "num_candidates": 8, "horizon": 2, "num_iterations": 1}
    narrow = Acceleration(precision=torch.bfloat16)
    _, floor, _ = speed._prepare(problem, speed.Case(planner="cem", acceleration=narrow, **sizes), 0, CPU)
    with Operands() as operands:
        floor()
    assert operands.dtypes == {torch.bfloat16}


def test_the_latent_problem_costs_what_its_layers_say():
    problem = problems.latent(CPU, 0)
    with MatrixProducts() as products:
        problem.scorer(problem.states(1))(torch.zeros(1, 10, 3, problem.action_dim))
    widths = [(70, 256), (256, 256), (256, 64), (70, 256), (256, 256), (256, 1)]
    assert products.gflop == pytest.approx(2 * 10 * 3 * sum(a * b for a, b in widths) / 1e9)


def test_contenders_take_turns():
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name)) for name in "abc"}
    samples = take_turns(works, CPU, repeats=4)
    assert order[:3] == ["a", "b", "c"]  # the first calls do not count
    rounds = [order[3 + 3 * index : 6 + 3 * index] for index in range(4)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert {name: len(found) for name, found in samples.items()} == {"a": 4, "b": 4, "c": 4}


def test_processor_time_does_not_count_waiting():
    import time

    sample = timed(lambda: time.sleep(0.05), CPU)
    assert sample.wall_ms >= 50
    assert sample.cpu_ms < 25
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)


def test_the_command_can_be_typed_again():
    config = {"planners": ["cem", "mppi"], "compile": True, "model": {"latent_dim": 8}, "seed": 0}
    line = command_line("bench speed", config, {"planners", "compile", "model.latent_dim"})
    assert line == "worldmodel bench speed planners=[cem,mppi] compile=true model.latent_dim=8"
