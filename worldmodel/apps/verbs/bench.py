"""`worldmodel bench ...`."""

from typing import Any

from worldmodel.apps.verbs.verb import Verb


def _bench_learning(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench_learning import bench_learning

    print(f"report in {bench_learning(config)}")


def _bench_speed(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.speed import bench_speed

    print(f"report in {bench_speed(config, given)}")


def _bench_peers(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.peers import bench_peers

    print(f"report in {bench_peers(config, given)}")


def _bench_sim(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.sim import bench_sim

    print(f"report in {bench_sim(config, given)}")


def _bench_data(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.data import bench_data

    print(f"report in {bench_data(config, given)}")


def _bench_planners(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.planners import bench_planners

    print(f"report in {bench_planners(config)}")


def _bench_goals(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.goals import bench_goals

    print(f"report in {bench_goals(config, given)}")


def _bench_serve(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.serve import bench_serve

    print(f"report in {bench_serve(config, given)}")


def _bench_realtime(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.realtime import bench_realtime

    print(f"report in {bench_realtime(config, given)}")


def _bench_scaling(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.scaling import bench_scaling

    print(f"report in {bench_scaling(config, given)}")


def _bench_robustness(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.bench.robustness import bench_robustness

    print(f"report in {bench_robustness(config, given)}")


BENCH_VERBS = {
    "bench robustness": Verb(
        summary="Measure what disturbances cost: pushes, noise, delays, other masses, frictions, gravities.",
        examples=(
            "worldmodel bench robustness",
            "worldmodel bench robustness checkpoints=[runs/my-run] disturbances=[push] levels.push=[1,3]",
            "worldmodel bench robustness agents=[planner,oracle,informed_oracle] disturbances=[mass]",
        ),
        run=_bench_robustness,
    ),
    "bench scaling": Verb(
        summary="Measure workers on a Ray cluster: env steps, updates and bytes; goes on where it stopped.",
        examples=(
            "worldmodel bench scaling",
            "worldmodel bench scaling workers=[1,2,4,8] episodes=100 env_steps=30000 ray_address=auto",
        ),
        run=_bench_scaling,
    ),
    "bench realtime": Verb(
        summary="Measure what a clock costs: return and latency at control periods from 100 to 10 ms.",
        examples=(
            "worldmodel bench realtime",
            "worldmodel bench realtime checkpoint=pretrained/cheetah-run periods_ms=[20] stall_ms=200",
        ),
        run=_bench_realtime,
    ),
    "bench goals": Verb(
        summary="Measure who reaches goals: the planner, policies without search, noise, the simulator.",
        examples=(
            "worldmodel bench goals checkpoint=runs/tworoom/offline-seed-0",
            "worldmodel bench goals checkpoint=runs/my-run agents=[planner,random] planner=icem",
            "worldmodel bench goals checkpoint=runs/my-run agents=[inverse_dynamics] dataset=data/tworoom",
        ),
        run=_bench_goals,
    ),
    "bench planners": Verb(
        summary="Measure planners: return against evaluations and milliseconds; goes on where it stopped.",
        examples=(
            "worldmodel bench planners problems=[lqr]",
            "worldmodel bench planners problems=[oracle] tasks=[cheetah-run] planners=[cem,icem]",
            "worldmodel bench planners \"planners=[icem,'icem noise=white']\" problems=[lqr]",
            "worldmodel bench planners report=true",
        ),
        run=_bench_planners,
    ),
    "bench learning": Verb(
        summary="Measure learning: tasks x seeds, curves and tables; goes on where it stopped.",
        examples=(
            "worldmodel bench learning",
            "worldmodel bench learning tasks=[walker-walk] seeds=[0,1,2] num_workers=1",
            "worldmodel bench learning report=true",
        ),
        run=_bench_learning,
    ),
    "bench speed": Verb(
        summary="Measure how fast planning is here: decisions, model steps, share of the matmul floor.",
        examples=(
            "worldmodel bench speed",
            "worldmodel bench speed task=cheetah-run problems=[model] model=small compile=true",
            "worldmodel bench speed device=cuda num_candidates=512",
        ),
        run=_bench_speed,
    ),
    "bench peers": Verb(
        summary="Other libraries' planners beside ours: same problems, same budgets, same process.",
        examples=(
            "worldmodel bench peers",
            "worldmodel bench peers libraries=[pytorch_mppi] problems=[linear] repeats=5",
        ),
        run=_bench_peers,
    ),
    "bench sim": Verb(
        summary="Measure how fast environments step: ours, dm_control's, bare physics and EnvPool in turns.",
        examples=(
            "worldmodel bench sim",
            "worldmodel bench sim tasks=[cheetah-run] num_envs=[1,16,1024] num_threads=4",
            "worldmodel bench sim tasks=[walker-walk] contenders=[batch,sync,async] num_envs=[16]",
        ),
        run=_bench_sim,
    ),
    "bench data": Verb(
        summary="Measure datasets: writing, size, windows per second; ours, HDF5, Minari, npz and LeRobot.",
        examples=(
            "worldmodel bench data",
            "worldmodel bench data kinds=[state] horizon=16 batch_size=512",
        ),
        run=_bench_data,
    ),
    "bench serve": Verb(
        summary="Measure a policy server: robots that ask at once, latency, requests per second, batches.",
        examples=(
            "worldmodel bench serve",
            "worldmodel bench serve checkpoint=runs/demo clients=[1,4,16,64] seconds=30",
        ),
        run=_bench_serve,
    ),
}
