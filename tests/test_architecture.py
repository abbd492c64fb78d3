"""The house stays as docs/architecture.md draws it."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from planners import BASES, NOISES, PLANNERS
from worldmodel.apps.build import build_planner
from worldmodel.apps.config import compose_config, to_dict
from worldmodel.model import WorldModel, WorldModelSize

ROOT = Path(__file__).parent.parent
PACKAGES = ("envs", "planners", "worldmodel")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(source: str) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "__import__":
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return names


def top_level(source: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(source)}


def fresh_modules(statement: str, *names: str) -> set[str]:
    """Which of these a new process has loaded after the statement."""
    code = f"import sys\n{statement}\nprint(*({set(names)!r} & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(process.stdout.split())


def test_the_reader_of_imports_sees_all_kinds():
    source = (
        "import a.b\nfrom c import d\ndef f():\n    import e as g\n    from h.i import j\n    __import__('k')"
    )
    assert top_level(source) == {"a", "c", "e", "h", "k"}
    assert {"a.b", "c.d", "h.i.j"} <= imported(source)


def test_there_are_files_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)
    assert len(FILES) > 40


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_each_other_only_in_apps(package):
    others = set(PACKAGES) - {package}
    crossing = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in FILES
        if path.is_relative_to(ROOT / package) and not path.is_relative_to(ROOT / "worldmodel" / "apps")
        if (found := others & top_level(path.read_text()))
    }
    assert crossing == {}


def test_only_main_reaches_into_apps():
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if not path.is_relative_to(ROOT / "worldmodel" / "apps")
        and any(name.startswith("worldmodel.apps") for name in imported(path.read_text()))
    }
    assert users == {"worldmodel/__main__.py"}


def test_one_file_knows_hydra():
    users = {str(p.relative_to(ROOT)) for p in FILES if {"hydra", "omegaconf"} & top_level(p.read_text())}
    assert users == {"worldmodel/apps/config.py"}


def test_planners_need_no_simulator_and_envs_no_torch():
    heavy = ("mujoco", "gymnasium", "dm_control", "envs", "worldmodel", "hydra", "torch")
    assert fresh_modules("import planners", *heavy) == {"torch"}
    assert fresh_modules("import envs", "torch", "planners", "worldmodel", "hydra") == set()


def test_the_command_line_starts_without_torch():
    statement = "from worldmodel.apps.cli import compose_config; compose_config('train', [])"
    assert fresh_modules(statement, "torch", "mujoco", "hydra") == {"hydra"}


def test_files_stay_short_and_have_a_subject():
    too_long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) >= 300}
    assert too_long == {}
    assert [str(path) for path in FILES if path.stem in ("utils", "util", "helpers", "misc", "common")] == []


def options(group: str) -> list[str]:
    found = sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))
    assert found
    return found


SIZES = [option for option in options("model") if option != "oracle"]


def settings(group: str, option: str) -> dict:
    return to_dict(compose_config("train", [f"{group}={option}"]))[group]


@pytest.mark.parametrize("option", options("planner"))
def test_every_planner_config_builds_its_planner(option):
    config = settings("planner", option)
    assert option.endswith(config["name"])  # `classical_mppi` is an MPPI
    planner = build_planner(config, action_dim=2)
    assert type(planner) is PLANNERS[config["name"]]
    assert 0 <= config["num_proposals"] < planner.num_candidates
    assert planner.initial_plan(1).mean.shape == (1, config["horizon"], 2)


@pytest.mark.parametrize("option", options("planner"))
def test_every_setting_of_a_planner_stands_in_its_config(option):
    config = settings("planner", option)
    left = set(PLANNERS[config["name"]].__dataclass_fields__) - set(config)
    # The first come from the environment, and two are groups of their own; the best is all that predictive
    # sampling executes.
    assert left <= {"action_dim", "low", "high", "if_all_nan", "basis", "noise", "num_kept", "execute"}


def test_every_planner_has_a_config():
    assert set(PLANNERS) <= set(options("planner"))


@pytest.mark.parametrize("planner", options("planner"))
@pytest.mark.parametrize(
    "override", [f"{group}={option}" for group in ("basis", "noise", "budget") for option in options(group)]
)
def test_every_part_fits_every_planner(planner, override):
    config = to_dict(compose_config("train", [f"planner={planner}", override, "planner.horizon=12"]))[
        "planner"
    ]
    if config["num_elites"] > config["num_candidates"]:
        config["num_elites"] = config["num_candidates"]
    built = build_planner(config, action_dim=2)
    group, _, option = override.partition("=")
    if group != "budget":
        kinds = BASES if group == "basis" else NOISES
        assert type(getattr(built, group)) is kinds[option]
    assert built.initial_plan(1).actions.shape == (1, 12, 2)


@pytest.mark.parametrize("option", SIZES)
def test_every_model_config_builds(option):
    size = WorldModelSize(state_dim=5, action_dim=1, **settings("model", option))
    assert WorldModel(size).num_parameters() > 50_000


def test_models_grow_in_the_order_of_their_names():
    sizes = {
        name: WorldModel(
            WorldModelSize(state_dim=5, action_dim=1, **settings("model", name))
        ).num_parameters()
        for name in SIZES
    }
    assert sizes["tiny"] < sizes["small"] < sizes["base"] < sizes["large"]


def test_the_wheel_holds_code_configs_and_type_markers(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            ROOT,
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("worldmodel-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 10
    assert configs <= held
    assert {f"{package}/py.typed" for package in PACKAGES} | {"configs/__init__.py"} <= held
    assert {str(path.relative_to(ROOT)) for path in FILES} <= held
    assert not [name for name in held if name.startswith(("tests/", "runs/"))]


def test_yaml_files_are_plain_data():
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
