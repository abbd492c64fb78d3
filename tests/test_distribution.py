"""What is published: the source archive, and the wheel that is built from it, tried from another folder."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def ran(*command: str, cwd: Path, **environment: str) -> str:
    given = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb"} | environment
    done = subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The source archive of the tree, unpacked elsewhere."""
    folder = tmp_path_factory.mktemp("source")
    ran(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    (archive,) = folder.glob("worldmodel-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (source,) = [path for path in folder.iterdir() if path.is_dir()]
    return source


@pytest.fixture(scope="module")
def wheel(unpacked) -> Path:
    """The wheel that is built from the source archive."""
    folder = unpacked.parent / "wheel"
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=unpacked)
    (file,) = folder.glob("worldmodel-*-py3-none-any.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """A folder in which the wheel is installed, and nothing else."""
    folder = wheel.parent / "installed"
    ran(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        str(wheel),
        cwd=wheel.parent,
    )
    return folder


def listed(folder: Path) -> set[str]:
    out = subprocess.run(["git", "ls-files"], cwd=folder, capture_output=True, text=True)
    if out.returncode:  # an archive, and no clone
        pytest.skip("only a clone knows which files are its own")
    return set(out.stdout.splitlines())


def test_the_source_archive_holds_all_that_is_in_the_repository(unpacked):
    held = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert listed(ROOT) - held == set()
    assert held - listed(ROOT) <= {"PKG-INFO"}


def test_the_wheel_holds_code_configs_and_models_alone(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    packages = ("worldmodel", "envs", "planners", "configs")
    code = {name for name in held if ".dist-info/" not in name}
    expected = {
        name for name in listed(ROOT) if name.startswith(tuple(f"{package}/" for package in packages))
    }
    assert code == expected
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in held)


def test_the_wheel_acts_learns_and_collects_from_another_folder(installed, tmp_path):
    def worldmodel(*words: str) -> str:
        return ran(sys.executable, "-m", "worldmodel", *words, cwd=tmp_path, PYTHONPATH=str(installed))

    where = ran(
        sys.executable, "-c", "import worldmodel, envs, planners, configs as c\n"
        "print(worldmodel.__file__, envs.__file__, planners.__file__, c.__file__)",
        cwd=tmp_path, PYTHONPATH=str(installed),
    )  # fmt: skip
    assert all(word.startswith(str(installed)) for word in where.split())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert worldmodel("--version") == f"worldmodel {version}\n"
    few = ["episodes=1", "video=false", "alarm=off", "planner.num_candidates=16", "planner.num_elites=8"]
    worldmodel("control", "checkpoint=pretrained/cartpole-swingup", *few)
    worldmodel("collect", "task=tworoom", "policy=colored", "episodes=2", "dataset=data")
    assert re.search(r"ok: 2 episodes", worldmodel("data", "validate", "dataset=data"))
    tiny = [
        "env_steps=300",
        "random_steps=100",
        "eval_episodes=1",
        "training.update_ratio=0.1",
        "model.hidden_dim=16",
    ]
    worldmodel("train", "task=cartpole-balance", "env.action_repeat=10", "num_envs=1", "run_dir=run", *tiny)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == [
        "checkpoints",
        "dataset",
    ]


def test_the_tests_of_the_source_archive_run(unpacked):
    """A thin slice, on the archive's own code."""
    tests = [
        "tests/remote",
        "tests/data/test_statistics.py",
        "tests/test_files.py",
        "tests/model/test_model_layers.py",
    ]
    out = ran(
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        *tests,
        cwd=unpacked,
        PYTHONPATH=str(unpacked),
    )
    assert re.search(r"\d+ passed", out)


def test_the_version_stands_in_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0].startswith(("Unreleased", version))
