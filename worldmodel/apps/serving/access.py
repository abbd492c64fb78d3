"""Who may connect: this machine, or whoever knows the token."""

import ipaddress
import os
from pathlib import Path

from worldmodel.errors import ConfigError

TOKEN_VARIABLE = "WORLDMODEL_TOKEN"  # not on the command line, where everybody on the machine sees it
_LEAST_LENGTH = 16


def read_token(host: str, path: str | None) -> str | None:
    """The content of the file, or of the environment; None where neither is given, on this machine alone.

    Errors: `ConfigError` for a token that can be guessed, and where one is needed.
    """
    token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    if path is not None:
        source = f"token_file={path}"
        try:
            token = Path(path).read_text()
        except OSError as error:
            raise ConfigError(f"cannot read {source}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"cannot read {source}: it is no text") from error
    if token is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"host={host} is reached from other machines: set {TOKEN_VARIABLE} in the environment, or give "
            "token_file=, so that not everybody can drive the robot (host=127.0.0.1 needs no token)"
        )
    token = token.strip()
    if len(token) < _LEAST_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{source}: a token is one word of at least {_LEAST_LENGTH} ASCII characters, such as what "
            "`openssl rand -hex 32` gives"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
