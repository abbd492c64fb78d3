"""Hours of `serve`, `view` and `control` at once, with a look at their memory every few seconds.

    python tests/reliability/soak.py minutes=60 output=docs/results/reliability

A robot asks the server without an end, and others come and go, some with nonsense; a browser's page (its
websocket) watches the cockpit, and others open it and leave; control plays one episode after the other, also
on the clock. `soak.csv` has a row for each look at each of them, children included; `soak.json` says how fast
each grew per hour, by a straight line through all but the first quarter, which is for warming up.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import viser
import websockets.sync.client

import worldmodel
from worldmodel.apps.provenance import commit, machine

MODEL = "pretrained/cartpole-swingup"
COLUMNS = ("seconds", "subject", "rss_mb", "processes", "threads", "files")
WARM_UP = 0.25  # of the time
START_S = 1800.0  # on a busy machine
WORKS_S, RESTS_S = 0.2, 0.8  # of control, which would take a core for itself
COMMANDS = {
    "serve": ["serve", f"checkpoint={MODEL}", "port=0", "log=warning"],
    "view": ["view", f"checkpoint={MODEL}", "port=0", "speed=0.25", "updates_per_s=5"],
    "control": ["control", f"checkpoint={MODEL}", "episodes=1000000", "video=false"],
    "realtime": [
        *("control", f"checkpoint={MODEL}", "episodes=1000000", "video=false"),
        *("realtime=true", "loop.period_s=0.1"),
    ],
}


def tree_of(pid: int) -> list[int]:
    """A process and all that it has started."""
    pids = [pid]
    for one in pids:
        with suppress(OSError):  # it ended meanwhile
            for task in Path(f"/proc/{one}/task").iterdir():
                pids += [int(word) for word in (task / "children").read_text().split()]
    return pids


def look_at(pid: int) -> dict[str, float]:
    """Memory, processes, threads and open files of a process and all that it has started."""
    found = {"rss_mb": 0.0, "processes": 0, "threads": 0, "files": 0}
    for one in tree_of(pid):
        with suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            if "VmRSS" not in status:
                continue  # it has ended, and nobody has asked yet how
            found["rss_mb"] += int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1e3
            found["threads"] += int(re.search(r"Threads:\s+(\d+)", status)[1])
            found["files"] += len(os.listdir(f"/proc/{one}/fd"))
            found["processes"] += 1
    return found


def growth_per_hour(rows: list[dict]) -> dict[str, float]:
    """MB, threads and files by which one subject grows in an hour, after its warm-up.

    And its largest step from one look to the next, MB, and what it grows without that: what is made once
    is no leak.
    """
    seconds = np.array([row["seconds"] for row in rows])
    after = seconds >= seconds[-1] * WARM_UP
    names = ("rss_mb", "threads", "files")
    values = np.array([[row[name] for name in names] for row in rows], float)
    slopes = np.polyfit(seconds[after] / 3600, values[after], 1)[0]
    steps = np.diff(values[after, 0])
    steps[steps.argmax()] = 0.0
    without = np.polyfit(seconds[after] / 3600, np.cumsum([0.0, *steps]), 1)[0]
    grown = dict(zip(names, map(float, slopes), strict=True))
    return grown | {"step_mb": float(np.diff(values[after, 0]).max()), "rss_mb_without_step": float(without)}


def is_flat(grown: dict[str, float], minutes: float) -> bool:
    """Whether so much growth in an hour, seen for `minutes`, is none: a heap that settles, and one copy of a
    simulator's model. What leaks with each of thousands of plans or pages is far more."""
    time = minutes / 60
    return (
        grown["rss_mb_without_step"] * time < 4
        and grown["step_mb"] < 25
        and grown["threads"] * time < 1
        and grown["files"] * time < 2
    )


@contextmanager
def running(arguments: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A command with its output in a file; it is told to end when the block does."""
    folder.mkdir()
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "worldmodel", *arguments], stdout=stream, stderr=stream, cwd=folder
        )
    try:
        yield process, log
        assert process.poll() is None, log.read_text()[-2000:]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def with_rests(process: subprocess.Popen, visits: "Visits") -> int:
    """Let a process work for a moment and rest for a moment."""
    process.send_signal(signal.SIGSTOP)
    visits.stop.wait(RESTS_S)
    process.send_signal(signal.SIGCONT)
    visits.stop.wait(WORKS_S)
    return 0


def port_in(process: subprocess.Popen, log: Path) -> int:
    """The port that its first lines tell."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"(?:ws|http)://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.2)
    raise AssertionError(f"no port in {log.read_text()!r}")


class Visits:
    """What people do again and again, in threads, until `stop` is set; what fails is kept."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []
        self._threads: list[threading.Thread] = []

    def repeat(self, name: str, visit: Callable[[], int], pause_s: float) -> None:
        """Visits, each of which tells how much it did."""
        self.counts[name] = 0

        def work() -> None:
            while not self.stop.wait(pause_s):
                try:
                    self.counts[name] += visit()
                except Exception as error:
                    if not self.stop.is_set():
                        self.failures.append(f"{name}: {error!r}")

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(30)


def robot_visit(uri: str, visits: Visits, num_steps: int, pause_s: float) -> int:
    """One robot comes, asks for plans, and goes."""
    with worldmodel.Client(uri) as robot:
        state = np.zeros(robot.metadata["observation"]["state"]["shape"], np.float32)
        for step in range(num_steps):
            if visits.stop.wait(pause_s):
                return step
            state[:] = np.sin(step)
            assert robot.act({"state": state}).shape[0] == robot.metadata["horizon"]
    return num_steps


def nonsense_visit(uri: str) -> int:
    """Somebody sends what is no request, and is told."""
    with websockets.sync.client.connect(uri, compression=None) as connection:
        connection.recv()
        connection.send(os.urandom(2000))
        assert isinstance(connection.recv(), str)
    return 1


def page_visit(uri: str, visits: Visits, seconds: float) -> int:
    """A browser's page: it takes what the cockpit sends."""
    until, num_messages = time.monotonic() + seconds, 0
    protocol = websockets.Subprotocol(f"viser-v{viser.__version__}")
    with websockets.sync.client.connect(uri, subprotocols=[protocol], max_size=None) as page:
        while time.monotonic() < until and not visits.stop.is_set():
            with suppress(TimeoutError):
                page.recv(timeout=1.0)
                num_messages += 1
    assert num_messages > 0
    return num_messages


def soak(
    minutes: float, output: Path, subjects: Sequence[str] = tuple(COMMANDS), look_every_s: float = 15.0
) -> dict[str, dict[str, float]]:
    """Run it for so long; how much each subject grows per hour. Both files are written to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    visits = Visits()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = {name: stack.enter_context(running(COMMANDS[name], folder / name)) for name in subjects}
        serve, view = (f"ws://127.0.0.1:{port_in(*started[name])}" for name in ("serve", "view"))
        stack.callback(visits.close)
        visits.repeat("plans of the robot that stays", lambda: robot_visit(serve, visits, 10**9, 0.2), 0.0)
        visits.repeat("plans of robots that come and go", lambda: robot_visit(serve, visits, 20, 0.1), 1.0)
        control = started["control"][0]
        visits.repeat("rests of control", lambda: with_rests(control, visits), 0.0)
        visits.repeat("nonsense that was refused", lambda: nonsense_visit(serve), 5.0)
        visits.repeat("messages to the page that stays", lambda: page_visit(view, visits, 1e9), 0.0)
        visits.repeat("messages to pages that come and go", lambda: page_visit(view, visits, 5.0), 10.0)
        file = stack.enter_context((output / "soak.csv").open("w", newline=""))
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        began = time.monotonic()
        while (seconds := time.monotonic() - began) <= 60 * minutes:
            for name, (process, log) in started.items():
                assert process.poll() is None, (name, log.read_text()[-2000:])
                rows.append({"seconds": round(seconds, 1), "subject": name, **look_at(process.pid)})
                writer.writerow(rows[-1] | {"rss_mb": f"{rows[-1]['rss_mb']:.2f}"})
            file.flush()
            time.sleep(look_every_s)
    growth = {name: growth_per_hour([r for r in rows if r["subject"] == name]) for name in subjects}
    told = {
        "minutes": minutes,
        "commit": commit(),
        "machine": machine(),
        "growth_per_hour": growth,
        "visits": {name: count for name, count in visits.counts.items() if count},
        "failures": visits.failures,
    }
    (output / "soak.json").write_text(json.dumps(told, indent=2) + "\n")
    return growth


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    named = given["subjects"].split(",") if "subjects" in given else tuple(COMMANDS)
    for name, grown in soak(float(given["minutes"]), Path(given["output"]), named).items():
        slopes = ", ".join(f"{key} {value:+.2f}" for key, value in grown.items())
        print(f"{name:<10}{slopes}")
