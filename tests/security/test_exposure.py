"""What listens is reached from this machine alone, unless its user says otherwise."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from worldmodel.apps.cockpit.view import view
from worldmodel.apps.config import check_saved_env, compose_config, to_dict
from worldmodel.apps.serving.access import TOKEN_VARIABLE, is_loopback, read_token
from worldmodel.errors import ConfigError, RemoteError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_every_host_is_loopback_by_default():
    hosts = {
        path.name: content["host"]
        for path in CONFIGS
        if "host" in (content := yaml.safe_load(path.read_text()))
    }
    assert set(hosts) >= {"serve.yaml", "view.yaml"}
    assert all(is_loopback(host) for host in hosts.values())


def test_the_source_names_no_address_that_others_reach():
    """Sockets are bound where a setting says so: an address in the source would be bound whatever is set."""
    found = {
        str(path.relative_to(ROOT)): lines
        for package in ("envs", "planners", "worldmodel")
        for path in sorted((ROOT / package).rglob("*.py"))
        if (lines := re.findall(r".*(?<![\w.])(?:0\.0\.0\.0|\"::\"|host=\"\").*", path.read_text()))
    }
    assert set(found) <= {"worldmodel/apps/verbs/robot.py"}  # an example of `serve --help`, with token_file=
    assert all("token_file" in line or "host=0.0.0.0" in line for lines in found.values() for line in lines)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "robot.example"])
def test_beyond_this_machine_a_page_must_be_opened_and_a_server_needs_a_token(host, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    config = to_dict(compose_config("view", ["checkpoint=pretrained/cheetah-run", f"host='{host}'"]))
    with pytest.raises(ConfigError, match="open=true"):
        view(config)
    with pytest.raises(ConfigError, match="so that not everybody can drive the robot"):
        read_token(host, None)


def test_a_token_that_can_be_guessed_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for text in ("", "secret", "a b" * 10, "ä" * 20):
        (tmp_path / "token").write_text(text)
        with pytest.raises(ConfigError, match="at least 16"):
            read_token("0.0.0.0", str(tmp_path / "token"))


@pytest.mark.parametrize(
    "actions",
    [
        None,
        "go",
        [1.0],
        np.zeros(3),
        np.full((2, 1), np.nan),
        np.array([[np.inf]]),
        np.zeros((1, 1), np.int64),
    ],
    ids=str,
)
def test_a_server_cannot_send_what_is_no_action(actions, monkeypatch):
    from worldmodel.remote import Client

    client = object.__new__(Client)
    client.uri = "ws://somewhere"
    monkeypatch.setattr(Client, "infer", lambda self, observation: {"actions": actions})
    with pytest.raises(RemoteError, match=r"gave (no actions|actions that are no finite numbers)"):
        client.act({"state": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    "settings", [None, [], {"action_repeat": "2"}, {"_target_": "os.system"}, {"hide": 5}], ids=str
)
def test_a_server_cannot_name_an_environment_that_cannot_be(settings):
    with pytest.raises(ConfigError):
        check_saved_env(settings)
    check_saved_env({"action_repeat": 2, "observe": ["state"]})
