"""The alarm: ordinary play rarely raises it, what cannot happen does, and `stop` stops."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_tasks
from scipy.stats import gmean

import envs
from worldmodel.analysis import num_episodes_for, surprise, thresholds
from worldmodel.apps import control as control_module
from worldmodel.apps.alarm import Calibration, Monitor, Trace, Watch, calibrated
from worldmodel.apps.build import build_env
from worldmodel.apps.cli import main
from worldmodel.apps.expectation import AHEAD
from worldmodel.apps.trained import make_agent, open_run
from worldmodel.model import LatentModel, WorldModelSize, imagine

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def small(**sizes) -> LatentModel:
    torch.manual_seed(0)
    fixed = {"state_dim": 2, "action_dim": 1, "latent_dim": 4, "hidden_dim": 8, "encoder_dim": 8}
    return LatentModel(WorldModelSize(**(fixed | {"latent_norm": "none", "predicts_return": False} | sizes)))


@pytest.mark.parametrize("sizes", [{}, {"history": 3}, {"num_dynamics": 3}])
def test_a_monitor_tells_the_error_of_what_the_model_predicts_from_all_it_has_seen(sizes):
    model = small(**sizes)
    states, actions = torch.rand(14, 1, 2), torch.rand(13, 1, 1)
    monitor = Monitor(model)
    assert monitor.see({"state": states[0].numpy()}) == {}
    signals = []
    for state, action in zip(states[1:], actions, strict=True):
        monitor.note(action.numpy())
        signals.append(monitor.see({"state": state.numpy()}))
    with torch.no_grad():
        latents, expected = [model.encode({"state": states[0]})], []
        for step, state in enumerate(states[1:]):
            seen = model.embed({"state": state})
            begin = max(0, step + 1 - AHEAD)
            foreseen = imagine(model, latents[begin], actions[begin : step + 1].transpose(0, 1))[:, -1]
            ahead = (model.layout.current(foreseen) - seen).square().sum()
            error = (model.predict(latents[-1], actions[step]) - seen).square().sum()
            doubt = model.disagreement(latents[-1], actions[step])
            expected.append((error.item(), ahead.item(), doubt.item()))
            latents.append(model.layout.advance(latents[-1], actions[step], seen))
    errors, aheads, doubts = np.array(expected).T
    np.testing.assert_allclose([each["surprise"] for each in signals], errors, rtol=1e-4)
    assert "lasting_surprise" not in signals[8]
    assert signals[9]["lasting_surprise"] == pytest.approx(gmean(aheads[:10]), rel=1e-4)
    assert signals[-1]["lasting_surprise"] == pytest.approx(gmean(aheads[-10:]), rel=1e-4)
    assert not np.allclose(errors[2:], aheads[2:])
    if model.size.num_dynamics > 1:
        np.testing.assert_allclose([each["disagreement"] for each in signals], doubts, rtol=1e-4)
    else:
        assert "disagreement" not in signals[-1]
    monitor.reset()
    assert monitor.see({"state": states[0].numpy()}) == {}


@pytest.fixture(scope="module")
def cartpole():
    """The pole, the policy of its model that comes with the package, and what is ordinary with it."""
    run = open_run("pretrained/cartpole-swingup")
    env = build_env(run.task, run.config["env"], num_envs=1, seed=3, how="sync")
    agent = make_agent("policy", 1, seed=0, run=run)

    def play(watch, *, at=None, change=None):
        """One episode; `change` happens before step `at`."""
        observation, _ = env.reset()
        agent.reset()
        watch.reset()
        for step in range(200):
            if step == at:
                change(env.task_envs[0])
            observation, *_ = env.step(watch.act(agent, observation))
        watch.end(observation)
        return watch.episodes[-1]

    ordinary = Watch(Monitor(run.model))
    episodes = []
    for _ in range(9):
        play(ordinary)
        episodes.append(ordinary.trace)
    known = Calibration.of(episodes, 0.1)
    yield lambda **kwargs: play(Watch(Monitor(run.model, known.whitening), known.limits), **kwargs)
    env.close()


def teleport(env: envs.TaskEnv) -> None:
    """The cart is a metre further on."""
    env.simulation.data.qpos[0] += 1.0
    env.set_physics_state(env.physics_state())


def test_ordinary_play_rarely_alarms_and_a_teleport_does_at_once(cartpole):
    found = [cartpole() for _ in range(8)]
    assert sum(each["first_step"] is not None for each in found) <= 3
    assert np.mean([each["share"] for each in found]) < 0.03
    moved = cartpole(at=100, change=teleport)
    assert moved["first_step"] == 100
    assert moved["highest"]["surprise"]["step"] in (100, 101)


def test_another_gravity_alarms(cartpole):
    def lighter(env):
        env.simulation.model.opt.gravity[2] /= 2

    def restore(env):
        env.simulation.model.opt.gravity[2] *= 2

    found = cartpole(at=20, change=lighter)
    cartpole(at=0, change=restore)
    assert found["share"] > 0.05
    assert found["first_step"] >= 20


def controlled(run_dir, *overrides: str) -> dict:
    command = ["control", f"checkpoint={run_dir}", f"task={toy_tasks.POINT}", "episodes=2", "video=false"]
    assert main([*command, *overrides]) == 0
    agent = next((word.removeprefix("agent=") for word in overrides if word.startswith("agent=")), "mppi")
    return json.loads((run_dir / f"control-{agent}" / "control.json").read_text())


@pytest.fixture
def run_dir(point_run, tmp_path):
    shutil.copytree(point_run, tmp_path / "run")
    return tmp_path / "run"


def test_control_measures_what_is_ordinary_once_and_tells_of_alarms(run_dir, capsys, monkeypatch):
    first = controlled(run_dir, "alarm=warn")
    assert "alarm    in " in capsys.readouterr().out
    alarm = first["alarm"]
    kept = json.loads((run_dir / "alarm-mppi.json").read_text())
    assert kept["thresholds"] == alarm["thresholds"]
    assert kept["num_episodes"] == 9
    assert alarm["thresholds"].keys() == {"surprise", "lasting_surprise"}
    assert [each.keys() for each in alarm["episodes"]] == [{"share", "first_step", "level", "highest"}] * 2
    for each in alarm["episodes"]:
        over = any(top["value"] > alarm["thresholds"][name] for name, top in each["highest"].items())
        assert over == (each["first_step"] is not None) == (each["level"]["value"] > 1)
    played = []
    play = control_module.play
    monkeypatch.setattr(control_module, "play", lambda *args, **kw: played.append(1) or play(*args, **kw))
    assert controlled(run_dir, "alarm=warn")["returns"] == first["returns"]
    assert len(played) == 2  # what was kept is used again
    played.clear()
    controlled(run_dir, "alarm=warn", "alarm_rate=0.25")
    assert len(played) == 3 + 2  # another rate is measured anew
    played.clear()
    assert "alarm" not in controlled(run_dir)
    assert len(played) == 2


def test_the_alarm_changes_nothing_unless_it_stops(run_dir, capsys):
    assert controlled(run_dir, "alarm=warn")["returns"] == controlled(run_dir, "alarm=off")["returns"]


def test_after_an_alarm_that_stops_nothing_is_done(run_dir, capsys, monkeypatch):
    always = Calibration(whitening=np.eye(open_run(run_dir).model.size.latent_dim), limits={"surprise": 0.0})
    monkeypatch.setattr(control_module, "calibrated", lambda *_: always)
    env = envs.make_vec(toy_tasks.POINT, num_envs=1, seed=100)
    result = controlled(run_dir, "alarm=stop", "agent=policy")
    agent = make_agent("policy", 1, seed=100, run=open_run(run_dir, task=toy_tasks.POINT))
    expected = []
    for seeds in (list(env.env_seeds), None):
        observation, _ = env.reset(seed=seeds)
        agent.reset()
        actions = [agent.act(observation).action] + [np.zeros((1, 1))] * (toy_tasks.POINT_STEPS - 1)
        expected.append(sum(float(env.step(action)[1][0]) for action in actions))
    env.close()
    assert result["returns"] == pytest.approx(expected, rel=1e-5)
    assert [each["first_step"] for each in result["alarm"]["episodes"]] == [0, 0]
    returns = [controlled(run_dir, f"alarm={mode}", "agent=policy")["returns"] for mode in ("warn", "off")]
    assert returns[0] == returns[1] != result["returns"]


def traced(errors: np.ndarray) -> Trace:
    """Of errors (T, D)."""
    return Trace([{"surprise": float(surprise(error))} for error in errors], list(np.stack([errors] * 2, 1)))


def test_a_file_that_makes_no_sense_is_measured_again(tmp_path):
    path, asked = tmp_path / "alarm.json", []
    trace = traced(np.random.default_rng(0).normal(size=(20, 2)))

    def play(num_episodes):
        asked.append(num_episodes)
        return iter([trace] * num_episodes)

    wanted = Calibration.of([trace], 0.5)
    about = '{"about": {"model": "a", "rate": 0.5}, "thresholds": {"surprise": 1}'
    texts = ("", "[]", "{}", about + "}", about + ', "whitening": [[1.0]]}', about + ', "whitening": "a"}')
    texts += (about + ', "whitening": [[NaN, 0], [0, 1]]}',)
    for limits in ("{}", '{"surprise": NaN}'):
        units = '"whitening": [[1, 0], [0, 1]]'
        texts += (f'{{"about": {{"model": "a", "rate": 0.5}}, "thresholds": {limits}, {units}}}',)
    for text in texts:
        path.write_text(text)
        assert calibrated(path, {"model": "a"}, 0.5, 2, play).limits == wanted.limits
    kept = calibrated(path, {"model": "a"}, 0.5, 2, play)
    assert kept.limits == wanted.limits
    np.testing.assert_array_equal(kept.whitening, wanted.whitening)
    assert asked == [1] * len(texts)
    calibrated(path, {"model": "b"}, 0.5, 2, play)
    assert asked == [1] * (len(texts) + 1)


def test_a_new_episode_alarms_no_more_than_was_asked_for_though_units_are_of_the_known_ones():
    """Few errors for many directions: in their own units the known episodes would set limits too low."""
    chance, rate = np.random.default_rng(0), 0.1
    alarms = []
    for _ in range(200):
        *known, new = (traced(chance.normal(size=(20, 12))) for _ in range(num_episodes_for(rate) + 1))
        of_others = Calibration.of(known, rate)
        flattered = thresholds([each.judged(of_others.whitening) for each in known], rate)
        of_their_own = replace(of_others, limits=flattered)
        alarms.append([each.level(new) > 1 for each in (of_others, of_their_own)])
    share, flattering = np.mean(alarms, axis=0)
    assert 0.02 < share < rate + 0.02
    assert flattering > 2 * rate


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["alarm=loud"], "alarm=loud: must be warn, stop or off"),
        (["alarm_ahead=0"], "alarm_ahead=0: must be at least 1"),
        (["alarm_rate=0.9"], "alarm_rate=0.9: must be at least 0.001 and at most 0.5"),
        (["disagreement_weight=1.0"], "this model has one predictor"),
        (["disagreement_weight=-1.0"], "disagreement_weight=-1.0: must be at least 0"),
    ],
)
def test_mistakes_are_told_by_name(point_run, refused, words, told):
    assert told in refused("control", f"checkpoint={point_run}", f"task={toy_tasks.POINT}", *words)


def test_to_stop_takes_a_model(refused):
    words = ["model=oracle", "task=cartpole-swingup", "alarm=stop", "video=false"]
    assert "alarm=stop needs a trained model" in refused("control", *words)
