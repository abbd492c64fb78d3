"""Broken frames by the thousand: the server refuses or answers each, and neither falls, hangs nor grows."""

import re
import socket
import struct
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import websockets.sync.client
from mutation import mutated_bytes
from serving_peers import Echo, OpenpiClient, openpi_packed, openpi_unpacked, serving
from websockets.exceptions import ConnectionClosed

IMAGE_SIZE = 16
SHAPES = {"state": (3,), "pixels": (3, IMAGE_SIZE, IMAGE_SIZE)}
SOUND = {
    "observation/state": np.array([0.5, -1, 2], np.float32),
    "observation/image": np.zeros((20, 20, 3), np.uint8),
    "prompt": "pick it up",
    "reset": np.True_,
    "request_id": 5,
}
ODD = [
    *(None, True, -1, 2**63 - 1, 1e308, float("nan"), "", "x" * 300, b"", [], {}, [[]], {"a": {"a": {}}}),
    *({b"__ndarray__": True}, {b"__npgeneric__": True}, "|O", "<f8", [3, 3], [2**62, 4], [0], [-1]),
]


class Careful(Echo):
    """Fails where it is asked for anything but numbers of the right shape."""

    def act(self, sessions, observation, deadline=None):
        for key, shape in SHAPES.items():
            assert observation[key].shape == (len(sessions), *shape)
            assert observation[key].dtype == (np.float32 if key == "state" else np.uint8)
            assert np.isfinite(observation[key]).all()
        return super().act(sessions, observation, deadline)


def mutated_message(rng) -> bytes:
    """A sound message, of which one entry, somewhere, is replaced, dropped or renamed."""
    message = msgpack.unpackb(openpi_packed(SOUND))
    inner = message
    if rng.integers(3):
        inner = message[["observation/state", "observation/image"][rng.integers(2)]]
    key = list(inner)[rng.integers(len(inner))]
    value = inner.pop(key)
    kind = rng.integers(4)
    if kind == 1:
        inner[ODD[rng.integers(6, 9)]] = value
    elif kind > 1:
        inner[key] = ODD[rng.integers(len(ODD))]
    return msgpack.packb(message)


def mutated(rng) -> bytes:
    """A frame that is wrong somewhere."""
    kind = rng.integers(10)
    if kind < 4:
        return mutated_message(rng)
    if kind < 9:
        return mutated_bytes(rng, openpi_packed(SOUND))
    return rng.bytes(int(rng.integers(0, 300)))


def broken_websocket_bytes(rng) -> bytes:
    """Bytes on the line that are no frame of a websocket, or a strange one."""
    payload = openpi_packed(SOUND)
    mask = rng.bytes(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    frame = struct.pack(">BBH", 0x82, 0x80 | 126, len(payload)) + mask + masked
    return mutated_bytes(rng, frame[:8]) + frame[8:] if rng.integers(2) else mutated_bytes(rng, frame)


def memory_mb(server) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", server.metrics.text(), re.M)
    return float(found.group(1)) / 1e6


def told(connection) -> str:
    """What becomes of a frame: answered, refused (text, then closed), or closed."""
    try:
        answer = connection.recv(timeout=20)
    except ConnectionClosed:
        assert connection.close_code in (1002, 1003, 1006, 1007, 1009, 1011)
        return "closed"
    if isinstance(answer, bytes):
        assert openpi_unpacked(answer)["actions"].shape == (4, 2)
        return "answered"
    assert "Traceback" not in answer
    assert "planning failed" not in answer  # a broken frame never gets so far
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=20)
    assert connection.close_code == 1011
    return "refused"


def fuzz(num_frames: int, seed: int) -> dict[str, int]:
    rng, counts, memory = np.random.default_rng(seed), {"answered": 0, "refused": 0, "closed": 0}, 0.0
    with serving(Careful(), shapes=SHAPES, message_bytes=100_000) as server:
        with OpenpiClient(server.uri) as good:
            client = None
            for number in range(num_frames):
                if number == num_frames // 5:
                    memory = memory_mb(server)
                if client is None:
                    client = OpenpiClient(server.uri)
                if rng.integers(10):
                    client.connection.send(mutated(rng))
                    outcome = told(client.connection)
                else:
                    with suppress(OSError):  # the server may have hung up already
                        client.connection.socket.sendall(broken_websocket_bytes(rng))
                        client.connection.socket.shutdown(socket.SHUT_WR)  # or it might wait for the rest
                    outcome = "closed"
                counts[outcome] += 1
                if outcome != "answered":
                    client.connection.close()
                    client = None
                if number % 100 == 99:
                    assert good.infer(SOUND)["actions"][0, 0] == 0.5
            if client is not None:
                client.connection.close()
            assert good.infer(SOUND)["actions"].shape == (4, 2)
        assert memory_mb(server) - memory < 40
        faults = [record for record in server.log.records if record.levelname == "ERROR"]
        assert faults == []
    return counts


def check(counts: dict[str, int]) -> None:
    total = sum(counts.values())
    assert counts["refused"] > total / 2
    assert counts["answered"] > 0  # some changes do no harm
    assert counts["closed"] > total / 30


def test_broken_frames_are_refused_and_others_are_served():
    check(fuzz(300, seed=0))


@pytest.mark.slow
def test_twelve_thousand_broken_frames():
    check(fuzz(12_000, seed=1))


def test_giant_and_endless_frames_end_their_connection_alone():
    with serving(Careful(), shapes=SHAPES, message_bytes=50_000) as server, OpenpiClient(server.uri) as good:
        before = memory_mb(server)
        for length in (60_000, 2**40, 2**63 - 1, 2**64 - 1):
            with websockets.sync.client.connect(server.uri, close_timeout=1) as connection:
                connection.recv(timeout=5)
                connection.socket.sendall(struct.pack(">BBQ", 0x82, 0x80 | 127, length) + bytes(4))
                with pytest.raises(ConnectionClosed):
                    connection.recv(timeout=20)
        with websockets.sync.client.connect(server.uri, close_timeout=1) as connection:
            connection.recv(timeout=5)
            with pytest.raises((ConnectionClosed, OSError)):
                connection.send(b"x" * 1000 for _ in range(1_000_000))  # a message without end
        assert good.infer(SOUND)["actions"][0, 0] == 0.5
        assert memory_mb(server) - before < 40
