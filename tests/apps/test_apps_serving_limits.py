"""Who may ask, how much, and what becomes of those who behave badly: told with a code and a reason."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import numpy as np
import pytest
import websockets.sync.client
from serving_peers import Echo, OpenpiClient, openpi_packed, openpi_unpacked, serving, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from worldmodel.apps.serving.limits import Limits, Rate, Refusal
from worldmodel.errors import ConfigError, RemoteError
from worldmodel.remote import Client

STATE = {"state": np.zeros(3, np.float32)}
TOKEN = "0123456789abcdef0123"


def closed(client: OpenpiClient) -> tuple[int, str, list]:
    """How it ends, and the frames before."""
    texts = []
    try:
        while True:
            texts.append(client.connection.recv(timeout=10))
    except ConnectionClosed:
        return client.connection.close_code, client.connection.close_reason, texts


def still_serves(server) -> None:
    with OpenpiClient(server.uri) as client:
        assert client.infer(STATE)["actions"].shape[1] == 2


def test_a_bucket_holds_one_second_and_fills_evenly():
    rate = Rate(10.0, now=0.0)
    assert [rate.allows(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert [rate.allows(0.25), rate.allows(0.25), rate.allows(0.25)] == [True, True, False]
    assert sum(rate.allows(100.0) for _ in range(30)) == 10
    slow = Rate(0.5, now=0.0)
    assert [slow.allows(0.0), slow.allows(1.9), slow.allows(3.9)] == [True, False, True]


def test_too_many_requests_end_with_1008():
    with serving(Echo(), requests_per_s=20.0) as server:
        with OpenpiClient(server.uri) as client:
            for _ in range(60):
                client.connection.send(openpi_packed(STATE))
            code, reason, frames = closed(client)
            assert (code, reason) == (1008, "more than 20 requests per second (limits.requests_per_s)")
            assert frames[-1] == reason
            assert 20 <= len(frames) - 1 < 60
        assert server.refused("rate") == 1
        still_serves(server)


def test_a_message_that_is_too_large_ends_with_1009():
    with serving(Echo(), message_bytes=1000) as server:
        with OpenpiClient(server.uri) as client:
            client.connection.send(openpi_packed(STATE | {"prompt": "x" * 2000}))
            assert closed(client)[0] == 1009
        with OpenpiClient(server.uri) as client:  # in pieces it is no smaller
            client.connection.send(bytes(400) for _ in range(5))
            assert closed(client)[0] == 1009
        still_serves(server)


def test_a_connection_too_many_is_told_so_and_has_a_place_when_one_leaves():
    with serving(Echo(), connections=2) as server, ExitStack() as stack:
        first, _ = (stack.enter_context(OpenpiClient(server.uri)) for _ in range(2))
        with pytest.raises(InvalidStatus) as refused:
            OpenpiClient(server.uri)
        assert refused.value.response.status_code == 503
        assert b"all 2 connections are taken" in refused.value.response.body
        with pytest.raises(RemoteError, match="all 2 connections are taken"):
            Client(server.uri, patience_s=0.1)
        first.connection.close()
        wait_until(lambda: server.server.num_connections == 1)
        still_serves(server)
        assert server.refused("connections") >= 2


def test_who_says_nothing_for_long_is_sent_away_and_may_come_again():
    with serving(Echo(), idle_s=0.2) as server, OpenpiClient(server.uri) as client:
        client.infer(STATE)
        assert closed(client) == (1001, "no request for 0.2 s (limits.idle_s)", [])
    with serving(Echo(), idle_s=0.2) as server, Client(server.uri) as client:
        client.act(STATE)
        wait_until(lambda: server.server.num_connections == 0)
        assert client.act(STATE)[0, 1] == 1  # a new session


def test_an_answer_that_takes_too_long_ends_with_1013_and_its_plan_is_taken_back():
    echo = Echo()
    with serving(echo, request_s=0.2) as server, ExitStack() as stack:
        first, second = (stack.enter_context(OpenpiClient(server.uri)) for _ in range(2))
        echo.may_go_on.clear()
        first.connection.send(openpi_packed(STATE))
        assert echo.began.wait(5)
        second.connection.send(openpi_packed(STATE))
        for client in (first, second):
            code, reason, texts = closed(client)
            assert (code, texts) == (1013, [reason])
            assert "no answer within 0.2 s" in reason
        echo.may_go_on.set()
        still_serves(server)
    assert echo.seen == [1, 1]  # the first one's, and that of who still waited; not the second one's


@pytest.mark.parametrize("scheme", ["Bearer", "Api-Key", "bearer"])
def test_with_the_token_one_is_let_in(scheme):
    with serving(Echo(), token=TOKEN) as server:
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        with websockets.sync.client.connect(server.uri, additional_headers=headers) as connection:
            connection.recv(timeout=5)
            connection.send(openpi_packed(STATE))
            assert openpi_unpacked(connection.recv(timeout=5))["actions"].shape == (4, 2)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer ä"},
        [("Authorization", "Bearer x"), ("Authorization", f"Bearer {TOKEN}")],
        {"Cookie": f"Bearer {TOKEN}"},
    ],
    ids=str,
)
def test_without_the_token_nobody_is_let_in(headers):
    with serving(Echo(), token=TOKEN) as server:
        with pytest.raises(InvalidStatus) as refused:
            websockets.sync.client.connect(server.uri, additional_headers=headers).__enter__()
        assert refused.value.response.status_code == 401
        assert b"Authorization: Bearer TOKEN" in refused.value.response.body
        assert server.refused("token") == 1
        assert TOKEN not in str([vars(record) for record in server.log.records])


def plain_get(port: int, path: str, *headers: str) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", port), 5)) as line:
        line.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())
        parts = []
        while part := line.recv(10_000):
            parts.append(part)
    return b"".join(parts)


def test_numbers_need_the_token_and_health_does_not():
    with serving(Echo(), token=TOKEN) as server:
        assert plain_get(server.port, "/healthz").endswith(b"OK\n")
        assert b" 401 " in plain_get(server.port, "/metrics").splitlines()[0]
        assert b"worldmodel_connections 0" in plain_get(
            server.port, "/metrics", f"Authorization: Bearer {TOKEN}"
        )


def test_a_page_in_a_browser_cannot_drive_the_robot():
    with serving(Echo()) as server:
        with pytest.raises(InvalidStatus) as refused:
            websockets.sync.client.connect(server.uri, origin="http://example.org").__enter__()
        assert refused.value.response.status_code == 403
        assert b" 426 " in plain_get(server.port, "/").splitlines()[0]  # no websocket at all


def test_half_open_connections_and_broken_handshakes_go_and_hurt_nobody():
    with serving(Echo(), handshake_s=0.5) as server, ExitStack() as stack:
        lines = []
        for number in range(200):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            if number % 3 == 1:
                line.sendall(b"GET / HTTP/1.1\r\nUpgrade: webso")
            elif number % 3 == 2:
                line.sendall(bytes(range(256)))
            lines.append(line)
        still_serves(server)
        for line in lines:
            line.settimeout(10)
            while line.recv(1000):  # what it is told, until the server hangs up
                pass
        still_serves(server)


def test_who_stays_and_answers_no_ping_is_forgotten(monkeypatch):
    monkeypatch.setattr("worldmodel.apps.serving.server._PING_S", 0.2)
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines = ["GET / HTTP/1.1", "Host: x", *upgrade, f"Sec-WebSocket-Key: {'A' * 22}=="]
    with serving(Echo()) as server, socket.create_connection(("127.0.0.1", server.port), 5) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        assert b" 101 " in line.recv(1000).splitlines()[0]
        wait_until(lambda: server.metrics.opened._value.get() == 1)
        wait_until(lambda: server.server.num_connections == 0)
        (told,) = [record.about for record in server.log.records if record.getMessage() == "closed"]
        assert told["ended"].startswith("1011 ")
        still_serves(server)


def test_who_leaves_without_a_word_is_forgotten_even_in_the_midst_of_an_answer():
    echo = Echo()
    with serving(echo) as server:
        client = OpenpiClient(server.uri)
        echo.may_go_on.clear()
        client.connection.send(openpi_packed(STATE))
        assert echo.began.wait(5)
        client.connection.socket.shutdown(socket.SHUT_RDWR)
        echo.may_go_on.set()
        wait_until(lambda: server.server.num_connections == 0)
        still_serves(server)


class Wordy(Echo):
    """Its plans fill what a line can hold."""

    def act(self, sessions, observation, deadline=None):
        return np.repeat(super().act(sessions, observation, deadline), 20_000, axis=1)


def test_who_asks_on_and_never_listens_is_sent_away():
    with serving(Wordy(), request_s=0.5) as server:
        with websockets.sync.client.connect(
            server.uri, max_queue=1, compression=None, close_timeout=1
        ) as connection:
            connection.recv(timeout=5)
            with suppress(ConnectionClosed, OSError):
                for _ in range(200):
                    connection.send(openpi_packed(STATE))
            wait_until(lambda: server.server.num_connections == 0)
        assert server.refused("time") == 1
        still_serves(server)


def test_a_server_that_stops_answers_what_is_under_way_and_says_goodbye():
    echo = Echo()
    with serving(echo) as server, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        idle, busy = (stack.enter_context(OpenpiClient(server.uri)) for _ in range(2))
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))  # silent
        echo.may_go_on.clear()
        asked = pool.submit(busy.infer, STATE)
        assert echo.began.wait(5)
        server.stop()
        assert closed(idle) == (1001, "the server is shutting down", [])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", server.port), 5)
        echo.may_go_on.set()
        assert asked.result(5)["actions"].shape == (4, 2)
        assert closed(busy) == (1001, "the server is shutting down", [])


def test_a_server_that_stops_does_not_wait_for_ever():
    echo = Echo()
    with serving(echo, drain_s=0.2, request_s=60.0) as server, OpenpiClient(server.uri) as client:
        echo.may_go_on.clear()
        client.connection.send(openpi_packed(STATE))
        assert echo.began.wait(5)
        began = time.monotonic()
        server.stop()
        assert closed(client)[0] == 1001
        assert time.monotonic() - began < 10
        echo.may_go_on.set()


def test_a_reason_is_cut_to_what_a_close_frame_holds():
    assert len(Refusal(1011, "message", "ä" * 100).close_reason.encode()) == 122
    assert Refusal(1011, "message", "short").close_reason == "short"


def test_limits_must_be_above_nothing():
    config = {
        "connections": 1, "message_mb": 0.5, "requests_per_s": 1.0, "idle_s": 1.0, "request_s": 1.0,
        "handshake_s": 1.0, "drain_s": 1.0,
    }  # fmt: skip
    assert Limits.from_config(config).message_bytes == 500_000
    for key in config:
        with pytest.raises(ConfigError, match=rf"limits\.{key}=0: must be above 0"):
            Limits.from_config(config | {key: 0})
