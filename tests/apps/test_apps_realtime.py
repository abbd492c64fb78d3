"""Real time: what is told acts when it should, and what goes wrong is survived, counted and shown."""

import json
import multiprocessing
import signal
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_tasks

import envs
from worldmodel.apps.build import build_env
from worldmodel.apps.cli import main
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.foresight import ImaginingForesight, OracleForesight
from worldmodel.apps.outlook import Outlook
from worldmodel.apps.realtime.belief import LatentBelief, PhysicsBelief
from worldmodel.apps.realtime.body import Body, live_episodes
from worldmodel.apps.realtime.faults import Faults
from worldmodel.apps.realtime.limits import ActionLimits
from worldmodel.apps.realtime.loop import LoopSettings, RealtimeLoop
from worldmodel.apps.realtime.planning import BackgroundPlanner
from worldmodel.apps.realtime.robot import RobotInterface, Sighting
from worldmodel.apps.realtime.simulated import SimulatedRobot
from worldmodel.apps.realtime.source import ControlSource
from worldmodel.apps.trained import open_run
from worldmodel.errors import ConfigError, RunError
from worldmodel.model import LatentModel, WorldModelSize

PERIOD_S = 0.06  # long, since the machine that tests may be busy
ENV = {"action_repeat": 1, "observe": ["state"], "image_size": 64, "factors": {}}


def told_at(step):
    """The action that the counting planner means for a step."""
    return 0.001 * step


class CountingAgent:
    """Plans actions that say for which step they are."""

    def __init__(self, horizon, takes_s):
        self._horizon, self._takes_s = horizon, takes_s

    def reset(self):
        self.starts = []

    def plan_from(self, step, size, *, num_steps_on, deadline):
        assert self.starts == [] or step == self.starts[-1] + num_steps_on
        self.starts.append(step)
        time.sleep(self._takes_s)
        actions = torch.tensor([[told_at(step + index)] for index in range(self._horizon)])
        return SimpleNamespace(actions=actions[None], num_iterations=1)


class StepBelief:
    """Knows which step it is asked about, and that nothing is missing of what was done until then."""

    def reset(self, seed):
        self.first = None

    def see(self, sighting, actions):
        assert sighting.step == 0 or sighting.step - 1 in actions
        self.first = sighting.step

    def outlook(self, step, actions):
        assert set(range(self.first, step)) <= actions.keys()
        return step


@dataclass(frozen=True)
class Counting:
    """Where they come from."""

    horizon: int = 10
    takes_s: float = 0.0

    def build(self):
        return CountingAgent(self.horizon, self.takes_s), StepBelief()


@dataclass(frozen=True)
class Failing:
    """A planner that cannot be made."""

    def build(self):
        raise ConfigError("no such planner")


def lived(counting=None, robot_faults=None, seed=3, **settings):
    """One episode of the point with a planner that counts, in a thread."""
    faults = Faults(**(robot_faults or {}))
    robot = SimulatedRobot(
        toy_tasks.POINT, ENV, control_period_s=PERIOD_S, seeds=[seed], faults=faults, watchdog_s=60.0
    )
    try:
        limits = settings.pop("limits", ActionLimits(robot.low, robot.high))
        planner = BackgroundPlanner(counting or Counting(), "thread")
        try:
            loop = RealtimeLoop(robot, planner, LoopSettings(limits=limits, margin_s=0.02, **settings))
            log = loop.live(seed)
        finally:
            planner.close()
        return robot.lived, log
    finally:
        robot.close()


def share_in_step(episode):
    """Of the steps in which the robot did what was meant for just that step."""
    done = np.array(episode.actions)[:, 0]
    return np.isclose(done, told_at(np.arange(len(done))), atol=1e-5).mean()


def kinds(log):
    return [told.kind for told in log.told]


def test_an_action_takes_effect_in_the_step_that_it_was_planned_for():
    episode, log = lived()
    assert len(episode.actions) == toy_tasks.POINT_STEPS
    assert share_in_step(episode) > 0.5  # a busy machine may miss ticks; one step off would be none
    assert kinds(log).count("fresh") > 0.4 * toy_tasks.POINT_STEPS


def test_also_with_a_planner_that_is_slower_than_the_robot():
    episode, log = lived(counting=Counting(takes_s=1.2 * PERIOD_S), lead_steps=2)
    assert share_in_step(episode) > 0.5
    assert "earlier" in kinds(log)  # every second step is one that no plan was made for


def test_also_with_actuators_that_take_their_time():
    delay_s = 1.5 * PERIOD_S
    episode, _ = lived(robot_faults={"action_delay_s": delay_s}, action_delay_s=delay_s)
    assert share_in_step(episode) > 0.5
    unplanned, _ = lived(robot_faults={"action_delay_s": delay_s})
    assert share_in_step(unplanned) < 0.3


def test_also_with_observations_that_come_late_or_never():
    episode, log = lived(
        robot_faults={"observation_delay_s": 0.3 * PERIOD_S, "dropped_share": 0.3, "late_share": 0.2}
    )
    assert share_in_step(episode) > 0.5
    assert log.num_seen < toy_tasks.POINT_STEPS - 1
    assert "blind" in kinds(log)


def test_a_late_plan_is_counted_and_the_last_one_played_on():
    episode, log = lived(stall_s=0.25, stall_every_s=0.5)
    assert log.num_stalls >= 1
    assert kinds(log).count("missed") >= 3 * log.num_stalls
    assert share_in_step(episode) > 0.5  # the last plan knew what to do
    assert len(episode.actions) == toy_tasks.POINT_STEPS


def test_where_a_plan_ends_the_robot_rests():
    episode, log = lived(counting=Counting(horizon=2), stall_s=0.3, stall_every_s=0.5)
    missed = [told.action[0] for told in log.told if told.kind == "missed"]
    assert 0.0 in missed
    assert len(episode.actions) == toy_tasks.POINT_STEPS


@pytest.mark.parametrize(("on_miss", "expected"), [("hold", "before"), ("zero", "rest")])
def test_what_is_done_without_a_plan_is_as_declared(on_miss, expected):
    _, log = lived(stall_s=0.25, stall_every_s=0.5, on_miss=on_miss)
    for before, now in zip(log.told, log.told[1:], strict=False):
        if now.kind == "missed":
            assert now.action == pytest.approx(before.action if expected == "before" else 0.0)


def test_the_robot_can_be_stopped_by_a_late_plan():
    episode, log = lived(stall_s=0.25, stall_every_s=0.5, on_miss="stop")
    assert log.was_stopped
    assert len(episode.actions) == toy_tasks.POINT_STEPS
    assert (np.array(episode.actions)[-5:] == 0).all()
    assert max(told.step for told in log.told) < toy_tasks.POINT_STEPS


class Unwatched:
    """A robot that goes on while its loop sleeps: it is seen next five ticks after its start.

    It is over when it was told nine times, and a plan was made after the first.
    """

    control_period_s, low, high = 0.01, -np.ones(1), np.ones(1)

    def __init__(self):
        self.readable, self._sensor = multiprocessing.Pipe()
        self.told = []

    @property
    def is_over(self):
        return len(self.told) > 8 and bool(self.loop._log.plans)

    def start(self):
        self._step, self._began_s = 0, time.monotonic()
        return self._seen()

    def read(self):
        if self._step > 0:
            return None
        self._step = 5
        time.sleep(5 * self.control_period_s)
        return self._seen()

    def send(self, action):
        self.told.append(action)

    def stop(self):
        pass

    def close(self):
        pass

    def _seen(self):
        time_s = self._began_s + self._step * self.control_period_s
        return Sighting(step=self._step, time_s=time_s, observation={})


def test_a_loop_that_was_late_itself_catches_up():
    robot, planner = Unwatched(), BackgroundPlanner(Counting(), "thread")
    try:
        limits = ActionLimits(robot.low, robot.high)
        robot.loop = RealtimeLoop(robot, planner, LoopSettings(limits=limits))
        log = robot.loop.live(0)
    finally:
        planner.close()
    assert [told.step for told in log.told] == list(range(len(log.told)))
    assert log.plans[0].start_step >= 5


def test_limits_are_the_last_word():
    limits = ActionLimits(np.array([-1.0]), np.array([1.0]), reach=0.5, max_rate=np.array([0.01]))
    episode, _ = lived(limits=limits)
    steps = np.abs(np.diff(np.array(episode.actions)[:, 0]))
    assert steps.max() <= 0.01 * PERIOD_S + 1e-6


def test_commands_are_clipped_and_slowed_in_the_actuators_units():
    limits = ActionLimits(np.array([0.0, -10.0]), np.array([4.0, 10.0]), 0.5, np.array([1.0, 100.0]))
    assert limits.to_units(np.array([-1.0, 0.5])) == pytest.approx([0.0, 5.0])
    assert limits.from_units(np.array([4.0, 0.0])) == pytest.approx([1.0, 0.0])
    command = limits.apply(np.array([1.0, 1.0]), np.array([2.0, 0.0]), period_s=0.1)
    assert command == pytest.approx([2.1, 5.0])  # the first by its rate, the second by its reach
    assert limits.apply(np.array([np.nan, 0.0]), np.array([2.0, 1.0]), 0.1) == pytest.approx([2.0, 0.0])


def test_a_simulated_robot_is_a_robot_and_has_a_watchdog():
    robot = SimulatedRobot(
        toy_tasks.POINT, ENV, control_period_s=0.03, seeds=[1, 2], faults=Faults(), watchdog_s=0.2
    )
    try:
        assert isinstance(robot, RobotInterface)
        first = robot.start()
        assert first.step == 0
        robot.send(np.array([0.5]))
        while not robot.is_over:
            robot.read()
            time.sleep(0.01)
        done = np.array(robot.lived.actions)[:, 0]
        assert done[0] == 0.5
        assert (done[10:] == 0).all()
        again = robot.start()  # another seed, another start; it listens again
        assert not np.array_equal(again.observation["state"], first.observation["state"])
        robot.send(np.array([0.25]))
        robot.stop()
        while not robot.is_over:
            robot.read()
            time.sleep(0.01)
        assert (np.array(robot.lived.actions)[1:] == 0).all()
    finally:
        robot.close()


def test_a_goal_counts_in_its_time_alone(monkeypatch):
    """A pose of reacher is to be reached in 2 s of its 20."""
    asked = []
    monkeypatch.setattr(envs, "is_solved", lambda env: asked.append(env) or False)
    ours, theirs = multiprocessing.Pipe()
    env = {**ENV, "action_repeat": 5}
    body = Body("reacher-easy", env, period_s=1e-4, seeds=[1], faults=Faults(), watchdog_s=1.0, camera=None)
    for message in (("start", None), ("do", np.zeros(2, np.float32))):
        ours.send(message)
    thread = threading.Thread(target=live_episodes, args=(theirs, body))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # which threads may not call
    thread.start()
    kind, content = ours.recv()
    while kind != "lived":
        kind, content = ours.recv()
    ours.send(("close", None))
    thread.join()
    assert len(content.actions) == 200
    assert len(asked) == 2.0 / 0.02 / 5


def test_a_robot_whose_process_is_gone_says_so():
    robot = SimulatedRobot(toy_tasks.POINT, ENV, control_period_s=0.03, seeds=[1])
    robot._process.kill()
    robot._process.join()
    with pytest.raises(RunError, match="robot's process ended"):
        robot.start()
    robot.close()
    with pytest.raises(envs.EnvError, match="There is no task"):
        SimulatedRobot("cartpole-swinging", ENV, control_period_s=0.03, seeds=[1])


def test_a_planner_that_cannot_be_made_says_why():
    for where in ("thread", "process"):
        with pytest.raises(ConfigError, match="no such planner"):
            BackgroundPlanner(Failing(), where)


def small_model(history=2):
    torch.manual_seed(0)
    size = WorldModelSize(
        state_dim=3, action_dim=1, latent_dim=8, hidden_dim=16, encoder_dim=16, history=history,
        latent_norm="none", predicts_return=False,
    )  # fmt: skip
    return LatentModel(size).requires_grad_(False)


class Showing(ImaginingForesight):
    """Shows, in place of scores, from where it is asked to look."""

    def outlook_from(self, latent):
        return self._look(latent)

    def _look(self, latent):
        return Outlook(score=lambda candidates: latent)


def sighting(step):
    state = np.random.default_rng(step).normal(size=3).astype(np.float32)
    return Sighting(step=step, time_s=0.0, observation={"state": state})


def test_what_was_not_seen_is_imagined_and_so_is_what_is_to_come():
    model = small_model()
    belief = LatentBelief(Showing(model))
    actions = {step: np.array([0.1 * step], np.float32) for step in range(6)}

    def action(step):
        return torch.from_numpy(actions[step])[None]

    def embedding(step):
        return model.embed({"state": torch.from_numpy(sighting(step).observation["state"])[None]})

    belief.reset(0)
    belief.see(sighting(0), actions)
    latent = model.layout.start(embedding(0))
    belief.see(sighting(2), actions)  # 1 was lost
    latent = model.layout.advance(model.step(latent, action(0)), action(1), embedding(2))
    belief.see(sighting(1), actions)  # late, and nothing new
    for step in (2, 3, 4):
        latent = model.step(latent, action(step))
    assert torch.equal(belief.outlook(5, actions).score(None), latent)


def test_the_oracle_plans_from_where_the_robot_will_be():
    env = build_env("cartpole-swingup", ENV, num_envs=1, seed=5, how="sync")
    own = build_env("cartpole-swingup", ENV, num_envs=1, seed=9, how="sync")
    try:
        env.reset(seed=[7])
        belief = PhysicsBelief(own, OracleForesight(own))
        belief.reset(7)
        state = env.physics_states()[0]
        actions = {0: np.array([0.5], np.float32), 1: np.array([-1.0], np.float32)}
        belief.see(Sighting(step=0, time_s=0.0, observation={}, physics_state=state), actions)
        belief.outlook(2, actions)
        for step in (0, 1):
            env.step(actions[step][None])
        assert np.array_equal(own.physics_states()[0], env.physics_states()[0])
    finally:
        env.close()
        own.close()


@pytest.fixture(scope="module")
def stalled(point_run, tmp_path_factory):
    """`control realtime=true` of a planner that hangs for 200 ms once in half a second."""
    output = tmp_path_factory.mktemp("stalled")
    arguments = [
        f"checkpoint={point_run}", f"task={toy_tasks.POINT}", "realtime=true", f"loop.period_s={PERIOD_S}",
        "faults.stall_s=0.2", "faults.stall_every_s=0.5", "episodes=2", "video=false", f"output={output}",
    ]  # fmt: skip
    assert main(["control", *arguments]) == 0
    return output


def test_a_stall_of_200_ms_is_survived_counted_and_shown(stalled, point_run, capsys):
    result = json.loads((stalled / "control.json").read_text())
    clock = result["realtime"]
    assert clock["num_stalls"] >= 2
    assert clock["num_missed"] >= 2 * clock["num_stalls"]
    assert clock["longest_miss_steps"] >= 2
    assert clock["num_steps"] >= 2 * toy_tasks.POINT_STEPS
    assert sum(clock["share"].values()) == pytest.approx(1.0)
    assert len(result["returns"]) == 2
    assert (stalled / "realtime.png").stat().st_size > 5000


def test_an_episode_in_real_time_is_shown(tmp_path, capsys):
    arguments = [
        "model=oracle", "task=tworoom", "env.action_repeat=5", "realtime=true", "episodes=1",
        "loop.period_s=0.1",
        "planner.num_candidates=8", "planner.num_elites=2", "planner.num_iterations=1", "planner.horizon=3",
        f"output={tmp_path}",
    ]  # fmt: skip
    assert main(["control", *arguments]) == 0
    out = capsys.readouterr().out
    assert "latency  p50" in out
    assert "solved" in out
    assert (tmp_path / "control.mp4").stat().st_size > 10_000
    assert json.loads((tmp_path / "control.json").read_text())["success"]["count"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("agent=random", "realtime=true is for planners"),
        ("loop.on_miss=pray", "loop.on_miss=pray: there is no such way"),
        ("loop.background=proces", "did you mean process"),
        ("loop.lead_steps=0", "must be at least 1"),
        ("loop.watchdog_s=0", "must be above 0 seconds"),
        ("loop.period_s=-1", "must be at least 0 seconds"),
        ("loop.max_rate=[1,2,3]", "give one for all actuators"),
        ("loop.max_rate=[0]", "must be above 0"),
        ("loop.reach=0", "must be above 0 and at most 1"),
        ("faults.dropped_share=1", "must be at least 0 and below 1"),
        ("faults.stall_s=2", "must be longer than a stall"),
        ("video=true", "give video=false"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_robot_starts(
    given, said, point_run, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr("worldmodel.apps.realtime.run.SimulatedRobot", None)
    base = [f"checkpoint={point_run}", f"task={toy_tasks.POINT}", f"output={tmp_path / 'out'}"]
    assert said in refused("control", *base, "realtime=true", "video=false", given)


def test_a_learned_value_for_the_oracle_is_refused_in_real_time(point_run, refused):
    base = [f"checkpoint={point_run}", f"task={toy_tasks.POINT}", "model=oracle"]
    said = refused("control", *base, "realtime=true", "video=false")
    assert "leave checkpoint= out" in said


def test_the_source_of_a_planner_makes_what_control_would_have(point_run):
    config = to_dict(compose_config("control", [f"checkpoint={point_run}", f"task={toy_tasks.POINT}"]))
    run = open_run(point_run, task=toy_tasks.POINT)
    agent, belief = ControlSource(config).build()
    belief.reset(1)
    state = np.array([0.3, -0.2], np.float32)
    belief.see(Sighting(step=0, time_s=0.0, observation={"state": state}), {})
    plan = agent.plan_from(belief.outlook(0, {}), 1)
    expected = run.planning_agent(seed=config["seed"])
    expected.act({"state": state[None]})
    assert torch.equal(plan.actions, expected.plan.actions)
