"""What happens on a server, a JSON object in each line of standard error."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from worldmodel.apps.config import closest
from worldmodel.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")
_NAME = "worldmodel.serving"


class JsonLines(logging.Formatter):
    """Time, level and event, what the event is about, and the traceback of a fault of ours."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        entry |= getattr(record, "about", {})
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = repr(record.exc_info[1])
            if record.levelno >= logging.ERROR:
                entry["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(entry)


def open_log(level: str) -> logging.Logger:
    """The server's logger, from this level on. Errors: `ConfigError` for an unknown level."""
    if level not in LEVELS:
        raise ConfigError(
            f"log={level}: there is no such level{closest(level, LEVELS)}. Known: {', '.join(LEVELS)}"
        )
    logger = logging.getLogger(_NAME)
    logger.setLevel(level.upper())
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers = [handler]
    return logger


def websockets_log(logger: logging.Logger) -> logging.Logger:
    """For what the library tells: a stranger's broken handshake is no error of ours."""
    child = logger.getChild("websockets")
    child.setLevel(logging.INFO)  # below, it tells the headers, and with them the token
    child.addFilter(_lowered)
    return child


def _lowered(record: logging.LogRecord) -> bool:
    """Told for whoever debugs, and not to all; without a traceback."""
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger(_NAME).isEnabledFor(logging.DEBUG)
