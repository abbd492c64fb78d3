"""ray_address=: a cluster that runs is joined where it asks for its token, or nobody else reaches it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from processes import descendants, end, free_port, start
from test_apps_collect import POINT, by_number, collect, same

from worldmodel.apps import cluster
from worldmodel.errors import RunError

for switch in (cluster.BEYOND_THIS_MACHINE, cluster.STATISTICS):
    os.environ[switch] = "0"  # so that Ray takes 127.0.0.1 for what it is, not for this machine's address
pytest.importorskip("ray")
grpc = pytest.importorskip("grpc")

GUIDE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
TOKEN = "a-token-of-a-cluster-for-a-test-only"


@pytest.fixture(autouse=True)
def no_token(tmp_path, monkeypatch):
    """Whoever runs the tests may have one."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Head(grpc.GenericRpcHandler):
    """Answers as a cluster's head does who it is, to anybody or to those who know its token."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    def service(self, details):
        given = dict(details.invocation_metadata).get("authorization")

        def answer(request, context):
            if self.token is not None and given != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def head() -> Iterator[Callable[[str | None], int]]:
    """Starts a `Head`; its port, at which it can be reached from everywhere."""
    with ThreadPoolExecutor(1) as threads:
        servers = []

        def begin(token: str | None) -> int:
            servers.append(grpc.server(threads, (Head(token),)))
            port = servers[-1].add_insecure_port("0.0.0.0:0")
            servers[-1].start()
            return port

        yield begin
        for server in servers:
            server.stop(None).wait()


def joining(tmp_path, address: str) -> list[str]:
    return ["collect", f"dataset={tmp_path / 'a'}", *POINT, "launcher=ray", f"ray_address={address}"]


def test_a_cluster_that_asks_nobody_for_a_token_is_joined_on_this_machine_alone(tmp_path, head, refused):
    from worldmodel.apps.cluster.access import check_access

    port = head(None)
    line = refused(*joining(tmp_path, f"0.0.0.0:{port}"))
    assert f"whoever reaches 0.0.0.0:{port} can run code there, since that cluster asks for no token" in line
    assert line.replace(f"0.0.0.0:{port}", "10.0.0.5:6379") in GUIDE
    check_access(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "none is given"),
        ({"RAY_AUTH_TOKEN": TOKEN}, "none is given"),  # Ray does not give it unless it is told to
        ({"RAY_AUTH_MODE": "token"}, "none is given"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}, "it is not the one here"),
    ],
)
def test_without_the_token_the_way_to_it_is_told(head, monkeypatch, environment, problem):
    from worldmodel.apps.cluster.access import check_access

    port = head(TOKEN)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(RunError) as told:
            check_access(f"{host}:{port}")
        assert f"that cluster asks for its token, and {problem}: copy ~/.ray/auth_token from the" in str(
            told.value
        )
        assert "or set RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token" in str(told.value)


def test_the_token_is_found_where_ray_finds_it(tmp_path, head, monkeypatch):
    from worldmodel.apps.cluster.access import check_access

    address = f"0.0.0.0:{head(TOKEN)}"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / ".ray" / "auth_token").write_text(f"{TOKEN}\n")
    check_access(address)
    (tmp_path / "home" / ".ray" / "auth_token").write_text("another")
    (tmp_path / "elsewhere").write_text(TOKEN)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    check_access(address)
    (tmp_path / "elsewhere").write_text("another")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    check_access(address)


def test_where_no_cluster_answers_it_is_told(tmp_path, refused):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        line = refused(*joining(tmp_path, address))
    assert f"ray_address={address}: no Ray cluster answers at {address} (unavailable). Start one with" in line


@pytest.fixture
def running() -> Iterator[tuple[str, Path]]:
    """The address of a cluster on loopback that `ray start` made, and the home folder with its token."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray puts sockets below it
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(TOKEN)
    names = ("port", "ray-client-server-port", "metrics-export-port", "dashboard-agent-listen-port")
    names += ("dashboard-agent-grpc-port", "runtime-env-agent-port")
    ports = [free_port() for _ in names]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ["--object-store-memory=80000000", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    environment = os.environ | {"HOME": str(home), "RAY_enable_worker_prestart": "0"}
    with (folder / "told").open("wb") as told:
        process = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
    try:
        until = time.monotonic() + 120
        while "Ray runtime started" not in (said := (folder / "told").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.2)
        yield f"127.0.0.1:{ports[0]}", home
    finally:
        whole = descendants(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for number in {process.pid, *whole}:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_episodes_of_a_cluster_that_runs_are_those_that_are_recorded_here(tmp_path, running, monkeypatch):
    address, home = running
    command = ("episodes=5", "num_envs=2", "policy=toy_tasks:push_back")
    refused = end(start(*joining(tmp_path, address), *command))
    assert refused.code == 2
    assert "that cluster asks for its token, and none is given" in refused.err
    assert refused.err.count("\n") == 1
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    joined = end(start(*joining(tmp_path, address), *command, "num_workers=2"))
    assert joined.code == 0, joined.err
    same(by_number(tmp_path / "a"), collect(tmp_path / "here", *command))
