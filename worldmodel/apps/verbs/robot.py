"""Learning, acting, recording."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodel.apps.verbs.verb import Verb

if TYPE_CHECKING:
    from worldmodel.training import Processes


def _train(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.following import follow
    from worldmodel.training import join

    with join() as processes:
        if processes.is_first:
            _run_training(config, given, processes)
        else:
            follow(processes)


def _run_training(config: dict[str, Any], given: set[str], processes: "Processes") -> None:
    from worldmodel.apps.learner import is_offline
    from worldmodel.apps.offline import with_dataset_facts
    from worldmodel.apps.run import (
        check_new_run,
        going_on_with,
        is_same_run,
        opened_run,
        resume_command,
        resumed_config,
    )
    from worldmodel.apps.train import make_training

    if is_offline(config) and not config["resume"]:
        config = with_dataset_facts(config, given)
    run_dir = Path(config["run_dir"])
    if config["resume"]:
        config = resumed_config(run_dir, config, given)
    elif processes.is_restarted and is_same_run(run_dir, config):
        config = config | {"resume": True}
    else:
        check_new_run(run_dir)
    with opened_run(run_dir, config):
        training = make_training(run_dir, config, processes)
    with going_on_with(resume_command(run_dir, config)):
        training.run()
    # A module is named each time, and of several tasks one.
    named = config["tasks"][:1] or [task for task in [config["task"]] if ":" in task]
    print(
        " ".join(
            [
                f"trained; see it act with:  worldmodel control checkpoint={run_dir}",
                *(f"task={t}" for t in named),
            ]
        )
    )


def _control(config: dict[str, Any], given: set[str]) -> None:
    if config["realtime"]:
        from worldmodel.apps.realtime.control import control_realtime

        control_realtime(config)
    else:
        from worldmodel.apps.control import control

        control(config)


def _serve(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.serve import serve

    serve(config)


def _view(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.cockpit.view import view

    view(config)


def _oracle_defaults(overrides: Sequence[str]) -> list[str]:
    """The simulator knows no value of what follows a plan: it must look further than a learned model."""
    if "model=oracle" not in overrides:
        return []
    given = {override.partition("=")[0] for override in overrides}
    if "checkpoint" in given:  # it has a value of what follows, and a planner that fits it
        return []
    defaults = {"planner": "icem", "budget": "oracle"}
    return [f"{key}={option}" for key, option in defaults.items() if key not in given]


def _imagine(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.imagine import imagine

    imagine(config)


def _probe(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.probe import run_probe

    run_probe(config, given)


def _surprise(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.surprise import run_surprise

    run_surprise(config, given)


def _collect(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.collect import collect
    from worldmodel.apps.progress import counted

    found, path = collect(config), config["dataset"]
    if found.new is not None:
        text, whose = counted(found.new.count, "episode"), ""
        if found.num_before:
            now = counted(found.num_before + found.new.count, "episode")
            text, whose = f"{found.new.count} more, {now} now,", " of the new ones"
        print(f"{text} in {path}; mean return{whose} {found.new.precise()}")
    else:
        there = counted(config["episodes"] - found.num_left_out, "episode")
        print(f"{path} has all {there} of this collection: raise episodes=, or give another seed=")
    if found.num_left_out:
        print(f"{found.num_left_out} of {config['episodes']} are left out: their simulation diverged")


def _export(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.export import export

    export(config)
    print(f"exported; see it act with:  worldmodel control checkpoint={config['output']}")


def _tasks(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.tasks import tasks

    tasks(config["pattern"])


def _word_as_pattern(words: Sequence[str]) -> list[str]:
    """`tasks walker` as `tasks pattern=walker`."""
    from worldmodel.apps.config import quoted

    return [word if "=" in word else quoted("pattern", word) for word in words]


def _demo(config: dict[str, Any], given: set[str]) -> None:
    from worldmodel.apps.demo import demo

    demo(config)


ROBOT_VERBS = {
    "demo": Verb(
        summary="Learn a task from nothing, control it, imagine it, and show all on one page.",
        examples=("worldmodel demo", "worldmodel demo task=reacher-easy run_dir=runs/reacher"),
        run=_demo,
    ),
    "train": Verb(
        summary="Learn a world model: act, record, update, evaluate, repeat; or offline from a dataset.",
        examples=(
            "worldmodel train task=cartpole-swingup",
            "worldmodel train task=HalfCheetah-v5 env.action_repeat=1 model=small env_steps=200_000",
            "worldmodel train run_dir=runs/cartpole-swingup/seed-0 resume=true env_steps=200_000",
            "worldmodel train dataset=data/reacher num_updates=20_000",
            "worldmodel train datasets=[data/cartpole,data/reacher] experiment=multitask",
            "torchrun --standalone --nproc-per-node=2 -m worldmodel train dataset=data/reacher device=cuda",
        ),
        run=_train,
        runs_in_processes=True,
    ),
    "control": Verb(
        summary="Control the robot in closed loop, by a trained model or the oracle: return, latency, video.",
        examples=(
            "worldmodel control checkpoint=pretrained/cheetah-run",
            "worldmodel control checkpoint=runs/demo planner=cem planner.horizon=5 episodes=3",
            "worldmodel control checkpoint=runs/demo agent=policy video=false",
            "worldmodel control checkpoint=runs/several task=reacher-easy",
            "worldmodel control checkpoint=runs/tworoom goal=[0.5,-0.4]",
            "worldmodel control model=oracle task=cheetah-run planner=icem",
            "worldmodel control server=ws://127.0.0.1:8000 episodes=3",
        ),
        run=_control,
        implied=_oracle_defaults,
    ),
    "view": Verb(
        summary="A live cockpit in the browser: the robot, its imagined futures, and all that disturbs both.",
        examples=(
            "worldmodel view checkpoint=pretrained/cheetah-run",
            "worldmodel view model=oracle task=cartpole-swingup env.action_repeat=2 num_threads=2",
            "worldmodel view checkpoint=runs/demo port=9000 speed=0.5",
        ),
        run=_view,
        implied=_oracle_defaults,
    ),
    "serve": Verb(
        summary="Let robots ask a trained model for plans, over openpi's websocket protocol.",
        examples=(
            "worldmodel serve checkpoint=pretrained/cheetah-run",
            "worldmodel serve checkpoint=runs/demo port=9000 plan_ms=15 limits.connections=4",
            "worldmodel serve checkpoint=runs/demo host=0.0.0.0 token_file=token",
        ),
        run=_serve,
    ),
    "imagine": Verb(
        summary="Imagined against real, in numbers and pictures: the same actions in model and simulator.",
        examples=(
            "worldmodel imagine checkpoint=runs/demo",
            "worldmodel imagine checkpoint=runs/demo horizon=100",
            "worldmodel imagine checkpoint=runs/tworoom dataset=data/tworoom decoder.updates=2000",
        ),
        run=_imagine,
    ),
    "probe": Verb(
        summary="What a model has understood: physical quantities read from its frozen latents.",
        examples=("worldmodel probe checkpoint=runs/push dataset=data/push",),
        run=_probe,
    ),
    "surprise": Verb(
        summary="Whether a model is surprised by what physics forbids: teleports, vanishing, no gravity.",
        examples=(
            "worldmodel surprise checkpoint=runs/drop",
            "worldmodel surprise checkpoint=runs/push 'violations=[teleport,recolor]' episodes=50",
        ),
        run=_surprise,
    ),
    "collect": Verb(
        summary="Record rollouts into a dataset.",
        examples=(
            "worldmodel collect task=reacher-easy policy=colored episodes=50 dataset=data/reacher",
            "worldmodel collect task=cheetah-run num_envs=64 episodes=640 dataset=data/cheetah",
            "worldmodel collect checkpoint=runs/demo policy='0.3 random + 0.7 planner' dataset=data/cartpole",
        ),
        run=_collect,
    ),
    "tasks": Verb(
        summary="What can be controlled, by name; of few, their cameras too.",
        examples=("worldmodel tasks", "worldmodel tasks walker"),
        run=_tasks,
        overrides_of=_word_as_pattern,
    ),
    "export": Verb(
        summary="Measure a trained model, and write it as a small folder to pass on, with a card.",
        examples=(
            "worldmodel export checkpoint=runs/demo output=models/cartpole",
            "worldmodel export checkpoint=runs/a/seed-0 others=[runs/a/seed-1,runs/a/seed-2] output=models/a",
        ),
        run=_export,
    ),
}
