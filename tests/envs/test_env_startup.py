"""What happens before the first task: imports, the OpenGL library, versions."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from envs import rendering, versions
from envs.errors import IncompatibleVersionsError


def test_import_is_light_and_chooses_opengl():
    code = (
        "import os, sys, envs\n"
        "heavy = {'torch', 'mujoco', 'dm_control', 'planners', 'worldmodel'} & set(sys.modules)\n"
        "print(sorted(heavy), os.environ['MUJOCO_GL'])\n"
    )
    environ = {
        key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    }
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert result.stdout.strip() in ("[] egl", "[] osmesa", "[] off")


def test_making_a_task_imports_no_torch():
    code = "import sys, envs; envs.make('cartpole-swingup').reset(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "has_egl", "has_osmesa", "expected"),
    [
        ({}, True, True, {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}),
        ({}, False, True, {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}),
        ({}, False, False, {"MUJOCO_GL": "off"}),
        ({"MUJOCO_GL": "glfw"}, True, True, {"MUJOCO_GL": "glfw"}),
        ({"MUJOCO_GL": "osmesa"}, True, True, {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}),
        (
            {"PYOPENGL_PLATFORM": "osmesa"},
            True,
            True,
            {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"},
        ),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"},
            True,
            True,
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"},
        ),
    ],
)
def test_opengl_library_is_the_first_that_works(monkeypatch, given, has_egl, has_osmesa, expected):
    monkeypatch.setattr(rendering, "egl_initialises", lambda: has_egl)
    monkeypatch.setattr(rendering, "osmesa_loads", lambda: has_osmesa)
    environ = dict(given)
    assert rendering.choose_gl_backend(environ, "linux") == expected["MUJOCO_GL"]
    assert environ == expected


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_choose_themselves(platform):
    environ: dict[str, str] = {}
    assert rendering.choose_gl_backend(environ, platform) == ""
    assert environ == {}


def test_a_missing_egl_library_is_no_crash(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(rendering.ctypes, "CDLL", missing)
    assert rendering.egl_initialises() is False
    assert rendering.osmesa_loads() is False


@pytest.mark.parametrize(
    ("mujoco", "dm_control"),
    [
        ("3.17.0", "1.0.50"),
        ("3.11.0", "1.0.44"),
        ("3.8.1", "1.0.40"),  # older than the table
        ("3.18.0", "1.0.51"),  # newer than the table
        ("4.0.1", "1.1.0"),
        ("3.17.0rc1", "1.0.50"),
    ],
)
def test_pairs_that_run_or_may_run_pass(mujoco, dm_control):
    versions.check_pair(mujoco, dm_control)


@pytest.mark.parametrize(
    ("mujoco", "dm_control", "way_out"),
    [
        ("4.0.0", "1.0.50", "pip install 'mujoco==3.17.*' 'dm-control==1.0.50'"),
        ("4.0.0", "1.0.42", "pip install 'mujoco==3.17.*' 'dm-control==1.0.50'"),
        ("3.16.0", "1.0.50", "pip install 'mujoco==3.17.*'"),
        ("3.17.0", "1.0.44", "needs mujoco 3.11, so run pip install 'mujoco==3.11.*'"),
    ],
)
def test_pairs_that_break_are_refused_with_the_pair_to_install(mujoco, dm_control, way_out):
    with pytest.raises(IncompatibleVersionsError) as caught:
        versions.check_pair(mujoco, dm_control)
    assert f"mujoco {mujoco} and dm-control {dm_control} do not run together" in str(caught.value)
    assert way_out in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_the_installed_pair_passes():
    versions.check_installed_pair()


def test_a_missing_package_is_named(monkeypatch):
    def missing(package):
        raise versions.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(versions.metadata, "version", missing)
    with pytest.raises(IncompatibleVersionsError, match=r"mujoco is not installed.*pip install mujoco"):
        versions.check_installed_pair()


def test_a_failing_import_names_both_versions_and_a_pair(monkeypatch):
    monkeypatch.setattr(versions, "installed_pair", lambda: ("3.19.0", "1.0.52"))
    message = str(versions.pair_failure(AttributeError("no 'flex_vertedge'")))
    assert "AttributeError: no 'flex_vertedge'" in message
    assert "mujoco 3.19.0 and dm-control 1.0.52" in message
    assert "pip install 'mujoco==3.17.*' 'dm-control==1.0.50'" in message


def test_the_project_installs_no_pair_that_is_not_known_to_run():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    pairs = versions._MUJOCO_MINOR_OF_DM_CONTROL
    newest = max(pairs)
    assert f"mujoco>=3.{pairs[44]},<3.{pairs[newest] + 1}" in project["dependencies"]
    assert f"dm-control>=1.0.44,<1.0.{newest + 1}" in project["dependencies"]
