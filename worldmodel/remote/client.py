"""The robot's end of the line: ask a policy server for plans."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from worldmodel.errors import RemoteError
from worldmodel.remote.codec import pack, unpack

_REFUSING = (1003, 1007, 1008, 1009, 1011, 1013)  # close codes after which asking the same again is no use
_BUSY = 503
_MAX_ANSWER_BYTES = 16_000_000
_CLOSE_S = 2.0


class Client:
    """Asks `worldmodel serve`, or any other server of openpi's websocket protocol.

        with Client("ws://127.0.0.1:8000") as client:
            actions = client.act({"state": state})  # (H, A): do the first, then ask again

    - `uri`: ws://HOST:PORT, or wss:// behind a proxy that encrypts.
    - `token`: what the server wants to know of who connects.
    - `timeout_s`: how long an answer is waited for.
    - `patience_s`: how long a server that is not there, or full, is tried again and again; at the start, and
      whenever the connection is lost. The server then knows nothing of what was before: a new episode.

    It connects when it is made. Errors: `RemoteError`, here and in every method that asks.
    """

    def __init__(
        self,
        uri: str = "ws://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        patience_s: float = 10.0,
    ) -> None:
        if not uri.startswith(("ws://", "wss://")):
            raise RemoteError(f"{uri}: write ws://HOST:PORT")
        self.uri, self.metadata = uri, dict[str, Any]()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._goal: dict[str, Any] = {}
        self._is_new_episode = True
        self._num_asked = 0
        self._connection: ClientConnection | None = self._connect()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def reset(self, goal: Mapping[str, np.ndarray] | None = None) -> None:
        """A new episode begins with the next observation; `goal` {key: (...)} is what it shall lead to."""
        self._is_new_episode = True
        if goal is not None:
            self._goal = {f"goal/{key}": np.asarray(value) for key, value in goal.items()}

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """The plan (H, A) from an observation {key: (...)}; actions lie in [-1, 1].

        Errors: `RemoteError` for an answer without any, or with some that are no finite numbers: a robot does
        what it is told.
        """
        actions = self.infer(observation).get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.dtype.kind != "f":
            raise RemoteError(f"{self.uri} gave no actions (H, A)")
        if not np.isfinite(actions).all():
            raise RemoteError(f"{self.uri} gave actions that are no finite numbers")
        return actions

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer: `actions` (H, A), `server_timing`, and what else the server tells.

        A connection that is lost is opened anew, once, and asked again.
        """
        for is_last in (False, True):
            if self._connection is None:
                self._connection, self._is_new_episode = self._connect(), True
            self._num_asked += 1
            message = {**observation, "request_id": self._num_asked}
            if self._is_new_episode:
                message |= {**self._goal, "reset": True}
            try:
                return self._exchange(self._connection, pack(message))
            except ConnectionClosed as closed:
                self._connection = None
                code = closed.rcvd.code if closed.rcvd is not None else None
                if is_last or code in _REFUSING:
                    reason = closed.rcvd.reason if closed.rcvd is not None else "the connection is lost"
                    raise RemoteError(f"{self.uri}: {reason or f'closed with code {code}'}") from closed
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Say goodbye."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, connection: ClientConnection, frame: bytes) -> dict[str, Any]:
        try:
            connection.send(frame)
            received = connection.recv(timeout=self._timeout_s)
        except TimeoutError:
            self.close()  # or a late answer would be taken for the next one
            raise RemoteError(f"{self.uri} gave no answer within {self._timeout_s:g} s") from None
        if isinstance(received, str):
            self.close()
            raise RemoteError(f"{self.uri} refuses: {received}")
        answer = unpack(received)
        if not isinstance(answer, dict) or answer.get("request_id", self._num_asked) != self._num_asked:
            self.close()
            raise RemoteError(f"{self.uri} answers something else than was asked")
        self._is_new_episode = False
        return answer

    def _connect(self) -> ClientConnection:
        """Try until it works, or patience ends; the first frame is the metadata."""
        until, pause_s = time.monotonic() + self._patience_s, 0.05
        while True:
            try:
                return self._connect_once()
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                if isinstance(error, InvalidStatus) and error.response.status_code != _BUSY:
                    body = (error.response.body or b"").decode(errors="replace").strip()
                    code = error.response.status_code
                    raise RemoteError(f"{self.uri} refuses (HTTP {code}): {body}") from error
                if time.monotonic() + pause_s > until:
                    raise RemoteError(f"{self.uri} cannot be reached: {_told(error)}") from error
            except InvalidURI as error:
                raise RemoteError(f"{self.uri}: {error}") from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    def _connect_once(self) -> ClientConnection:
        opened = connect(
            self.uri,
            additional_headers=self._headers,
            compression=None,
            open_timeout=self._timeout_s,
            close_timeout=_CLOSE_S,
            max_size=_MAX_ANSWER_BYTES,
        )
        # It warns where it is not entered; `close` is all that its exit does.
        connection = cast(ClientConnection, opened.__enter__())
        try:
            first = connection.recv(timeout=self._timeout_s)
        except BaseException:
            with suppress(OSError):
                connection.close()
            raise
        self.metadata = unpack(first) if isinstance(first, bytes) else {}
        return connection


def _told(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, InvalidStatus):
        return (error.response.body or b"the server is busy").decode(errors="replace").strip()
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
