"""Mutated files by the thousand: each is read or refused in words, and none runs code or fills the memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import VICTIMS
from mutation import ODD, SECRET, mutated_bytes, mutated_value, resealed

ROOT = Path(__file__).parents[2]
GROWTH_MB = 800  # of which imports on the way and one batch of images are a part
# So many mutants, and how much of them may be read all the same: many changes do no harm.
THIN = {"checkpoint": 12, "resumed": 8, "manifest": 30, "shard": 30, "config": 30, "mjcf": 30}


def attacked(kind: str, folder: Path, count: int, seed: int) -> dict:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    command = [sys.executable, str(Path(__file__).with_name("hostile_files.py")), kind, str(folder)]
    done = subprocess.run(
        [*command, str(count), str(seed)], env=environment, capture_output=True, text=True, timeout=7000
    )
    assert done.returncode == 0, f"{kind}: the process ended with {done.returncode}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict, count: int) -> None:
    assert found["faults"] == []
    assert set(found["outcomes"]) <= {"read", "refused"}
    assert sum(found["outcomes"].values()) == count
    assert found["outcomes"]["refused"] > count / 10
    assert found["grown_mb"] < GROWTH_MB


@pytest.mark.parametrize("kind", THIN)
def test_mutated_files_are_read_or_refused(tmp_path, kind):
    check(attacked(kind, tmp_path, THIN[kind], seed=0), THIN[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", THIN)
def test_a_thousand_mutated_files(tmp_path, kind):
    check(attacked(kind, tmp_path, 1000, seed=1), 1000)


def test_every_kind_is_attacked():
    assert set(THIN) == set(VICTIMS)


def test_the_guard_sees_what_it_is_there_for(tmp_path):
    """A reader that unpickles, runs, starts and opens what it must not is told of, event by event."""
    script = f"""
import os, pickle, subprocess, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from hostile_files import Guard
from mutation import PAYLOAD, PICKLE, SECRET
os.chdir({str(tmp_path)!r})
def quietly(act):
    try:
        act()
    except OSError:
        pass
guard = Guard()
for act in (
    lambda: pickle.loads(PICKLE),
    lambda: eval(PAYLOAD),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: open("../" + SECRET),
    lambda: len("nothing"),
):
    with guard.on():
        quietly(act)
    print(*sorted({{event.split()[0] for event in guard.found}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] if line else "" for line in lines] == [
        "pickle.find_class",
        "compile",
        "subprocess.Popen",
        "os.system",
        "open",
        "",
    ]


def test_mutations_change_and_reach_everything():
    import numpy as np

    rng = np.random.default_rng(0)
    value = {"a": [1, {"b": 2.5}], "c": "text"}
    made = [mutated_value(rng, value) for _ in range(300)]
    assert value == {"a": [1, {"b": 2.5}], "c": "text"}
    changed = [json.dumps(each) for each in made if json.dumps(each) != json.dumps(value)]
    assert len(set(changed)) > 100
    assert any(SECRET in each for each in changed)
    assert any(isinstance(each, dict) and "c" not in each for each in made)
    assert any(str(odd) in "".join(changed) for odd in ODD if isinstance(odd, str) and len(odd) > 5)
    assert len({mutated_bytes(rng, bytes(100)) for _ in range(50)}) > 40


def test_a_resealed_state_is_believed(tmp_path):
    from worldmodel.errors import CheckpointError
    from worldmodel.training.checkpoint_state import read_state

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    state = {"format": 3, "size": {}, "settings": {}, "info": {}, "files": {"model.safetensors": "old"}}
    (tmp_path / "state.json").write_text(json.dumps(state | {"digest": "wrong"}))
    with pytest.raises(CheckpointError, match="altered"):
        read_state(tmp_path, "")
    (tmp_path / "state.json").write_bytes(resealed(json.dumps(state).encode(), tmp_path))
    assert read_state(tmp_path, "")["files"]["model.safetensors"] != "old"
