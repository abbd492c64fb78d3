"""The cockpit's page: its scene and controls on a server of its own, and in a browser."""

import asyncio
import gc
import re
import shutil
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import viser
import websockets
import websockets.sync.client
from processes import end, start
from test_apps_cockpit import ORACLE_REACHER, SMALL, view_config

from worldmodel.apps.cockpit.future_scene import ghost_steps, trail_colours
from worldmodel.apps.cockpit.loop import Loop
from worldmodel.apps.cockpit.page import Page
from worldmodel.apps.cockpit.session import Session
from worldmodel.apps.cockpit.view import view
from worldmodel.apps.cockpit.viewpoint import Viewpoint, travelling_body

ORACLE_CHEETAH = ("model=oracle", "task=cheetah-run", "env.action_repeat=4", *SMALL)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def server():
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield server
    server.stop()


@contextmanager
def shown(server, *words):
    """A page of a paused loop."""
    told = []
    loop = Loop(lambda *news: told.append(news), is_playing=False)
    loop.start(view_config(*words), lambda done, total: None)
    try:
        page = Page(server, loop, view_config(*words))
        page.update()
        yield page, loop, told
    finally:
        loop.close()


def nodes(server):
    """The scene's nodes by name."""
    return dict(server.scene._handle_from_node_name)


def controls(server):
    """The controls by label."""
    handles = server.gui._gui_input_handle_from_uuid.values()
    return {handle.label: handle for handle in handles if hasattr(handle, "label")}


def by_a_person(handle, value):
    """What a page sends when somebody changes a control."""
    handle._impl.value = value
    for act in handle._impl.update_cb:
        act(SimpleNamespace(client=object(), client_id=0, target=handle))


def test_the_scene_shows_the_robot_where_it_is_and_its_futures_beside_it(server):
    with shown(server, *ORACLE_CHEETAH) as (page, loop, _):
        for _ in range(4):
            loop.step()
        loop.wait()
        page.update()
        found, frame = nodes(server), loop.frame
        page._scene.show(frame, frame.at_s + 60.0)  # it glides there
        torso = frame.moment.bodies.positions[1]
        offset = np.array(found["/overlay"].position)
        np.testing.assert_allclose(offset, [-torso[0], -torso[1], 0.0], atol=1e-6)  # it is followed
        robot = found["/bodies/torso/group0"]
        np.testing.assert_allclose(robot.batched_positions[0], torso + offset, atol=1e-5)
        trails = found["/overlay/future/trails"]
        paths = frame.futures.bodies.place(frame.session.trail)
        assert trails.points.shape == (paths.shape[0] * (paths.shape[1] - 1), 2, 3)
        np.testing.assert_allclose(
            trails.points[-1, 0] + found["/overlay/future"].position, paths[0, 0], atol=1e-4
        )
        ghosts = found["/overlay/future/ghosts/1"]
        imagined = frame.futures.bodies.positions[0, ghost_steps(8, 3), 1]
        np.testing.assert_allclose(
            ghosts.batched_positions + np.array(found["/overlay/future"].position), imagined, atol=1e-4
        )


def test_whoever_does_not_follow_stays_where_it_is(server):
    with shown(server, *ORACLE_CHEETAH) as (page, loop, _):
        controls(server)["follow the robot"].value = False
        by_a_person(controls(server)["follow the robot"], False)
        loop.step()
        loop.wait()
        page.update()
        assert tuple(nodes(server)["/overlay"].position) == (0.0, 0.0, 0.0)


def test_between_two_moments_the_robot_is_on_its_way(server):
    with shown(server, *ORACLE_REACHER) as (page, loop, _):
        loop.step()
        loop.wait()
        scene, frame = page._scene, loop.frame
        places = []
        for share in (0.0, 0.5, 1.0):
            scene.show(frame, frame.at_s + share * max(frame.lasts_s, 1e-3))
            places.append(np.array(nodes(server)["/bodies/hand/group0"].batched_positions[0]))
        np.testing.assert_allclose(places[0], frame.before.bodies.positions[2], atol=1e-5)
        np.testing.assert_allclose(places[2], frame.moment.bodies.positions[2], atol=1e-5)
        np.testing.assert_allclose(places[1], (places[0] + places[2]) / 2, atol=1e-5)


def test_every_control_says_what_it_does(server):
    with shown(server, *ORACLE_REACHER):
        found = controls(server)
        assert len(found) > 20
        assert [label for label, handle in found.items() if not handle.hint] == []


def test_what_a_person_turns_reaches_the_session(server):
    with shown(server, *ORACLE_REACHER) as (_, loop, told):
        found, session = controls(server), loop.frame.session
        before = loop.frame.moment.plan
        by_a_person(found["candidates"], 40)
        by_a_person(found["gravity (x)"], 2.0)
        by_a_person(found["target x (m)"], 0.1)
        by_a_person(found["speed"], 0.5)
        by_a_person(found["body"], "hand")
        by_a_person(found["planner"], "cem")
        loop.wait()
        assert session.planner_config["num_candidates"] == 40
        assert session.planner_config["name"] == "cem"
        assert session.live.values["gravity"] == 2.0
        assert session.goal.numbers()[0] == pytest.approx(0.1)
        assert (loop.speed, session.hand.body) == (0.5, "hand")
        assert loop.frame.moment.plan is not before
        assert told == []


def test_a_click_pushes_the_robot(server):
    with shown(server, *ORACLE_REACHER) as (page, loop, _):
        by_a_person(controls(server)["push"], "+y")
        loop.wait()
        loop.step()
        loop.wait()
        assert loop.frame.moment.force[1] > 0
        page.update()
        assert nodes(server)["/overlay/force"].visible


def test_what_the_page_sets_itself_is_no_command(server):
    with shown(server, *ORACLE_REACHER) as (_, loop, _):
        before = loop.frame
        controls(server)["candidates"].value = 99
        loop.wait()
        assert loop.frame is before


def test_another_model_brings_its_own_controls_and_what_was_not_offered_is_not_opened(server):
    with shown(server, *ORACLE_REACHER) as (page, loop, _):
        by_a_person(controls(server)["task"], "pendulum-swingup")
        loop.wait()
        page.update()
        assert loop.frame.session.task == "pendulum-swingup"
        assert "target x (m)" not in controls(server)
        assert "/overlay/goal" not in nodes(server)
        by_a_person(controls(server)["task"], "os:anything")
        loop.wait()
        assert loop.frame.session.task == "pendulum-swingup"


def test_a_target_has_a_mark_that_can_be_dragged_and_a_new_episode_moves_it(server):
    with shown(server, *ORACLE_REACHER) as (page, loop, _):
        first = np.array(nodes(server)["/overlay/goal"].position)
        np.testing.assert_allclose(first, loop.frame.moment.goal.place, atol=1e-6)
        loop.do(lambda session: session.reset())
        loop.wait()
        page.update()
        second = np.array(nodes(server)["/overlay/goal"].position)
        assert not np.allclose(first, second)
        np.testing.assert_allclose(second, loop.frame.moment.goal.place, atol=1e-6)


def test_the_ball_and_the_goal_are_dragged_in_the_scene(server):
    with shown(server, *ORACLE_REACHER) as (page, loop, _):
        (pull,) = [entry.callback for entry in nodes(server)["/overlay/grab"]._impl.drag_cb]
        asyncio.run(pull(SimpleNamespace(phase="update", end_position=(0.2, 0.2, 0.0))))
        loop.step()
        loop.wait()
        assert loop.frame.moment.force[:2].min() > 0
        asyncio.run(pull(SimpleNamespace(phase="end", end_position=(0.2, 0.2, 0.0))))
        loop.step()
        loop.wait()
        assert not loop.frame.moment.force.any()

        (drag,) = nodes(server)["/overlay/goal"]._impl_aux.update_cb
        plan = loop.frame.moment.plan
        target = SimpleNamespace(position=(0.05, -0.1, 0.7))
        asyncio.run(drag(SimpleNamespace(phase="end", target=target)))
        loop.wait()
        page.update()
        np.testing.assert_allclose(loop.frame.moment.goal.place[:2], [0.05, -0.1])
        assert loop.frame.moment.plan is not plan
        assert controls(server)["target x (m)"].hint.endswith("it can be dragged, too.")


@pytest.mark.parametrize(
    ("task", "is_from_above", "travels"),
    [("reacher-easy", True, False), ("cartpole-swingup", False, False), ("cheetah-run", False, True)],
)
def test_a_robot_is_looked_at_from_where_its_motion_is_seen(task, is_from_above, travels):
    session = Session(view_config("model=oracle", f"task={task}", "env.action_repeat=8", *SMALL))
    try:
        look = Viewpoint.of(session.simulation)
        towards = look.position - look.look_at
        assert (towards[2] > abs(towards[1])) == is_from_above
        assert np.linalg.norm(towards) > 2 * look.radius_m
        assert (travelling_body(session.simulation.model) is not None) == travels
    finally:
        session.close()


def test_trails_fade_with_rank_and_time_and_tell_the_plan_from_what_follows():
    colours = trail_colours(4, 10, 3).astype(int)
    darkness = 255 * 3 - colours.sum(-1)
    assert (np.diff(darkness[0, :3, 0]) < 0).all()
    assert (np.diff(darkness[:, 0, 0]) < 0).all()
    assert colours[0, 0, 0, 0] > colours[0, 0, 0, 2]  # orange
    assert colours[0, 5, 0, 0] < colours[0, 5, 0, 2]  # blue


def test_the_command_shows_a_page_for_as_long_as_it_is_asked_to_and_says_how_often():
    process = start("view", *ORACLE_REACHER, "port=0", "seconds=2")
    ended = end(process)
    assert ended.code == 0, ended.err
    assert re.search(r"cockpit at http://127\.0\.0\.1:[1-9]\d+ ", ended.out), ended.out
    assert re.search(r"\d+\.\d updates/s of the page, \d+\.\d decisions/s", ended.out), ended.out
    assert "viser" not in ended.out


def test_browsers_that_have_left_are_soon_forgotten(monkeypatch):
    monkeypatch.setattr("worldmodel.apps.cockpit.view._SEARCH_EVERY_S", 0.0)
    protocol = websockets.Subprotocol(f"viser-v{viser.__version__}")
    came: list[weakref.ref] = []

    def come_and_leave(page, loop):
        if came:
            return False
        assert gc.get_freeze_count() > 100_000  # what is imported is not searched
        page.update()
        connections = page._server._websock_server._live_connections
        with ExitStack() as browsers:
            for _ in range(20):
                uri = f"ws://127.0.0.1:{page._server.get_port()}"
                browser = websockets.sync.client.connect(uri, subprotocols=[protocol], max_size=None)
                browsers.enter_context(browser).recv()
            came.extend(map(weakref.ref, connections.values()))
            gc.collect(1)  # they have been there for a while
        while connections:
            time.sleep(0.01)
        return True

    view(view_config(*ORACLE_REACHER, "port=0", "paused=true"), come_and_leave)
    assert len(came) == 20
    assert sum(browser() is not None for browser in came) < 4
    assert gc.get_freeze_count() == 0


@pytest.fixture
def chromium():
    """A page of a headless Chromium that draws by software, and what its console calls errors."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 1000, "height": 600})
        page.set_default_timeout(120_000)
        page.errors = []
        page.on("console", lambda told: page.errors.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()


@contextmanager
def kept_up_to_date(page):
    """The cockpit's page, updated beside the test; rarely, since the browser draws by software."""
    is_over = threading.Event()

    def update():
        while not is_over.wait(0.3):
            page.update()

    thread = threading.Thread(target=update)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def slider(chromium, label):
    """The slider that a label stands before."""
    name = chromium.locator("label").get_by_text(label, exact=True).first.get_attribute("for")
    return chromium.locator(f"[id='{name}']").get_by_role("slider")


def until(loop, holds):
    """Wait until it holds of the loop's frame; what a browser sends takes its time."""
    deadline = time.monotonic() + 60
    while not holds(loop.frame):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return loop.frame


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at the page with")
def test_in_a_browser_sliders_change_the_plan_and_the_button_pushes_the_robot(server, chromium):
    with shown(server, *ORACLE_CHEETAH) as (page, loop, told), kept_up_to_date(page):
        chromium.goto(f"http://127.0.0.1:{server.get_port()}")
        chromium.get_by_text("candidates", exact=True).first.wait_for()
        assert chromium.locator("canvas").count() > 5  # the robot, and a plot for each number

        first = loop.frame
        slider(chromium, "candidates").press("ArrowRight")
        turned = until(loop, lambda frame: frame is not first)
        assert turned.session.planner_config["num_candidates"] == 20
        assert not torch.equal(turned.moment.plan.elites, first.moment.plan.elites)
        slider(chromium, "gravity (x)").press("ArrowRight")
        until(loop, lambda frame: frame.session.live.values["gravity"] == pytest.approx(1.05))

        where = turned.moment.bodies.positions[1, 0]
        chromium.get_by_role("button", name="+x").click()
        until(loop, lambda frame: frame.session.hand.force[0] > 0)
        chromium.get_by_role("button", name="Step").click()
        pushed = until(loop, lambda frame: frame.moment.step == 1)
        assert pushed.moment.force[0] > 0
        assert pushed.moment.bodies.positions[1, 0] - where > 0.02  # at rest, no action moves it so far

        chromium.get_by_role("button", name="+x").hover()
        tooltip = chromium.get_by_role("tooltip").filter(has_text="Push the body in this direction")
        tooltip.first.wait_for()
        chromium.get_by_role("button", name="Play").click()
        until(loop, lambda frame: frame.moment.step > 3)
        chromium.get_by_role("button", name="Reset").click()
        until(loop, lambda frame: frame.moment.episode == 1)
        assert told == []
    assert chromium.errors == []
