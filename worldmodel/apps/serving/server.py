"""The policy server: openpi's websocket protocol around a batcher."""

import asyncio
import hmac
import http
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from worldmodel.apps.serving.batching import Batcher
from worldmodel.apps.serving.limits import (
    GOING_AWAY,
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    Limits,
    Rate,
    Refusal,
)
from worldmodel.apps.serving.log import websockets_log
from worldmodel.apps.serving.metrics import CONTENT_TYPE, Metrics
from worldmodel.apps.serving.request import Request, RequestReader
from worldmodel.apps.sessions import Session
from worldmodel.errors import MessageError
from worldmodel.remote.codec import pack, unpack

_LARGE = 100_000  # bytes of a message that is read in another thread: resizing an image takes a while
_PING_S = 20.0
_CLOSE_S = 2.0  # for the other side to agree that a connection is over


@dataclass
class Visitor:
    """One open connection."""

    number: int
    rate: Rate
    session: Session = field(default_factory=Session)
    num_requests: int = 0
    last_total_ms: float | None = None
    is_busy: bool = False  # between a request and its answer


class PolicyServer:
    """Answers robots until it is told to stop.

    - `batcher`: who decides; `reader`: what is understood.
    - `metadata`: the first message to every robot.
    - `token`: who connects must know it; None: all may.
    """

    def __init__(
        self,
        batcher: Batcher,
        reader: RequestReader,
        limits: Limits,
        *,
        metadata: Mapping[str, Any],
        token: str | None,
        metrics: Metrics,
        log: logging.Logger,
    ) -> None:
        self._batcher, self._reader, self._limits = batcher, reader, limits
        self._metadata, self._token = pack(dict(metadata)), token
        self._metrics, self._log = metrics, log
        self._visitors: dict[ServerConnection, Visitor] = {}
        self._num_opened = 0
        self._is_stopping = False

    @property
    def num_connections(self) -> int:
        """How many are open."""
        return len(self._visitors)

    async def start(self, host: str, port: int) -> Server:
        """Listen. Errors: `OSError` where that is not possible."""
        return await serve(
            self._handle,
            host,
            port,
            process_request=self._admit,
            origins=[None],  # a browser names the page that asks: no page may drive a robot
            compression=None,
            max_size=self._limits.message_bytes,
            max_queue=1,
            open_timeout=self._limits.handshake_s,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_S,
            server_header="worldmodel",
            logger=websockets_log(self._log),
        )

    async def stop(self, server: Server) -> None:
        """Listen no more, answer what is under way, and say goodbye."""
        self._is_stopping = True
        server.close(close_connections=False)
        idle = [connection for connection, visitor in self._visitors.items() if not visitor.is_busy]
        await asyncio.gather(*(self._close(connection, _goodbye()) for connection in idle))
        until = time.perf_counter() + self._limits.drain_s
        while self._visitors and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(self._close(connection, _goodbye()) for connection in self._visitors))
        with suppress(TimeoutError):  # of those that connected and never said a word
            async with asyncio.timeout(_CLOSE_S):
                await server.wait_closed()

    def _admit(self, connection: ServerConnection, handshake: Handshake) -> Response | None:
        """Answer what is no websocket; let in who may come in."""
        path = handshake.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self._knows_token(handshake):
            return self._deny(connection, http.HTTPStatus.UNAUTHORIZED, "token", _TOKEN_MISSING)
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self._metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        if len(self._visitors) >= self._limits.connections:
            text = f"all {self._limits.connections} connections are taken (limits.connections)\n"
            return self._deny(connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "connections", text)
        return None

    def _deny(
        self, connection: ServerConnection, status: http.HTTPStatus, reason: str, text: str
    ) -> Response:
        self._metrics.refused.labels(reason).inc()
        self._log.warning("refused", extra={"about": {"reason": reason, "peer": _peer(connection)}})
        return connection.respond(status, text)

    def _knows_token(self, handshake: Handshake) -> bool:
        """Compared in constant time, so that time tells nothing of it."""
        if self._token is None:
            return True
        given = handshake.headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        is_known = hmac.compare_digest(token.strip().encode(errors="replace"), self._token.encode())
        return is_known and scheme.lower() in ("bearer", "api-key")

    async def _handle(self, connection: ServerConnection) -> None:
        """One connection, from its first frame to its last."""
        self._num_opened += 1
        visitor = Visitor(self._num_opened, Rate(self._limits.requests_per_s, time.perf_counter()))
        began, ended = time.perf_counter(), ""
        self._visitors[connection] = visitor
        self._metrics.opened.inc()
        self._metrics.connections.set(len(self._visitors))
        about = {"connection": visitor.number, "peer": _peer(connection)}
        self._log.info("opened", extra={"about": about})
        try:
            if len(self._visitors) > self._limits.connections:  # several were let in at the same moment
                raise _too_many(self._limits.connections)
            await connection.send(self._metadata)
            while True:
                await self._exchange(connection, visitor)
        except ConnectionClosed as closed:
            ended = _how_closed(closed)
        except Refusal as refusal:
            ended = f"{refusal.code} {refusal}"
            if refusal.reason != "stopping":
                self._metrics.refused.labels(refusal.reason).inc()
                self._log.warning(
                    "refused", extra={"about": about | {"reason": refusal.reason, "message": str(refusal)}}
                )
            await self._close(connection, refusal)
        finally:
            del self._visitors[connection]
            self._metrics.connections.set(len(self._visitors))
            seconds = round(time.perf_counter() - began, 3)
            told = {"requests": visitor.num_requests, "seconds": seconds, "ended": ended}
            self._log.info("closed", extra={"about": about | told})

    async def _exchange(self, connection: ServerConnection, visitor: Visitor) -> None:
        """One request and its answer. Errors: `Refusal`, which ends the connection."""
        if self._is_stopping:
            raise _goodbye()
        limits = self._limits
        try:
            async with asyncio.timeout(limits.idle_s):
                frame = await connection.recv()
        except TimeoutError:
            message = f"no request for {limits.idle_s:g} s (limits.idle_s)"
            raise Refusal(GOING_AWAY, "idle", message, is_told=False) from None
        began = time.perf_counter()
        visitor.is_busy = True
        try:
            if not visitor.rate.allows(began):
                message = f"more than {limits.requests_per_s:g} requests per second (limits.requests_per_s)"
                raise Refusal(POLICY_VIOLATION, "rate", message)
            async with asyncio.timeout(limits.request_s):
                answer = await self._answer(frame, visitor, began)
                await connection.send(answer)
        except TimeoutError:
            message = f"no answer within {limits.request_s:g} s (limits.request_s)"
            raise Refusal(TRY_AGAIN_LATER, "time", message) from None
        except MessageError as error:
            raise Refusal(INTERNAL_ERROR, "message", str(error)) from error
        finally:
            visitor.is_busy = False
        visitor.num_requests += 1
        visitor.last_total_ms = 1e3 * (time.perf_counter() - began)
        self._metrics.request_seconds.observe(visitor.last_total_ms / 1e3)

    async def _answer(self, frame: str | bytes, visitor: Visitor, began: float) -> bytes:
        if isinstance(frame, str):
            raise MessageError("a text frame: send binary frames with MessagePack")
        request = await asyncio.to_thread(self._read, frame) if len(frame) > _LARGE else self._read(frame)
        if self._reader.takes_goal and request.goal is None and visitor.session.goal is None:
            names = " and ".join(f"goal/{key}" for key in self._reader.shapes)
            raise MessageError(f"{names} missing: this model plans to a goal, which must come with the first")
        plan = await self._plan(visitor, request)
        timing = {"infer_ms": 1e3 * (time.perf_counter() - began)}
        if visitor.last_total_ms is not None:
            timing["prev_total_ms"] = visitor.last_total_ms
        answer: dict[str, Any] = {"actions": plan, "server_timing": timing}
        if request.request_id is not None:
            answer["request_id"] = request.request_id
        return pack(answer)

    def _read(self, frame: bytes) -> Request:
        return self._reader.read(unpack(frame))

    async def _plan(self, visitor: Visitor, request: Request) -> np.ndarray:
        try:
            return await asyncio.wrap_future(self._batcher.submit(visitor.session, request))
        except Exception as error:  # a fault of ours, or a model that gives no numbers
            self._log.exception("fault", extra={"about": {"connection": visitor.number}})
            message = f"planning failed ({type(error).__name__}); the server's log tells more"
            raise Refusal(INTERNAL_ERROR, "fault", message) from error

    async def _close(self, connection: ServerConnection, refusal: Refusal) -> None:
        """Tell why, and end it; whoever does not listen is cut off."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                if refusal.is_told:
                    await connection.send(str(refusal))
                await connection.close(refusal.code, refusal.close_reason)
        except ConnectionClosed:
            pass
        except TimeoutError:  # what was sent before is still on its way: even a goodbye waits behind it
            connection.transport.abort()


_TOKEN_MISSING = (
    "the header Authorization: Bearer TOKEN (or Api-Key TOKEN) is missing, or its token is wrong\n"
)


def _goodbye() -> Refusal:
    return Refusal(GOING_AWAY, "stopping", "the server is shutting down", is_told=False)


def _too_many(most: int) -> Refusal:
    message = f"all {most} connections are taken (limits.connections)"
    return Refusal(TRY_AGAIN_LATER, "connections", message)


def _how_closed(closed: ConnectionClosed) -> str:
    if closed.sent is not None and not closed.rcvd_then_sent:
        return f"{closed.sent.code} {closed.sent.reason}"
    return "the connection was lost" if closed.rcvd is None else "closed by the robot"


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "gone"
