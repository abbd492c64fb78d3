"""bench peers: all solve the same problem, and whoever cannot take part is told with the reason."""

import builtins
import csv

import pytest
import torch

from worldmodel.apps.bench import contenders, peer_list, peers, problems
from worldmodel.apps.bench.contenders import closed_loop, contend, hand_written, ours, status_of
from worldmodel.apps.bench.linear import LinearPlant
from worldmodel.apps.bench.peer_list import LIBRARIES, PEERS
from worldmodel.apps.bench.peer_planners import Peer, Size
from worldmodel.apps.cli import main

CPU = torch.device("cpu")
SIZE = Size(num_candidates=64, horizon=5, num_iterations=3)
TINY = [
    f"{group}.{key}"
    for group in ("linear", "latent", "batch")
    for key in ("num_candidates=16", "horizon=2", "num_iterations=1")
] + ["batch.num_envs=2", "quality.num_starts=2", "quality.num_steps=2", "seeds=[0,1]", "repeats=1"]
ACTS = [hand_written(is_mppi=False), hand_written(is_mppi=True), ours("cem"), ours("mppi"), ours("icem")]


def table(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def nothing_installed(monkeypatch):
    """No library of others can be imported, whatever this machine has."""
    plain, missing = builtins.__import__, {"tensordict", *LIBRARIES}

    def refuse(name, *arguments, **keywords):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_a_missing_library_is_a_row(tmp_path, nothing_installed):
    assert main(["bench", "peers", "planners=[cem]", f"output={tmp_path}", *TINY]) == 0
    rows = table(tmp_path / "peers.csv")
    assert len(rows) == 4 * (2 + 1 + len(PEERS)) + 1  # two problems, quality with no action, batch
    for row in rows:
        if row["library"] in LIBRARIES:
            assert row["status"].startswith("not installed: pip install ")
            assert row["cpu_ms"] == row["ratio"] == ""
        else:
            assert row["status"] == "ok"
            assert float(row["ratio"]) > 0
    page = (tmp_path / "peers.md").read_text()
    assert "pip install --no-deps mbrl" in page
    assert "- torchrl CEM: not installed: pip install torchrl" in page
    assert (tmp_path / "peers.png").stat().st_size > 10_000
    assert (tmp_path / "peers.json").exists()


def test_the_faster_hand_written_loop_is_one(tmp_path):
    arguments = ["bench", "peers", "libraries=[]", "planners=[mppi]", "measures=[overhead,batch]"]
    assert main([*arguments, f"output={tmp_path}", *TINY]) == 0
    rows = table(tmp_path / "peers.csv")
    for measure, problem in (("overhead", "linear"), ("overhead", "latent"), ("batch", "linear")):
        found = [row for row in rows if (row["measure"], row["problem"]) == (measure, problem)]
        hand = [float(row["ratio"]) for row in found if row["library"] == "hand-written"]
        assert min(hand) == pytest.approx(1)
        (mine,) = [row for row in found if row["library"] == "worldmodel"]
        floor = min(float(row["cpu_ms"]) for row in found if row["library"] == "hand-written")
        assert float(mine["ratio"]) == pytest.approx(float(mine["cpu_ms"]) / floor, rel=1e-4)


@pytest.mark.parametrize("peer", ACTS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("num_envs", [1, 4])
def test_all_solve_the_same_problem(peer, num_envs):
    problem = problems.linear(CPU, 0)
    size = Size(num_candidates=256, horizon=8, num_iterations=5, num_envs=num_envs)
    contender = contend(peer, problem, size, 0)
    assert contender.status == "ok"
    all_steps = num_envs * 256 * 8 * 5
    assert contender.model_steps is not None
    if peer.name.endswith("icem"):  # its population shrinks
        assert all_steps / 2 < contender.model_steps < all_steps
    else:
        assert contender.model_steps == all_steps
    ratio, status = closed_loop(contender, problem, num_steps=25)
    assert status == "ok"
    # 1 is the optimum, and to do nothing costs 2.5. The hand-written loops forget their elites.
    assert 1 <= ratio < (1.8 if peer.name.startswith("hand-written") else 1.35)


def test_doing_nothing_is_not_good_and_the_exact_controller_is():
    problem, plant = problems.linear(CPU, 0), LinearPlant()
    idle = Peer(name="idle", library="-", build=lambda *_: lambda states: torch.zeros(len(states), 2))
    exact = Peer(name="exact", library="-", build=lambda *_: plant.exact_action)
    assert closed_loop(contend(idle, problem, SIZE, 0), problem, 25)[0] > 1.4
    assert closed_loop(contend(exact, problem, SIZE, 0), problem, 25)[0] == pytest.approx(1)


def test_the_problem_is_the_plant():
    problem, plant = problems.linear(CPU, 3), LinearPlant()
    states = problem.states(5)
    actions = torch.rand(5, 2) * 2 - 1
    assert problem.step is not None
    for mine, theirs in zip(problem.step(states, actions), plant.step(states, actions), strict=True):
        torch.testing.assert_close(mine, theirs)
    candidates = torch.rand(5, 7, 4, 2) * 2 - 1
    torch.testing.assert_close(problem.scorer(states)(candidates), plant.scorer(states)(candidates))


def test_a_peer_for_one_environment_is_called_for_each():
    seen = []

    def build(problem, size, seed):
        assert size.num_envs == 1
        return lambda states: seen.append(len(states)) or torch.zeros(1, 2)

    contender = contend(
        Peer(name="one", library="-", build=build),
        problems.linear(CPU, 0),
        Size(num_candidates=4, horizon=2, num_iterations=1, num_envs=3),
        0,
    )
    assert contender.status == "ok"
    assert seen == [1, 1, 1]


def raising(error: Exception) -> Peer:
    def build(problem, size, seed):
        raise error

    return Peer(name="broken", library="lib", build=build, install="pip install lib")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (raising(ModuleNotFoundError("No module named 'lib'")), "not installed: pip install lib"),
        (raising(ValueError("two\nlines")), "failed: ValueError: two lines"),
    ],
)
def test_what_a_peer_raises_is_told_in_one_line(peer, expected):
    contender = contend(peer, problems.linear(CPU, 0), SIZE, 0)
    assert contender.status == expected
    assert contender.act is None


def test_actions_that_are_none_or_out_of_bounds_are_told():
    assert status_of(torch.ones(3, 2)) == "ok"
    assert status_of(torch.tensor([[torch.nan, 0.0]])) == "non-finite action"
    assert status_of(torch.tensor([[-3.5, 0.0]])) == "breaks the bounds [-1, 1]: action of 3.5"


def test_every_peer_says_how_to_install_it():
    assert {peer.library for peer in PEERS} == set(LIBRARIES)
    assert all(peer.install.startswith("pip install ") for peer in PEERS)
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for library in ("mbrl", "stable_worldmodel"):
        assert all("--no-deps" in peer.install for peer in PEERS if peer.library == library)
    assert peers.LIBRARIES is peer_list.LIBRARIES
    assert contenders.PLANNERS.keys() >= {"cem", "mppi"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["planners=[mpi]"], ["there is no planner 'mpi'", "did you mean mppi"]),
        (["libraries=[torch_rl]"], ["there is no library 'torch_rl'", "did you mean torchrl"]),
        (["problems=[model]"], ["there is no problem 'model'", "Known: linear, latent"]),
        (["measures=[qualty]"], ["there is no measure 'qualty'", "did you mean quality"]),
        (["seeds=[-1]"], ["seeds: -1 must be a whole number, at least 0"]),
        (["linear.num_candidates=1"], ["linear.num_candidates: 1 must be a whole number, at least 16"]),
        (["batch.num_envs=0"], ["batch.num_envs: 0 must be a whole number, at least 1"]),
        (["num_threads=0"], ["num_threads=0: must be at least 1"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_line(tmp_path, refused, overrides, expected):
    line = refused("bench", "peers", *TINY, f"output={tmp_path / 'out'}", *overrides)
    for part in expected:
        assert part in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_that_are_installed_act(peer):
    pytest.importorskip(peer.library)
    status = contend(peer, problems.linear(CPU, 0), SIZE, 0).status
    assert status == "ok" or status.startswith("breaks the bounds")
