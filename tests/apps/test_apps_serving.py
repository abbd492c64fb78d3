"""The policy server: openpi's protocol, what is understood, whose plan is whose."""

import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving_peers import HORIZON, Echo, OpenpiClient, openpi_packed, openpi_unpacked, serving, wait_until
from websockets.exceptions import ConnectionClosed

from worldmodel.apps.serving.batching import Batcher
from worldmodel.apps.serving.request import Request, RequestReader
from worldmodel.apps.sessions import Session
from worldmodel.errors import MessageError
from worldmodel.remote.codec import pack


def state(first: float) -> dict[str, np.ndarray]:
    return {"state": np.array([first, 0, 0], np.float32)}


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def server(echo):
    with serving(echo) as running:
        yield running


def test_the_server_speaks_first_then_answers_each_observation(server):
    with OpenpiClient(server.uri) as client:
        assert client.metadata == {"task": "echo", "horizon": HORIZON}
        first = client.infer({"observation/state": np.array([0.5, 0, 0]), "prompt": "do something"})
        assert first["actions"].shape == (HORIZON, 2)
        assert first["actions"].dtype == np.float32
        assert first["actions"][0].tolist() == [0.5, 1]
        assert set(first) == {"actions", "server_timing"}
        assert set(first["server_timing"]) == {"infer_ms"}
        second = client.infer(state(0.25))
        assert second["actions"][0].tolist() == [0.25, 2]
        assert second["server_timing"]["prev_total_ms"] >= first["server_timing"]["infer_ms"] > 0


def test_what_is_asked_with_a_number_is_answered_with_it(server):
    with OpenpiClient(server.uri) as client:
        assert [client.infer(state(0) | {"request_id": n})["request_id"] for n in (7, 8)] == [7, 8]


def test_health_and_numbers_are_plain_http(server):
    base = f"http://127.0.0.1:{server.port}"
    with urllib.request.urlopen(f"{base}/healthz") as answer:
        assert (answer.status, answer.read()) == (200, b"OK\n")
    with OpenpiClient(server.uri) as client:
        for _ in range(3):
            client.infer(state(0))
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            lines = dict(
                line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#"
            )
    assert float(lines["worldmodel_connections"]) == 1
    assert float(lines["worldmodel_request_seconds_count"]) == 3
    assert float(lines["worldmodel_batch_size_sum"]) == 3
    assert float(lines["process_resident_memory_bytes"]) > 1e6


def test_a_mistake_is_told_as_text_and_ends_the_connection(server):
    with OpenpiClient(server.uri) as client:
        with pytest.raises(RuntimeError, match=r"state has shape \(2,\): this model takes \(3,\)") as told:
            client.infer({"state": np.zeros(2)})
        assert "Traceback" not in str(told.value)
        with pytest.raises(ConnectionClosed):
            client.connection.recv(timeout=5)
        assert client.connection.close_code == 1011
        assert client.connection.close_reason == "state has shape (2,): this model takes (3,)"
    assert server.refused("message") == 1
    with OpenpiClient(server.uri) as client:
        assert client.infer(state(1))["actions"][0, 0] == 1


@pytest.mark.parametrize("frame", ["hello", b"\xc1", pack([1, 2]), pack({}), b""])
def test_frames_that_are_no_observation_end_with_1011(server, frame):
    with OpenpiClient(server.uri) as client:
        client.connection.send(frame)
        assert isinstance(client.connection.recv(timeout=5), str)
        with pytest.raises(ConnectionClosed):
            client.connection.recv(timeout=5)
        assert client.connection.close_code == 1011


def test_a_fault_of_ours_is_told_without_its_details_and_logged_with_them(server):
    with OpenpiClient(server.uri) as client, pytest.raises(RuntimeError, match="planning failed") as told:
        client.infer(state(-13))
    assert "broke" not in str(told.value)
    (fault,) = [record for record in server.log.records if record.getMessage() == "fault"]
    assert str(fault.exc_info[1]) == "the model broke"


def test_a_connection_is_a_session_and_reset_begins_it_anew(server):
    with OpenpiClient(server.uri) as client, OpenpiClient(server.uri) as other:
        told = [client.infer(state(0))["actions"][0, 1] for _ in range(3)]
        told.append(other.infer(state(0))["actions"][0, 1])
        told.append(client.infer(state(0) | {"reset": True})["actions"][0, 1])
        told.append(client.infer(state(0) | {"reset": np.False_})["actions"][0, 1])
    assert told == [1, 2, 3, 1, 1, 2]


def test_those_who_ask_while_others_are_decided_for_share_the_next_decision(echo):
    with serving(echo, max_batch=4) as server, ThreadPoolExecutor(8) as pool:
        clients = [OpenpiClient(server.uri) for _ in range(7)]
        echo.may_go_on.clear()
        first = pool.submit(clients[0].infer, state(100))
        assert echo.began.wait(5)
        others = [pool.submit(client.infer, state(i)) for i, client in enumerate(clients[1:])]
        wait_until(lambda: sum(v.is_busy for v in server.server._visitors.values()) == 7)
        echo.may_go_on.set()
        assert first.result(5)["actions"][0, 0] == 100
        assert [other.result(5)["actions"][0, 0] for other in others] == [0, 1, 2, 3, 4, 5]
        for client in clients:
            client.connection.close()
    assert echo.seen == [1, 4, 2]


def test_the_window_gathers_what_comes_a_little_later_and_never_waits_for_nobody(echo):
    with serving(echo, window_s=60.0) as server, ThreadPoolExecutor(2) as pool:
        with OpenpiClient(server.uri) as client:
            client.infer(state(0))  # the only one there: at once
        wait_until(lambda: server.server.num_connections == 0)
        clients = [OpenpiClient(server.uri) for _ in range(2)]
        told = list(pool.map(lambda pair: pair[1].infer(state(pair[0])), enumerate(clients)))
        assert [answer["actions"][0, 0] for answer in told] == [0, 1]
        for client in clients:
            client.connection.close()
    assert echo.seen == [1, 2]


def test_one_whose_decision_fails_does_not_harm_those_who_share_it(echo):
    with serving(echo) as server, ThreadPoolExecutor(4) as pool:
        clients = [OpenpiClient(server.uri) for _ in range(4)]
        echo.may_go_on.clear()
        first = pool.submit(clients[0].infer, state(0))
        assert echo.began.wait(5)
        rest = [
            pool.submit(client.infer, state(x)) for client, x in zip(clients[1:], (1, -13, 2), strict=True)
        ]
        wait_until(lambda: sum(v.is_busy for v in server.server._visitors.values()) == 4)
        echo.may_go_on.set()
        first.result(5)
        assert rest[0].result(5)["actions"][0].tolist() == [1, 1]
        assert rest[2].result(5)["actions"][0].tolist() == [2, 1]
        with pytest.raises(RuntimeError, match="planning failed"):
            rest[1].result(5)
        for client in clients:
            client.connection.close()


@pytest.mark.parametrize("plan_s", [None, 0.25])
def test_planning_ends_when_it_is_told_to(plan_s):
    seen = []

    class Watching(Echo):
        def act(self, sessions, observation, deadline=None):
            seen.append((time.perf_counter(), deadline))
            return super().act(sessions, observation, deadline)

    options = {"expected": lambda: 1, "max_batch": 4, "window_s": 0.0, "plan_s": plan_s}
    before = time.perf_counter()
    with Batcher(Watching(), **options) as batcher:
        request = Request(observation=state(3))
        assert batcher.submit(Session(), request).result(5)[0].tolist() == [3, 1]
    ((asked, deadline),) = seen
    assert deadline is None if plan_s is None else before + plan_s <= deadline <= asked + plan_s


def test_what_was_taken_back_is_not_decided_for(echo):
    options = {"expected": lambda: 1, "max_batch": 1, "window_s": 0.0}
    with Batcher(echo, **options) as batcher:
        echo.may_go_on.clear()
        plans = [batcher.submit(Session(), Request(observation=state(n))) for n in range(3)]
        assert echo.began.wait(5)
        assert plans[1].cancel()
        echo.may_go_on.set()
        assert [plans[n].result(5)[0, 0] for n in (0, 2)] == [0, 2]
    assert echo.seen == [1, 1]


def test_every_request_of_many_is_answered_once_and_in_order(echo):
    def ask(number: int) -> list[tuple[float, float, int]]:
        with OpenpiClient(server.uri) as client:
            told = []
            for step in range(40):
                answer = client.infer(state(1000 * number + step) | {"request_id": step})
                told.append((*answer["actions"][0].tolist(), answer["request_id"]))
            with pytest.raises(TimeoutError):
                client.connection.recv(timeout=0.05)  # nothing more than was asked for
            return told

    with serving(echo, window_s=0.002) as server, ThreadPoolExecutor(12) as pool:
        told = list(pool.map(ask, range(12)))
    assert told == [[(1000 * n + step, step + 1, step) for step in range(40)] for n in range(12)]
    assert sum(echo.seen) == 480
    assert len(echo.seen) < 480


def test_requests_sent_ahead_are_answered_in_their_order(server):
    with OpenpiClient(server.uri) as client:
        sender = threading.Thread(
            target=lambda: [client.connection.send(openpi_packed(state(n))) for n in range(300)]
        )
        sender.start()
        told = [openpi_unpacked(client.connection.recv(timeout=10))["actions"][0, 0] for _ in range(300)]
        sender.join()
    assert told == list(range(300))


READER = RequestReader(shapes={"state": (3,), "pixels": (3, 16, 16)}, takes_goal=True)
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
SOUND = {"state": np.zeros(3), "pixels": IMAGE}


def test_images_come_in_either_order_of_axes():
    for given in ({"pixels": IMAGE}, {"pixels": IMAGE.transpose(1, 2, 0)}, {"observation/image": IMAGE}):
        read = READER.read({"state": np.zeros(3)} | given)
        assert np.array_equal(read.observation["pixels"], IMAGE)
        assert read.observation["pixels"].flags.c_contiguous


def test_a_camera_image_of_another_size_is_resized():
    ramp = np.repeat(np.linspace(0, 255, 224).astype(np.uint8)[None, :, None], 224, 0).repeat(3, 2)
    read = READER.read({"observation/state": np.zeros(3), "observation/image": ramp}).observation["pixels"]
    assert read.shape == (3, 16, 16)
    assert np.abs(read[0, 5].astype(float) - np.linspace(8, 247, 16)).max() < 3  # still a ramp to the right
    assert np.ptp(read, axis=(0, 1)).max() == 0


def test_numbers_of_any_width_become_float32():
    for dtype in (np.float16, np.float64, np.int32, np.uint8, ">f8"):
        read = READER.read(SOUND | {"state": np.array([1, 2, 3], dtype)})
        assert read.observation["state"].dtype == np.dtype(np.float32)
        assert read.observation["state"].tolist() == [1, 2, 3]


def test_a_goal_is_read_like_an_observation():
    read = READER.read(SOUND | {"goal/state": np.ones(3), "goal/pixels": IMAGE.transpose(1, 2, 0)})
    assert read.goal["state"].tolist() == [1, 1, 1]
    assert np.array_equal(read.goal["pixels"], IMAGE)
    assert READER.read(SOUND).goal is None


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ([1], "the message is a list"),
        ({}, "state or observation/state .3,. float32 is missing; the message has no keys"),
        ({"state": np.zeros(3)}, "pixels or observation/image .3, 16, 16. uint8 is missing.* has state"),
        ({f"key{n}": n for n in range(50)}, r"has key0, key1, .*, \.\.\.$"),
        (SOUND | {"observation/state": np.zeros(3)}, "state and observation/state are the same"),
        (SOUND | {"state": [0.0, 0.0, 0.0]}, "state is a list: send an array"),
        (SOUND | {"state": np.zeros((1, 3))}, r"state has shape \(1, 3\): this model takes \(3,\)"),
        (SOUND | {"state": np.array([0, 0, np.nan])}, "not finite"),
        (SOUND | {"state": np.array([0, 0, -np.inf])}, "not finite"),
        (SOUND | {"state": np.array([0, 0, 1e39])}, "not finite"),
        (SOUND | {"state": np.array([True, False, True])}, "state holds bool: send numbers"),
        (SOUND | {"pixels": IMAGE.astype(np.float32)}, "pixels holds float32: send uint8"),
        (
            SOUND | {"pixels": np.zeros((3, 17, 17), np.uint8)},
            r"pixels has shape \(3, 17, 17\): .*\(16, 16, 3\)",
        ),
        ({"state": np.zeros(3), "observation/image": np.zeros((48, 64, 3), np.uint8)}, "crop or pad"),
        ({"state": np.zeros(3), "observation/image": np.zeros((0, 0, 3), np.uint8)}, "crop or pad"),
        ({"state": np.zeros(3), "observation/image": np.zeros((16, 16, 4), np.uint8)}, "crop or pad"),
        (SOUND | {"reset": 1}, "reset: must be true or false"),
        (SOUND | {"request_id": "a"}, "request_id: must be a whole number"),
        (SOUND | {"goal/state": np.zeros(3)}, "goal/pixels .* is missing"),
        (SOUND | {"goal/state": np.zeros(2), "goal/pixels": IMAGE}, "goal/state has shape"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_message_that_does_not_fit_is_explained(message, rule):
    with pytest.raises(MessageError, match=rule):
        READER.read(message)


def test_a_model_of_rewards_takes_no_goal_and_one_of_goals_needs_it(echo):
    rewarded = RequestReader(shapes={"state": (3,)}, takes_goal=False)
    with pytest.raises(MessageError, match="takes no goal"):
        rewarded.read({"state": np.zeros(3), "goal/state": np.zeros(3)})
    with serving(echo, takes_goal=True) as server, OpenpiClient(server.uri) as client:
        client.infer(state(0) | {"goal/state": np.ones(3)})
        client.infer(state(0) | {"reset": True})  # it stays
        with OpenpiClient(server.uri) as other, pytest.raises(RuntimeError, match="goal/state missing"):
            other.infer(state(0))
