"""Sessions of the cockpit, without a page: what is done to a robot and its planner, and what is seen."""

import time

import numpy as np
import pytest
import torch

import envs
from worldmodel.apps.cockpit.choices import ORACLE, chosen, model_of, models
from worldmodel.apps.cockpit.errors import FAR_STEPS
from worldmodel.apps.cockpit.history import COLUMNS, History
from worldmodel.apps.cockpit.kinematics import Kinematics, find_point
from worldmodel.apps.cockpit.loop import Loop
from worldmodel.apps.cockpit.pose import PoseFeatures
from worldmodel.apps.cockpit.session import Session
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.apps.verbs import VERBS
from worldmodel.errors import CheckpointError, ConfigError

SMALL = ("planner.horizon=8", "planner.num_candidates=16", "planner.num_iterations=2", "planner.num_elites=4")
ORACLE_REACHER = ("model=oracle", "task=reacher-easy", "env.action_repeat=4", *SMALL)


def view_config(*words):
    return to_dict(compose_config("view", [*VERBS["view"].implied(words), *words]))


@pytest.fixture(scope="module")
def opened():
    """A learned model's session and a simulator's, which tests find at the start of an episode, as usual."""
    sessions = {
        "learned": Session(view_config("checkpoint=pretrained/cartpole-swingup")),
        "oracle": Session(view_config(*ORACLE_REACHER)),
    }
    yield sessions
    for session in sessions.values():
        session.close()


def as_usual(session):
    for name in session.live.factors:
        session.turn_factor(name, 1.0)
    session.pilot._take(session.subject.planner_config, {})
    session.hand.choose(session.hand.bodies[0])
    session.reset(seed=7)
    return session


@pytest.fixture
def learned(opened):
    return as_usual(opened["learned"])


@pytest.fixture
def oracle(opened):
    return as_usual(opened["oracle"])


def steps(session, count):
    return [session.step() for _ in range(count)]


def test_a_step_does_what_was_decided_and_decides_again(learned):
    first = learned.moment
    second = learned.step()
    assert (first.step, second.step, second.time_s) == (0, 1, pytest.approx(learned.period_s))
    assert second.episode_return == pytest.approx(second.reward)
    assert not np.array_equal(first.bodies.positions, second.bodies.positions)
    assert second.plan is not first.plan
    assert second.decision_s > 0


def test_the_same_seed_gives_the_same_episode_whatever_was_before(learned):
    before = steps(learned, 5)[-1]
    as_usual(learned)
    np.testing.assert_array_equal(steps(learned, 5)[-1].bodies.positions, before.bodies.positions)


def test_an_episode_that_ends_is_followed_by_another(oracle):
    for name, value in (("num_candidates", 4), ("num_iterations", 1), ("horizon", 2)):
        oracle.turn_planner(name, value)
    moments = [oracle.moment]
    while not moments[-1].is_over:
        moments.append(oracle.step())
    assert len(moments) == 251  # of 1000 env steps, four for each action
    assert oracle.returns[-1] == pytest.approx(moments[-1].episode_return)
    following = oracle.step()
    assert (following.step, following.episode) == (0, moments[-1].episode + 1)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_push_moves_the_robot_its_way_and_ends(learned, sign):
    usual = steps(learned, 6)[-1].bodies.positions[1, 0]
    as_usual(learned)
    learned.push(np.array([sign * 30.0, 0.0, 0.0]), duration_s=3 * learned.period_s)
    pushed = steps(learned, 6)
    assert [float(moment.force[0]) for moment in pushed] == [sign * 30.0] * 3 + [0.0] * 3
    assert sign * (pushed[-1].bodies.positions[1, 0] - usual) > 0.02
    assert not learned.simulation.data.xfrc_applied.any()


def test_a_pull_leads_the_robot_to_where_it_is_dragged(oracle):
    oracle.live.set("gravity", 0.0)
    target = oracle.hand.place + np.array([0.05, 0.05, 0.0])
    before = np.linalg.norm(oracle.hand.place - target)
    oracle.hand.pull(target)
    assert any(moment.force.any() for moment in steps(oracle, 3))
    assert np.linalg.norm(oracle.hand.place - target) != before
    oracle.hand.release()
    assert not oracle.step().force.any()


def test_gravity_that_no_model_has_seen_surprises_it(learned):
    def mean_of(moments, of):
        return np.mean([of(moment) for moment in moments[1:]])

    usual = steps(learned, 40)
    as_usual(learned)
    learned.turn_factor("gravity", 3.0)
    heavy = steps(learned, 40)
    assert mean_of(heavy, lambda moment: moment.signals["surprise"]) > 3 * mean_of(
        usual, lambda moment: moment.signals["surprise"]
    )
    assert mean_of(heavy, lambda moment: moment.errors[1]) > 1.5 * mean_of(
        usual, lambda moment: moment.errors[1]
    )
    assert max(moment.level for moment in heavy) > max(moment.level for moment in usual)


def test_errors_are_told_of_one_step_and_of_several(learned):
    moments = [learned.moment, *steps(learned, FAR_STEPS)]
    assert [sorted(moment.errors) for moment in moments] == [[]] + [[1]] * (FAR_STEPS - 1) + [[1, FAR_STEPS]]
    assert moments[-1].errors[1] < 0.5  # of a standard deviation: it has been trained for this


def test_the_simulator_errs_where_it_is_pushed_alone(oracle):
    assert [moment.errors[1] for moment in steps(oracle, 3)] == [0.0] * 3
    oracle.push(np.array([0.5, 0.5, 0.0]), duration_s=oracle.period_s)
    assert oracle.step().errors[1] > 0
    assert oracle.step().errors[1] == 0.0


# A pole that hangs, and a target that is reached: there is one thing to do, and every plan does it.
@pytest.mark.parametrize(("who", "num_steps"), [("learned", 50), ("oracle", 3)])
def test_a_knob_changes_the_plan_at_once_and_moves_nothing(opened, who, num_steps):
    session = as_usual(opened[who])
    steps(session, num_steps)
    before = session.moment
    after = session.turn_planner("num_candidates", 64 if who == "oracle" else 200)
    assert after.plan.num_evaluations > before.plan.num_evaluations
    assert not torch.equal(after.plan.elites, before.plan.elites)
    np.testing.assert_array_equal(after.bodies.positions, before.bodies.positions)
    assert session.turn_planner("horizon", 5).plan.actions.shape[1] == 5
    assert session.turn_planner("num_iterations", 1).plan.num_iterations == 1


def test_the_same_knobs_give_the_same_plan_again(learned):
    steps(learned, 3)
    plans = [learned.turn_planner("num_candidates", 100).plan.actions for _ in range(2)]
    torch.testing.assert_close(*plans, rtol=0, atol=0)


def test_temperature_is_turned_where_the_planner_has_one(learned):
    steps(learned, 120)  # the pole stands: while it swings, all elites push as hard as they can
    even, sharp = (learned.turn_planner("temperature", value).plan for value in (5.0, 0.02))
    assert even.effective_sample_size[0] > sharp.effective_sample_size[0]


def test_few_candidates_leave_room_for_as_many_elites_and_proposals(learned):
    learned.turn_planner("num_candidates", 4)
    assert (learned.planner_config["num_elites"], learned.planner_config["num_proposals"]) == (4, 2)
    learned.turn_planner("num_candidates", 64)
    assert learned.planner_config == learned.subject.planner_config


def test_another_planner_keeps_the_knobs(learned):
    learned.turn_planner("num_candidates", 40)
    moment = learned.choose_planner("cem")
    assert (learned.planner_config["name"], learned.planner_config["num_candidates"]) == ("cem", 40)
    assert moment.plan.num_evaluations == 40 * learned.planner_config["num_iterations"]


def test_a_planner_for_the_simulator_looks_as_far_as_it_must(oracle):
    oracle.choose_planner("cem")
    assert oracle.planner_config["horizon"] == 30


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda session: session.turn_planner("candidates", 3), "num_candidates"),
        (lambda session: session.turn_planner("horizon", 0), "horizon=0: must be from 1"),
        (lambda session: session.choose_planner("cme"), "did you mean cem"),
        (lambda session: session.choose_planner("gradient"), "no planner 'gradient'"),
        (lambda session: session.turn_factor("gravity", -1), "gravity=-1"),
        (lambda session: session.hand.choose("wheel"), "Known: cart"),
        (lambda session: session.push(np.zeros(2), 0.1), "3 finite numbers"),
        (lambda session: session.push(np.zeros(3), 0.0), "more than 0 seconds"),
        (lambda session: session.follow("wheel"), "no such body or site"),
        (lambda session: session.move_goal(np.zeros(2)), "no goal"),
    ],
)
def test_a_mistake_is_told_and_leaves_all_as_it_was(learned, act, told):
    before, config = learned.moment, learned.planner_config
    with pytest.raises((ConfigError, envs.EnvError), match=told):
        act(learned)
    assert learned.moment is before
    assert learned.planner_config == config
    assert learned.step().step == 1


@pytest.mark.parametrize("who", ["learned", "oracle"])
def test_futures_begin_where_the_robot_is(opened, who):
    session = as_usual(opened[who])
    steps(session, 3)
    futures = session.foresee(3)
    paths = futures.bodies.place(session.trail)
    num_steps = 8 if who == "oracle" else session.subject.config["steps_shown"]
    assert paths.shape == (3, num_steps + 1, 3)
    assert futures.num_planned == session.planner_config["horizon"]
    np.testing.assert_allclose(
        paths[:, 0], np.tile(session.moment.bodies.place(session.trail), (3, 1)), atol=1e-9
    )
    assert list(futures.returns) == sorted(futures.returns, reverse=True)


def test_the_simulators_futures_come_true(oracle):
    steps(oracle, 3)
    imagined = oracle.foresee(1).bodies[0, 1]
    np.testing.assert_allclose(oracle.step().bodies.positions, imagined.positions, atol=1e-9)


def test_a_learned_models_futures_nearly_come_true(learned):
    """The tip of the pole, a step of 20 ms later: read out of a latent of 64 numbers."""
    misses, moves = [], []
    for _ in range(30):
        imagined = learned.foresee(1).bodies.place(learned.trail)[0, 1]
        before = learned.moment.bodies.place(learned.trail)
        after = learned.step().bodies.place(learned.trail)
        misses.append(np.linalg.norm(imagined - after))
        moves.append(np.linalg.norm(after - before))
    assert np.mean(misses) < 0.4 * np.mean(moves)


def test_more_steps_are_imagined_where_they_are_asked_for(learned):
    learned.show_steps(30)
    assert learned.foresee(2).bodies.positions.shape[:2] == (2, 31)
    learned.show_steps(15)


def test_what_is_read_out_of_a_latent_is_told(learned, oracle):
    assert "2 of 2 joint coordinates (R2 0.9" in learned.ordinary.told or "R2 1.0" in learned.ordinary.told
    assert "exact" in oracle.ordinary.told


def test_the_target_of_a_task_is_moved_and_the_plan_follows(oracle):
    place = oracle.moment.goal.place
    plan = oracle.moment.plan
    moment = oracle.drag_goal(np.array([-place[0], -place[1], 0.3]))
    np.testing.assert_allclose(moment.goal.place[:2], -place[:2])
    assert not torch.equal(moment.plan.elite_returns, plan.elite_returns) or not torch.equal(
        moment.plan.mean, plan.mean
    )
    np.testing.assert_allclose(oracle.goal.numbers(), -place[:2])
    assert oracle.moment.goal.pose is None
    oracle.reset(seed=7)
    np.testing.assert_allclose(oracle.moment.goal.place, place)


def test_the_goal_of_our_own_task_is_moved_with_its_pose():
    session = Session(view_config("model=oracle", "task=tworoom", "env.action_repeat=3", *SMALL))
    try:
        moment = session.move_goal(session.goal.numbers() + 0.05)
        np.testing.assert_allclose(moment.goal.place[:2], session.goal.numbers())
        reached = moment.goal.pose.place(find_point(session.simulation, session.hand.bodies[0]))
        np.testing.assert_allclose(reached[:2], session.goal.numbers(), atol=1e-6)
    finally:
        session.close()


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        ((), ConfigError, "checkpoint= is missing"),
        (("model=oracle",), ConfigError, "task= is missing"),
        (("model=oracle", "task=quadruped-walk"), envs.EnvError, "no batched observation and reward"),
        (("checkpoint=pretrained/cheetah",), CheckpointError, "did you mean cheetah-run"),
        ((*ORACLE_REACHER, "trail=hand2"), ConfigError, "trail=hand2.*did you mean hand"),
        ((*ORACLE_REACHER, "steps_shown=0"), ConfigError, "steps_shown=0: must be at least 1"),
    ],
)
def test_a_session_that_cannot_be_is_refused_before_anything_is_played(words, error, told):
    def nobody_plays(done, total):
        raise AssertionError("episodes were played")

    with pytest.raises(error, match=told):
        Session(view_config(*words), nobody_plays)


def test_poses_are_found_again_from_their_features():
    """A humanoid falls: a free joint, hinges; angles that wind up are found as they turn."""
    env = envs.make("humanoid-stand", seed=1)
    env.reset()
    data, model = env.simulation.data, env.simulation.model
    features, rows = PoseFeatures(model), []
    for _ in range(20):
        rows.append((data.qpos.copy(), data.qvel.copy()))
        env.step(np.ones(env.action_space.shape))
    qpos, qvel = (np.array(column) for column in zip(*rows, strict=True))
    seen = features(qpos, qvel)
    assert seen.shape == (20, features.dim + model.nv)
    known = ["position"] * len(features.parts)
    found = features.positions(seen, known, qpos[0], qvel[0], 0.025)
    np.testing.assert_allclose(found[:, 7:], qpos[:, 7:], atol=1e-6)
    np.testing.assert_allclose(found[:, :3], qpos[:, :3], atol=1e-6)
    np.testing.assert_allclose(np.abs((found[:, 3:7] * qpos[:, 3:7]).sum(1)), 1.0, atol=1e-6)


def test_where_a_position_is_not_known_its_velocity_is_summed():
    env = envs.make("cheetah-run", seed=1)
    env.reset()
    data = env.simulation.data
    features, rows = PoseFeatures(env.simulation.model), []
    for _ in range(10):
        rows.append((data.qpos.copy(), data.qvel.copy()))
        env.step(np.full(6, 0.5))
    qpos, qvel = (np.array(column) for column in zip(*rows, strict=True))
    r2 = np.ones(features.dim + env.simulation.model.nv)
    r2[features.parts[0].features] = 0.0  # how far it has come
    known = features.known(r2)
    assert known == ["velocity"] + ["position"] * 8
    seen = features(qpos, qvel)
    seen[:, features.parts[0].features] = 1e3  # whatever is read there
    found = features.positions(seen, known, qpos[0], qvel[0], env.control_period_s)
    assert np.ptp(qpos[:, 0]) > 0.05
    np.testing.assert_allclose(found[:, 0], qpos[:, 0], atol=6e-3)
    np.testing.assert_allclose(found[:, 1:], qpos[:, 1:], atol=1e-6)
    r2[features.dim] = 0.0  # nor how fast it is
    assert features.known(r2)[0] == "nothing"
    assert (features.positions(seen, features.known(r2), qpos[0], qvel[0], 0.01)[:, 0] == qpos[0, 0]).all()


def test_bodies_are_where_mujoco_has_them_and_nowhere_for_what_diverged():
    env = envs.make("reacher-easy", seed=0)
    env.reset()
    kinematics, now = Kinematics(env.simulation), env.simulation.data
    poses = np.stack([now.qpos, np.full(2, np.nan)])
    bodies = kinematics.bodies(poses)
    np.testing.assert_allclose(bodies.positions[0], now.xpos, atol=1e-12)
    assert np.isnan(bodies.positions[1]).all()
    tip = find_point(env.simulation, None)
    np.testing.assert_allclose(bodies[0].place(tip)[:2], now.geom("finger").xpos[:2], atol=0.02)


def test_the_history_keeps_a_row_for_each_moment(learned):
    history = History()
    for moment in steps(learned, 4):
        history.add(moment, learned.period_s)
    assert len(history) == 4
    for name in COLUMNS:
        assert np.isfinite(history.column(name)).all()
    np.testing.assert_array_equal(history.column("step"), range(4))
    assert (history.column("elite_best") >= history.column("elite_mean") - 1e-4).all()  # to rounding
    np.testing.assert_allclose(history.column("period_ms"), learned.period_s * 1e3)


def test_models_are_those_of_the_package_and_run_folders(tmp_path, point_run, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run").symlink_to(point_run)
    found = models(tmp_path)
    assert found[0] == ORACLE
    assert "pretrained/cheetah-run" in found
    assert found[-1] == str(tmp_path / "deep" / "run")


def test_another_model_is_chosen_with_the_page_as_it_is():
    config = view_config(*ORACLE_REACHER, "port=9", "seed=5", "trail=finger")
    other = chosen(config, "pretrained/cheetah-run", "ignored")
    assert (model_of(config), model_of(other)) == (ORACLE, "pretrained/cheetah-run")
    assert (other["checkpoint"], other["task"], other.get("planner")) == (
        "pretrained/cheetah-run",
        None,
        None,
    )
    assert (other["port"], other["seed"], other["trail"]) == (9, 5, None)
    back = chosen(other, ORACLE, "cheetah-run")
    assert (back["task"], back["planner"]["name"], back["planner"]["horizon"]) == ("cheetah-run", "icem", 30)


@pytest.fixture
def loop(tmp_path):
    told = []
    loop = Loop(lambda *news: told.append(news), is_playing=False, output=tmp_path)
    loop.told = told
    loop.start(view_config(*ORACLE_REACHER), lambda done, total: None)
    yield loop
    loop.close()


def test_a_loop_steps_when_it_is_told_and_by_itself_when_it_plays(loop):
    loop.wait()
    assert loop.frame.moment.step == 0
    loop.step()
    loop.step()
    loop.wait()
    assert (loop.frame.moment.step, loop.frame.before.step) == (2, 1)
    loop.is_playing = True
    deadline = time.monotonic() + 30
    while loop.frame.moment.step < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    loop.is_playing = False
    loop.wait()
    still = loop.frame.moment.step
    assert still >= 6
    loop.wait()
    assert loop.frame.moment.step == still


def test_a_loops_commands_show_what_they_make_of_the_moment(loop):
    loop.wait()
    before = loop.frame
    loop.do(lambda session: session.turn_planner("num_candidates", 40))
    loop.wait()
    assert loop.frame.moment.step == before.moment.step
    assert loop.frame.moment.plan is not before.moment.plan
    assert loop.frame.futures is not before.futures


def test_a_mistake_is_told_and_the_loop_goes_on(loop):
    loop.do(lambda session: session.turn_factor("gravity", 99))
    loop.step()
    loop.wait()
    assert [(title, is_mistake) for title, _, is_mistake in loop.told] == [("That does not work", True)]
    assert loop.frame.moment.step == 1


def test_another_session_takes_the_place_and_one_that_cannot_be_does_not(loop):
    loop.wait()
    first = loop.frame.session
    loop.open(view_config("model=oracle", "task=reacher-easy", "trail=nothing"), lambda done, total: None)
    loop.wait()
    assert loop.frame.session is first
    assert "trail=nothing" in loop.told[-1][1]
    words = ("model=oracle", "task=pendulum-swingup", "env.action_repeat=4", *SMALL)
    loop.open(view_config(*words), lambda done, total: None)
    loop.wait()
    assert loop.frame.session.task == "pendulum-swingup"
    assert len(loop.history) == 1


def test_a_loop_that_cannot_begin_raises_why():
    loop = Loop(lambda *news: None)
    with pytest.raises(ConfigError, match="task= is missing"):
        loop.start(view_config("model=oracle"), lambda done, total: None)


def test_what_the_robot_does_is_recorded(loop, tmp_path):
    loop.record()
    for _ in range(3):
        loop.step()
    loop.wait()
    if any("needs pictures" in text for _, text, _ in loop.told):
        pytest.skip("nothing here can draw")
    assert loop.is_recording
    loop.record()
    loop.wait()
    assert not loop.is_recording
    (path,) = tmp_path.glob("reacher-easy-*.mp4")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("host=0.0.0.0",), "no password"),
        (("port=70000",), "at most 65535"),
        (("speed=9",), "speed=9.0: must be at least 0.05"),
        (("updates_per_s=0",), "updates_per_s"),
        (("task=cheetah-run",), "checkpoint= is missing"),
    ],
)
def test_a_page_that_cannot_be_is_refused(refused, words, told):
    assert told in refused("view", *words, *(() if words[0].startswith("task") else ORACLE_REACHER))


def test_what_is_missing_is_named_with_the_command_that_installs_it(refused, monkeypatch):
    monkeypatch.setattr("worldmodel.apps.cockpit.find_spec", lambda name: None)
    assert "view needs viser and mjviser: pip install 'worldmodel[view]'" in refused("view", *ORACLE_REACHER)


def test_a_port_that_is_taken_is_told(refused):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port={port}" in refused("view", *ORACLE_REACHER, f"port={port}")
