"""How much a robot may ask of a policy server, and how it is told that it was too much."""

from dataclasses import dataclass
from typing import Any

from worldmodel.errors import ConfigError

# Close codes of RFC 6455, section 7.4.1, and of the registry that it names.
GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1001, 1008, 1011, 1013
_MAX_REASON_BYTES = 123  # of a close frame


class Refusal(Exception):
    """Ends a connection.

    - `code`: of the close frame.
    - `reason`: in a word, as it is counted.
    - `is_told`: whether a robot waits for an answer: it then gets the message as a text frame before.
    """

    def __init__(self, code: int, reason: str, message: str, *, is_told: bool = True) -> None:
        super().__init__(message)
        self.code, self.reason, self.is_told = code, reason, is_told

    @property
    def close_reason(self) -> str:
        """The message, cut to what a close frame holds."""
        return str(self).encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server and each of its connections may take.

    - `connections`: open at the same time.
    - `message_bytes`: of one message.
    - `requests_per_s`: of one connection; a burst of one second's worth may come at once.
    - `idle_s`, `request_s`, `handshake_s`: without a request; from a request to its answer; from connecting
      to the first frame.
    - `drain_s`: for the answers under way when the server stops.
    """

    connections: int
    message_bytes: int
    requests_per_s: float
    idle_s: float
    request_s: float
    handshake_s: float
    drain_s: float

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Limits":
        """The part `limits` of `configs/serve.yaml`. Errors: `ConfigError`."""
        for key, value in config.items():
            if not value > 0:
                raise ConfigError(f"limits.{key}={value}: must be above 0")
        others = {key: value for key, value in config.items() if key != "message_mb"}
        return cls(message_bytes=round(config["message_mb"] * 1e6), **others)


class Rate:
    """A bucket that holds one second's worth of requests, and fills evenly."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s, self._at = per_s, now
        self._most = max(1.0, per_s)
        self._left = self._most

    def allows(self, now: float) -> bool:
        """Take one out, if there is one."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
