"""Ray: what is done on a cluster of several nodes is what is done here, and workers that die cost nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import test_apps_bench
import torch
import toy_tasks
from processes import descendants, free_port
from test_apps_collect import POINT, collect, same

from worldmodel.apps import cluster
from worldmodel.apps.bench import scaling
from worldmodel.apps.bench_learning import bench_learning
from worldmodel.apps.cli import main
from worldmodel.apps.cluster import connection
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.exploration import Exploration
from worldmodel.apps.verbs.bench import BENCH_VERBS
from worldmodel.data import EpisodeDataset
from worldmodel.errors import ConfigError
from worldmodel.training import load_checkpoint, read_metrics

for switch in (cluster.BEYOND_THIS_MACHINE, cluster.STATISTICS):
    os.environ[switch] = "0"  # as for a cluster of our own: Ray looks at them when it is imported
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
stand_in = test_apps_bench.stand_in
ON_RAY = ("launcher=ray", "num_workers=2")


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Iterator[Path]:
    """A file that is there once somebody killed itself; $TOY_KILLED, also in workers."""
    path = tmp_path_factory.mktemp("killed") / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_KILLED", str(path))
        patch.setenv("TOY_LEARNER", str(os.getpid()))
        yield path


def node() -> dict[str, int]:
    """A small one. Where ports are given, it need not wait for agents that begin slowly on a busy machine."""
    ports = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    return {"num_cpus": 1, "object_store_memory": 80_000_000} | {name: free_port() for name in ports}


@pytest.fixture(scope="module", autouse=True)
def two_nodes(killed) -> Iterator[str]:
    """The address of a cluster of two nodes with one core each, which this process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_enable_worker_prestart", "RAY_prestart_worker_first_driver"):
            patch.setenv(name, "0")
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args=node() | {"include_dashboard": False})
        try:
            nodes.add_node(**node())
            ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
            yield nodes.address
        finally:
            ray.shutdown()
            nodes.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nobody_else_reaches_a_cluster_of_our_own():
    ours = set()
    for process in descendants(os.getpid()):
        for path in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):
                ours.add(os.readlink(path))
    hosts = [
        fields[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and f"socket:[{fields[9]}]" in ours  # 0A: it listens
    ]
    assert len(hosts) > 4
    assert {host[-8:] for host in hosts} == {"0100007F"}  # 127.0.0.1, as it is or within IPv6


def test_episodes_are_those_that_are_recorded_here_though_a_worker_is_killed(tmp_path, killed):
    command = ("episodes=7", "num_envs=2", "policy=toy_tasks:kill_itself_once")
    assert not killed.exists()
    there = collect(tmp_path / "there", *command, *ON_RAY)
    assert killed.exists()
    same(there, collect(tmp_path / "here", *command))
    assert main(["data", "validate", f"dataset={tmp_path / 'there'}"]) == 0


@pytest.mark.slow
def test_a_job_that_kills_whoever_does_it_is_given_up(tmp_path, refused):
    command = [f"dataset={tmp_path / 'a'}", *POINT, "launcher=ray", "policy=toy_tasks:kill_itself"]
    assert "give a smaller num_workers= or num_envs=" in refused("collect", *command, "episodes=1")


@contextmanager
def one_task_killed() -> Iterator[list[int]]:
    """Kills the first process below this one that is at work on a Ray task of ours; its number."""
    killed: list[int] = []
    is_over = threading.Event()

    def hunt() -> None:
        while not killed and not is_over.wait(0.05):
            for number in descendants(os.getpid()):
                with suppress(OSError):
                    if Path(f"/proc/{number}/cmdline").read_bytes().startswith(b"ray::_do"):
                        os.kill(number, signal.SIGKILL)
                        killed.append(number)
                        break

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        is_over.set()
        hunter.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_cells_of_a_sweep_have_the_same_results_though_a_task_is_killed(tmp_path):
    sweep = ("planners=[mppi]", "problems=[lqr]", "budgets.lqr=[8x1x3]", "seeds=[0,1]")

    def swept(*where: str) -> dict[str, str]:
        output = tmp_path / str(len(where))
        assert main(["bench", "planners", *sweep, *where, f"output={output}"]) == 0
        with (output / "planners.csv").open() as file:
            return {row["seed"]: row["cost_ratio"] for row in csv.DictReader(file)}

    with one_task_killed() as killed:
        there = swept(*ON_RAY)
    assert len(killed) == 1
    assert there == swept("num_workers=1")


@pytest.mark.slow
def test_what_disturbances_leave_of_a_return_is_the_same(point_run, tmp_path):
    command = [
        "bench",
        "robustness",
        f"checkpoints=[{point_run}]",
        f"task={toy_tasks.POINT}",
        "agents=[policy]",
    ]
    command += ["disturbances=[action_delay]", "levels.action_delay=[3]", "episodes=2"]

    def left(*where: str) -> dict[tuple[str, str], str]:
        output = tmp_path / str(len(where))
        assert main([*command, *where, f"output={output}"]) == 0
        with (output / "robustness.csv").open() as file:
            return {(row["disturbance"], row["level"]): row["returns"] for row in csv.DictReader(file)}

    there = left(*ON_RAY)
    assert len(there) == 2
    assert there == left("num_workers=1")


def test_a_run_learns_from_workers_that_are_killed_and_goes_on_without_them(tmp_path, killed):
    killed.unlink(missing_ok=True)
    run_dir, env_steps = tmp_path / "run", 260
    command = ["train", f"task={toy_tasks.DOOMED}", f"run_dir={run_dir}", *toy_tasks.TINY_TRAINING]
    command += ["collector=ray", "num_envs=1", "publish_every=5", "max_ahead=40", "eval_every=1000000"]
    command += ["max_staleness=2"]
    assert main([*command, f"env_steps={env_steps}"]) == 0
    assert killed.exists()
    dataset = EpisodeDataset.open(run_dir / "dataset")
    ended = Path(f"{killed}.ended").read_text().split()
    assert sorted(episode.observation["state"][-1].tobytes().hex() for episode in dataset) == sorted(ended)
    assert len(set(ended)) == len(ended) > 5
    assert {episode.info["policy"] for episode in dataset} == {"random", "planner"}
    saved = load_checkpoint(run_dir)
    assert env_steps <= saved.info["env_steps"] < env_steps + 10  # one stretch
    num_due = 0.25 * env_steps
    assert num_due - 0.25 * 40 <= saved.state["trainer"]["num_updates"] <= num_due + 0.25 * 10
    told = [record for record in read_metrics(run_dir) if "train/staleness" in record][-1]
    assert told["train/weights_version"] > 4
    # No version is fetched before it has to be, and none too late; while a worker acts, more are published.
    assert 0 < told["train/highest_staleness_at_start"] <= 2
    assert told["train/highest_staleness_at_start"] <= told["train/highest_staleness"]
    assert 0 <= told["train/staleness"] <= told["train/highest_staleness"]
    assert told["train/received_bytes"] > 0
    assert told["train/fetched_bytes"] > 0
    again = ["train", f"run_dir={run_dir}", "resume=true", f"task={toy_tasks.DOOMED}"]
    assert main([*again, "collector=local", f"env_steps={env_steps + 40}"]) == 0
    assert len(EpisodeDataset.open(run_dir / "dataset")) > len(dataset)


def test_a_worker_fetches_weights_that_are_too_old_and_no_others(point_run):
    from worldmodel.apps.cluster.explorers import ActingWorker, Stretch, as_json, packed_weights, told

    config, run = json.loads((point_run / "config.json").read_text()), load_checkpoint(point_run)
    config |= {"max_staleness": 2, "stretch_steps": 3, "num_envs": 2}
    worker = ActingWorker(told(config, run.model, 0.99))
    weights = [ray.put(packed_weights(run.model))]

    def version_after(version: int, policy: str = "planner") -> int:
        how = as_json(Exploration(policy=policy, std=0.1, env_steps=0))
        stretch = Stretch(worker.explore(how, version, weights, [0]))
        assert stretch.explored.env_steps == 6
        assert not stretch.explored.episodes
        assert stretch.behind == version - stretch.version <= 2
        return stretch.version

    assert [version_after(version) for version in (3, 5, 6, 7)] == [3, 3, 6, 6]
    # A stretch ends with its episodes: 20 steps are over then.
    how = as_json(Exploration(policy="planner", std=0.1, env_steps=100))
    worker.explore(how, 7, weights, [0]), worker.explore(how, 7, weights, [0])
    last = Stretch(worker.explore(how, 7, weights, [0])).explored
    assert last.env_steps == 4
    assert [episode.num_steps for episode in last.episodes] == [20, 20]
    for name, sent in run.model.state_dict().items():
        torch.testing.assert_close(worker._model.state_dict()[name], sent, rtol=0, atol=0)


@pytest.mark.slow
def test_what_workers_bring_is_measured(tmp_path):
    few = ("workers=[1]", "num_envs=2", "episodes=8", "env_steps=2900", "random_steps=50", "repeats=1")
    few += ("compile=false",)
    assert main(["bench", "scaling", f"task={toy_tasks.POINT}", *few, f"output={tmp_path}"]) == 0
    with (tmp_path / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["workers"]) for row in rows] == [
        ("collect", "0"), ("collect", "1"), ("train", "0"), ("train", "1"),
    ]  # fmt: skip
    for row in rows:
        assert float(row["env_steps_per_s"]) > 0
        if row["kind"] == "train":
            assert float(row["updates_per_s"]) > 0
            assert float(row["acting_cpu_ms"]) > 0
    sent = [float(row["received_bytes"]) for row in rows if row["kind"] == "collect"]
    # Of an agent step: state, action, reward, mean and std; an observation more for each of the 10 steps.
    assert sent == [0, pytest.approx((8 + 4 + 4 + 4 + 4 + 8 / 10) / 2)]
    assert "## train" in (tmp_path / "scaling.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["kinds=[serve]"], "kinds: there is no kind 'serve'. Known: collect, train"),
        (["workers=[0]"], "workers: 0 must be a whole number, at least 1"),
        (["episodes=4"], "episodes=4: must be at least 12, to have a middle"),
        (["env_steps=5245"], "env_steps=5245: must be at least 5246, so that the second half of a run with"),
        # A row of metrics is due every hundredth update, and workers are 500 agent steps ahead at most.
        ([f"task={toy_tasks.POINT}", "env_steps=2895"], "env_steps=2895: must be at least 2896"),
        ([f"task={toy_tasks.POINT}", "preset=base", "env_steps=2"], "env_steps=2: must be at least 3704"),
        (["task=cartpole"], "There is no task 'cartpole'"),
    ],
)
def test_what_cannot_be_measured_is_told(tmp_path, refused, overrides, told):
    assert told in refused("bench", "scaling", f"output={tmp_path / 'a'}", *overrides)
    assert not (tmp_path / "a").exists()


@pytest.fixture
def measured(monkeypatch) -> list[tuple[str, int, int] | str]:
    """What `bench scaling` does, in its turns: the cluster's start, and the cells, which take no time."""
    done: list[tuple[str, int, int] | str] = []

    @contextmanager
    def connected(address: str | None, num_workers: int) -> Iterator[int]:
        done.append(f"{num_workers} workers")
        yield num_workers

    def measure(cell: scaling.Cell, path: Path) -> dict[str, float]:
        if len(done) == 6:
            raise ConfigError("too few to measure")
        done.append((cell.kind, cell.workers, cell.repeat))
        return {"env_steps_per_s": 100.0 * len(done)}

    monkeypatch.setattr(connection, "connected", connected)
    for kind in scaling.KINDS:
        monkeypatch.setitem(scaling._MEASURES, kind, measure)
    return done


def test_a_cut_scaling_goes_on_with_what_is_missing(tmp_path, measured, refused):
    command = ["bench", "scaling", f"task={toy_tasks.POINT}", f"output={tmp_path}"]
    command += ["workers=[2]", "repeats=2"]
    turns = [
        (kind, workers, repeat) for repeat in (0, 1) for kind in ("collect", "train") for workers in (0, 2)
    ]
    assert "too few to measure" in refused(*command)
    assert measured == ["2 workers", *turns[:5]]
    assert not (tmp_path / "scaling.md").exists()
    table = tmp_path / "scaling.csv"
    finished = table.read_text()
    table.write_text(f"{finished}collect,2,")  # killed as it wrote
    measured.append("again")
    assert main(command) == 0
    assert measured[6:] == ["again", "2 workers", *turns[5:]]
    assert table.read_text().startswith(finished)
    assert "| 0 | 400 [200, 600] |" in (tmp_path / "scaling.md").read_text()
    measured.clear()
    assert main(command) == 0
    assert measured == []  # not even a cluster
    assert main([*command, "env_steps=7000", "kinds=[train]", "repeats=1"]) == 0  # beside the first
    assert measured == ["2 workers", ("train", 0, 0), ("train", 2, 0)]
    assert "| 0 | 200 [200, 200] |" in (tmp_path / "scaling.md").read_text()
    assert main([*command, "env_steps=7000", "repeats=1"]) == 0
    assert len(measured) == 3  # what is collected depends on no env steps


@pytest.mark.parametrize("example", BENCH_VERBS["bench scaling"].examples)
def test_examples_of_scaling_are_large_enough(example):
    config = to_dict(compose_config("bench_scaling", example.split()[3:]))
    assert {cell.workers for cell in scaling.make_cells(config)} == {0, *config["workers"]}


@pytest.mark.slow
def test_runs_of_a_learning_bench_are_those_that_are_made_here(stand_in, tmp_path):
    there = bench_learning(
        test_apps_bench.settings(tmp_path / "there", seeds=[0, 1], launcher="ray", num_workers=2)
    )
    here = bench_learning(test_apps_bench.settings(tmp_path / "here", seeds=[0, 1], num_workers=1))
    results = [path.parent / "curves.csv" for path in (there, here)]
    assert results[0].read_text() == results[1].read_text()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["launcher=rya"], "launcher=rya: there is no such launcher (did you mean ray?). Known: local, ray"),
        (["launcher=ray", "ray_address=here"], "ray_address=here: write auto, or HOST:PORT"),
        (["ray_address=auto"], "ray_address=auto belongs to launcher=ray: add that, or leave it out"),
    ],
)
def test_a_place_that_is_none_is_told(tmp_path, refused, overrides, told):
    assert told in refused("collect", f"dataset={tmp_path / 'a'}", *POINT, *overrides)
    assert not (tmp_path / "a").exists()


def test_ray_is_imported_by_those_who_ask_for_it_once_its_switches_are_set():
    code = """
import os, sys
import worldmodel.apps.bench.planners, worldmodel.apps.bench_learning, worldmodel.apps.collect
import worldmodel.apps.train
from worldmodel.apps.launcher import check_place
check_place("collector", "ray", None)
assert "ray" not in sys.modules
assert {os.environ[name] for name in sys.argv[1:]} == {"0"}
"""
    switches = (cluster.STATISTICS, cluster.BEYOND_THIS_MACHINE)
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    subprocess.run([sys.executable, "-c", code, *switches], env=environment, check=True)


def test_where_ray_is_missing_the_way_to_it_is_told(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda package: None)
    line = refused("collect", f"dataset={tmp_path / 'a'}", *POINT, "launcher=ray")
    assert 'ray needs ray, msgpack, grpc: pip install "worldmodel[ray]"' in line
