"""Who talks to a server in tests: a server in a thread, and a client as openpi's behaves on the wire."""

import asyncio
import logging
import threading
import time
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import websockets.sync.client

from worldmodel.apps.serving.batching import Batcher
from worldmodel.apps.serving.limits import Limits
from worldmodel.apps.serving.metrics import Metrics
from worldmodel.apps.serving.request import RequestReader
from worldmodel.apps.serving.server import PolicyServer

LIMITS = {
    "connections": 64, "message_bytes": 1_000_000, "requests_per_s": 1e6, "idle_s": 30.0, "request_s": 10.0,
    "handshake_s": 5.0, "drain_s": 5.0,
}  # fmt: skip
HORIZON = 4


class Echo:
    """Plans that say who asked: the state's first entry; `seen` holds the sizes of the batches."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Event()

    def act(self, sessions, observation, deadline=None):
        self.began.set()
        self.may_go_on.wait(20)
        self.seen.append(len(sessions))
        if (observation["state"][:, 0] == -13).any():
            raise ArithmeticError("the model broke")
        for session in sessions:  # counts the decisions of a session in what it keeps
            session.plan = (session.plan or 0) + 1
        counts = np.array([[session.plan] for session in sessions], np.float32)
        actions = np.stack([observation["state"][:, :1], counts], axis=2)
        return np.repeat(actions, HORIZON, axis=1)


class Running:
    """A server that listens: its port, its metrics, the words of its log."""

    def __init__(self, server: PolicyServer, metrics: Metrics, log: "Memo", port: int) -> None:
        self.server, self.metrics, self.log, self.port = server, metrics, log, port
        self.stop = lambda: None
        self.uri = f"ws://127.0.0.1:{port}"

    def refused(self, reason: str) -> float:
        return self.metrics.refused.labels(reason)._value.get()


class Memo(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        self.records.append(record)


@contextmanager
def serving(
    decider, *, shapes=None, takes_goal=False, token=None, max_batch=32, window_s=0.0, metadata=None, **limits
):
    """A server in a thread of its own, until the block ends."""
    metrics, memo = Metrics(), Memo()
    log = logging.Logger("test", logging.INFO)
    log.addHandler(memo)
    reader = RequestReader(shapes=shapes or {"state": (3,)}, takes_goal=takes_goal)
    batcher = Batcher(
        decider,
        expected=lambda: server.num_connections,
        max_batch=max_batch,
        window_s=window_s,
        watch=metrics.decided,
    )
    server = PolicyServer(
        batcher,
        reader,
        Limits(**(LIMITS | limits)),
        metadata=metadata or {"task": "echo", "horizon": HORIZON},
        token=token,
        metrics=metrics,
        log=log,
    )
    started, loop = threading.Event(), asyncio.new_event_loop()
    stopping = asyncio.Event()
    found: dict[str, Any] = {}

    async def live() -> None:
        listening = await server.start("127.0.0.1", 0)
        found["port"] = listening.sockets[0].getsockname()[1]
        started.set()
        await stopping.wait()
        await server.stop(listening)

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    with batcher:
        thread.start()
        assert started.wait(10)
        running = Running(server, metrics, memo, found["port"])
        running.stop = lambda: loop.call_soon_threadsafe(stopping.set)
        try:
            yield running
        finally:
            running.stop()
            thread.join(20)
            assert not thread.is_alive()
            loop.close()


def wait_until(holds) -> None:
    """Fails after some seconds in which it did not hold."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def openpi_packed(message: Any) -> bytes:
    """As openpi's client packs: maps with bytes for keys, no extension types."""

    def encoded(value):
        if isinstance(value, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": value.tobytes(),
                b"dtype": value.dtype.str,
                b"shape": value.shape,
            }
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return value

    return msgpack.Packer(default=encoded).pack(message)


def openpi_unpacked(frame: bytes) -> Any:
    def decoded(found):
        if b"__ndarray__" in found:
            dtype = np.dtype(found[b"dtype"])
            return np.ndarray(buffer=found[b"data"], dtype=dtype, shape=found[b"shape"])
        return found

    return msgpack.unpackb(frame, object_hook=decoded)


class OpenpiClient:
    """What openpi's client does on the wire: the server speaks first, and a text frame is an error."""

    def __init__(self, uri: str, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self.connection = websockets.sync.client.connect(
            uri, compression=None, max_size=None, additional_headers=headers
        ).__enter__()
        self.metadata = openpi_unpacked(self.connection.recv())

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.connection.send(openpi_packed(observation))
        answer = self.connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(f"Error in inference server:\n{answer}")
        return openpi_unpacked(answer)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.connection.close()
