"""No pickle: none in the source, and none at work while the main jobs run."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("envs", "planners", "worldmodel", "configs")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PICKLERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "pandas",
    "yaml",
}
# Calls that may unpickle or run what they are given, by the last words of their name.
CALLS = {"torch.load", "torch.save", "eval", "exec", "os.system", "os.popen"}
NEEDS_FALSE = {"np.load", "np.save", "np.lib.format.read_array", "np.lib.format.write_array"}


def called(node: ast.Call) -> str:
    try:
        return ast.unparse(node.func)
    except ValueError:
        return ""


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name, keywords = called(node), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or keywords.get("allow_pickle") == "True" or keywords.get("shell") == "True":
                found.append(name)
            if name in NEEDS_FALSE and keywords.get("allow_pickle") != "False":
                found.append(f"{name} without allow_pickle=False")
            if name.endswith(("unsafe_load", ".full_load")):
                found.append(name)
    return found


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(f)", "np.load(f)", "eval(text)",
     "np.load(f, allow_pickle=True)", "import yaml", "subprocess.run(c, shell=True)",
     "def f():\n    import dill.detect"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert offences(source)


def test_the_source_neither_pickles_nor_evaluates():
    assert len(FILES) > 200
    found = {str(path.relative_to(ROOT)): bad for path in FILES if (bad := offences(path.read_text()))}
    assert found == {}


def test_no_dependency_is_asked_for_pickles():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(word for extra in extras for word in extra)]
    assert not {word.split(">")[0].split("[")[0].strip() for word in asked} & PICKLERS


JOBS = """
import io, os, pickle, sys

sys.path[:0] = [{apps!r}]
import torch
import torch._dynamo, h5py, pyarrow.parquet, av  # which have pickles of their own while they are imported
import toy_tasks
from worldmodel.apps.cli import main
from worldmodel.apps.train import make_training
import envs, worldmodel.apps.collect, worldmodel.apps.control, worldmodel.apps.imagine
import worldmodel.apps.datasets.exchange, worldmodel.apps.datasets.show

envs.make("cartpole-balance").close()

def forbidden(*arguments, **words):
    raise AssertionError("something was unpickled, or saved as a pickle")

found = []
sys.addaudithook(lambda event, arguments: found.append(arguments) if event == "pickle.find_class" else None)
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = forbidden
torch.load = torch.save = torch.serialization.load = forbidden

TINY = [word for word in toy_tasks.TINY_TRAINING if not word.startswith(("env_steps=", "env.action_repeat="))]
JOBS = [
    ["train", "task=cartpole-balance", "run_dir=run", "env_steps=400", "env.action_repeat=8", *TINY],
    ["train", "run_dir=run", "resume=true", "env_steps=600"],
    ["control", "checkpoint=run", "episodes=1", "video=false", "alarm=off"],
    ["imagine", "checkpoint=run", "episodes=1", "horizon=3", "decoder.updates=0"],
    ["collect", "checkpoint=run", "policy=planner", "env.action_repeat=8", "episodes=1", "dataset=data"],
    ["data", "validate", "dataset=data"],
    ["data", "compact", "dataset=data"],
    *(["data", "export", "dataset=data", f"format={{name}}", f"output={{output}}"] for name, output in
      (("minari", "minari/a-v0"), ("lerobot", "lerobot"), ("stable-worldmodel", "data.h5"))),
    *(["data", "import", f"source={{source}}", f"format={{name}}", f"output=from-{{name}}", *more]
      for name, source, more in (("minari", "minari/a-v0", []), ("lerobot", "lerobot", []),
                                 ("stable-worldmodel", "data.h5", []))),
    ["train", "dataset=from-lerobot", "run_dir=offline", "num_updates=2", "eval_episodes=1",
     *toy_tasks.TINY[1:]],
    ["control", "checkpoint=pretrained/cartpole-swingup", "episodes=1", "video=false", "alarm=off",
     "planner.num_candidates=16", "planner.num_elites=8", "planner.num_iterations=1"],
]
for job in JOBS:
    assert main(job) == 0, job
assert found == [], found
print("JOBS", len(JOBS))
"""


def test_the_main_jobs_run_where_unpickling_is_an_error(tmp_path):
    script = JOBS.format(apps=str(ROOT / "tests" / "apps"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "JOBS 15"


def test_a_checkpoint_of_the_package_holds_no_pickle():
    """Neither the opcodes of one nor an archive, which torch.load would take for one."""
    kept = sorted((ROOT / "worldmodel" / "pretrained").rglob("*"))
    kinds = {path.suffix for path in kept if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".md"}
    for path in kept:
        if path.is_file():
            assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"), path
