"""Whether a cluster that runs may be joined: it is asked before this process connects, and sends anything."""

import ipaddress
import os
from pathlib import Path

import grpc
from ray._private.services import canonicalize_bootstrap_address

from worldmodel.errors import RunError

# What a joining process asks first. Answered to anybody, or to those with the token alone.
_QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_PATIENCE_S = 10.0
_TOKEN_FILE = Path(".ray") / "auth_token"  # below the home folder


def check_access(address: str) -> None:
    """Whether the cluster at `address` asks for a token that we give; on this machine alone it need not.

    `address`: `auto` or HOST:PORT, as Ray reads them.
    Errors: `RunError` where nobody answers, where whoever reaches the cluster may run code on it, and where
    it does not let us in.
    """
    try:
        found = canonicalize_bootstrap_address(address)
    except ConnectionError:
        found = None
    if found is None:
        raise RunError(
            f"ray_address={address}: no cluster of that kind runs on this machine: `ray start --head` starts "
            "one, or leave out ray_address="
        )
    named = f"ray_address={address}"
    answer = _asked(found, None)
    if answer is grpc.StatusCode.OK:
        if not _is_loopback(found):
            raise RunError(
                f"{named}: whoever reaches {found} can run code there, since that cluster asks for no token. "
                "Stop it, make a token (`ray get-auth-token --generate`), and start it again with "
                "RAY_AUTH_MODE=token"
            )
    elif answer is not grpc.StatusCode.UNAUTHENTICATED:
        raise RunError(
            f"{named}: no Ray cluster answers at {found} ({answer.name.lower()}). Start one with "
            "`ray start --head`, or leave out ray_address= for one on this machine alone"
        )
    elif (token := _token(address)) is None or _asked(found, token) is not grpc.StatusCode.OK:
        problem = "none is given" if token is None else "it is not the one here"
        raise RunError(
            f"{named}: that cluster asks for its token, and {problem}: copy ~/{_TOKEN_FILE} from the "
            "cluster's first machine, or set RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token"
        )


def _token(address: str) -> str | None:
    """What Ray will give: nothing, if it is not told to (but to a cluster that it finds on this machine)."""
    is_found = address == "auto" and not os.environ.get("RAY_ADDRESS")
    if os.environ.get("RAY_AUTH_MODE", "token" if is_found else "").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / _TOKEN_FILE)
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _asked(address: str, token: str | None) -> grpc.StatusCode:
    """How a cluster answers whoever has that token."""
    metadata = None if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_QUESTION)(b"", timeout=_PATIENCE_S, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: whatever it means, others may know it too
        return False
