"""Overrides: what is understood, and one line for each way to get them wrong."""

import shlex
from types import SimpleNamespace

import pytest

from worldmodel.apps.build import build_planning_agent
from worldmodel.apps.cli import main
from worldmodel.apps.config import closest, compose_config, config_groups, to_dict
from worldmodel.apps.verbs import VERBS
from worldmodel.errors import ConfigError


def composed(name: str, *overrides: str) -> dict:
    return to_dict(compose_config(name, overrides))


def message(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_config(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_change_what_they_name_and_nothing_else():
    plain, changed = composed("train"), composed("train", "seed=7", "planner.horizon=9")
    assert (plain["seed"], changed["seed"], changed["planner"]["horizon"]) == (0, 7, 9)
    changed["seed"], changed["planner"]["horizon"] = 0, plain["planner"]["horizon"]
    changed["run_dir"] = plain["run_dir"]
    assert changed == plain


def test_the_run_folder_is_named_after_task_and_seed():
    assert composed("train", "task=walker-walk", "seed=3")["run_dir"] == "runs/walker-walk/seed-3"


def test_numbers_with_underscores_and_exponents():
    config = composed("train", "env_steps=20_000", "training.learning_rate=3e-4", "exploration_std=1")
    assert config["env_steps"] == 20_000
    assert config["training"]["learning_rate"] == 3e-4
    assert repr(config["exploration_std"]) == "1.0"  # a whole number where any number goes


def test_a_group_option_replaces_the_group():
    assert composed("train", "planner=cem")["planner"]["name"] == "cem"
    assert "temperature" not in composed("train", "planner=cem")["planner"]
    assert composed("train", "model=small")["model"]["latent_dim"] == 128


@pytest.mark.parametrize(
    ("overrides", "factors"),
    [
        ([], {}),
        (["env.factors.mass=2"], {"mass": 2}),
        (["env.factors={mass: 2, hue: [0, 0.5]}"], {"mass": 2, "hue": [0, 0.5]}),
        (["env.factors={mass: 2}", "env.factors.mass=3"], {"mass": 3}),
    ],
)
def test_factors_have_any_names(overrides, factors):
    assert composed("train", *overrides)["env"]["factors"] == factors


def test_control_plans_as_trained_unless_a_planner_is_given():
    given = ["checkpoint=somewhere"]
    assert composed("control", *given).get("planner") is None
    assert composed("control", *given, "planner=cem", "planner.horizon=5")["planner"]["horizon"] == 5


def test_an_experiment_sets_what_it_says_and_an_override_wins():
    assert composed("train", "experiment=demo", "env_steps=77")["env_steps"] == 77


def test_groups_and_their_options():
    assert {"cem", "mppi", "predictive_sampling"} < set(config_groups("train")["planner"])
    planning = {"planner", "budget", "basis", "noise"}
    assert planning <= set(config_groups("control"))
    assert set(config_groups("train")) == planning | {"env", "data", "model", "training", "experiment"}
    assert config_groups("demo") == {}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("env_step=5", ["'env_step'", "did you mean env_steps", "worldmodel train --help"]),
        ("planner.horizn=5", ["'planner.horizn'", "did you mean planner.horizon"]),
        ("horizon=5", ["'horizon'", "planner.horizon", "training.horizon"]),
        ("learning_rate=1", ["'learning_rate'", "training.learning_rate"]),
        ("zzzzz=5", ["there is no config key 'zzzzz'"]),
        ("planner=mpi", ["there is no planner 'mpi' (did you mean mppi?)", "cem, mppi"]),
        ("planner=null", ["there is no planner 'null'"]),
        ("planner=[cem,mppi]", ["there is no planner"]),
        ("model=", ["there is no model ''", "tiny"]),
        ("env_steps=many", ["env_steps=many: must be a whole number, such as"]),
        ("env_steps=1.5", ["must be a whole number"]),
        ("seed=true", ["seed=True: must be a whole number"]),
        ("resume=1", ["must be true or false"]),
        ("exploration_std=wide", ["must be a number"]),
        ("env.observe=state", ["must be a list", "['state']"]),
        ("task=null", ["task=None: must be a word, such as cartpole-swingup"]),
        ("run_dir=2024", ["must be a word", "'run_dir=\"2024\"'"]),
        ("dataset=5", ["dataset=5: must be a word", "'dataset=\"5\"'"]),
        ("dataset=[a,b]", ["must be a word"]),
        ("env.factors=3", ["env.factors=3: must be names and their values"]),
        ("env.factors.mass.of=3", ["there is no config key 'env.factors.mass.of'"]),
        ("seed", ["'seed' is no override: write key=value"]),
        ("--seed=1", ["is no override: write key=value"]),
        ("~seed", ["is no override: write key=value"]),
        ("+foo=1", ["is no override: write key=value"]),
        ("=5", ["is no override: write key=value"]),
        ("seed=1,2", ["seed=1,2"]),
        ("dataset=w/größe", ["cannot read the override", "quote it: 'dataset=\"w/größe\"'"]),
        ("env.observe=[state", ["cannot read the override 'env.observe=[state'", "quote"]),
        ("task=${nothing}", ["nothing"]),
    ],
)
def test_a_mistake_is_explained_in_one_line(override, expected):
    found = message("train", override)
    for part in expected:
        assert part in found


def test_a_quoted_number_is_a_word():
    assert composed("train", 'dataset="5"')["dataset"] == "5"


@pytest.mark.parametrize("number", [0, -1])
def test_a_camera_has_a_name_or_a_number(number):
    for name in ("control", "collect"):
        assert composed(name, f"camera={number}", *(["dataset=d"] if name == "collect" else []))[
            "camera"
        ] == str(number)


def test_a_planner_key_without_its_planner_is_a_change_of_the_trained_one():
    assert composed("control", "checkpoint=x", "planner.num_candidates=5")["planner"] == {"num_candidates": 5}
    assert "planner.num_candidates" in message("control", "checkpoint=x", "planner.num_candidate=5")
    assert "whole number" in message("control", "checkpoint=x", "planner.num_candidates=many")


def test_a_missing_value_is_named():
    assert message("imagine").startswith("checkpoint= is missing")
    assert message("collect", "task=reacher-easy").startswith("dataset= is missing")


def test_closest_finds_the_key_behind_a_forgotten_group():
    assert closest("batch_size", ["seed", "training.batch_size"]) == " (did you mean training.batch_size?)"
    assert closest("zzz", ["seed"]) == ""


@pytest.mark.parametrize(
    "example", [example for verb in VERBS.values() for example in verb.examples], ids=lambda text: text[:40]
)
def test_every_example_of_the_help_composes(example):
    words = shlex.split(example)
    words = words[words.index("worldmodel") + 1 :]  # after torchrun, perhaps
    verb = next(verb for verb in VERBS if words[: len(verb.split())] == verb.split())
    rest = VERBS[verb].overrides_of(words[len(verb.split()) :])
    compose_config(verb.replace(" ", "_"), rest)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_groups_and_defaults(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    name = verb.replace(" ", "_")
    assert VERBS[verb].summary in out
    assert all(example in out for example in VERBS[verb].examples)
    for group, options in config_groups(name).items():
        assert f"{group:<12}{', '.join(options)}" in out
    assert "Keys and their defaults:" in out


def test_help_keeps_the_comments_of_the_files(capsys):
    assert main(["collect", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "seed: 0  # another one is another collection" in lines
    assert (
        "camera: null  # of pixels: name or number, -1 being a free one; null: the task's usual view" in lines
    )
    assert any(line.startswith("factors: {}  # what differs") for line in lines)
    assert main(["bench", "data", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    above = lines.index("# What is written, for each kind; hdf5_chunk: steps in one chunk of HDF5.")
    assert lines[above + 1] == "state:"
    assert main(["train", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index("# Online: act, record, update, evaluate, repeat.") + 1].startswith("env_steps:")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"], ["-h"]])
def test_the_overview_lists_every_verb(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb}" in out


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("worldmodel 0.")


def test_an_unknown_verb_shows_what_there_is(capsys):
    assert main(["trian"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("worldmodel: there is no verb 'trian' (did you mean train?)\n")
    assert VERBS["train"].summary in err


def test_an_experiment_changes_the_defaults_and_the_command_line_changes_the_experiment():
    default = compose_config("train", []).env_steps
    demo = compose_config("train", ["experiment=demo"]).env_steps
    assert demo != default
    assert compose_config("train", ["experiment=demo", "env_steps=7"]).env_steps == 7


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": {"a": 1}}, "there is no planner {'a': 1}"),
        ({"horizon": None}, "planner.name=mppi needs horizon: give planner.horizon="),
        ({"num_proposals": {}}, "planner.num_proposals={}: must be at least 0 and below num_candidates="),
        ({"noise": [1]}, "there is no noise [1]"),
        ({"noise": {"name": {}}}, "there is no noise {}"),
    ],
)
def test_settings_of_a_planner_that_came_from_anywhere_are_refused_in_words(changes, told):
    """As a run folder may hold them: what is None here is missing there."""
    config = composed("train", "planner=mppi")["planner"] | changes
    config = {key: value for key, value in config.items() if value is not None}
    foresight = SimpleNamespace(action_dim=2)
    with pytest.raises(ConfigError) as error:
        build_planning_agent(foresight, config, seed=0)
    assert told in str(error.value)
