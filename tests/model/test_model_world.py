import json
from pathlib import Path

import pytest
import torch
import yaml

import configs
from worldmodel.errors import ConfigError
from worldmodel.model import WorldModel, WorldModelSize
from worldmodel.training import make_model

PRESETS = Path(configs.__file__).parent / "model"
# Millions of parameters, as the first line of each preset says; walker's sizes.
DOCUMENTED = {
    "tiny": (0.15, 0.25),
    "small": (0.9, 1.4),
    "base": (4.5, 5.5),
    "large": (17, 20),
    "jepa": (0.1, 0.3),
}


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 1, 5), (0,)])
@pytest.mark.parametrize("num_q", [1, 3])
def test_leading_axes_are_free(tiny_model, shape, num_q):
    model = tiny_model(num_q=num_q, predicts_continuation=True)
    latent = model.encode({"state": torch.zeros(*shape, 3)})
    action = torch.zeros(*shape, 2)
    assert latent.shape == (*shape, 16)
    assert model.step(latent, action).shape == (*shape, 16)
    assert model.reward_logits(latent, action).shape == (*shape, 41)
    assert model.q_logits(latent, action).shape == (num_q, *shape, 41)
    assert model.q_values(latent, action).shape == (num_q, *shape)
    for scalar in (model.reward(latent, action), model.value(latent), model.continuation(latent)):
        assert scalar.shape == shape


def test_each_row_is_predicted_alone(tiny_model, trained_looking):
    model = trained_looking(tiny_model())
    generator = torch.Generator().manual_seed(1)
    state, action = torch.randn(2, 3, 3, generator=generator), torch.rand(2, 3, 2, generator=generator)
    latent = model.encode({"state": state})
    q = model.q_values(latent, action)
    for i in range(2):
        for j in range(3):
            alone = model.encode({"state": state[i, j]})
            torch.testing.assert_close(latent[i, j], alone)
            torch.testing.assert_close(q[:, i, j], model.q_values(alone, action[i, j]), rtol=1e-3, atol=1e-4)


def test_value_is_the_mean_of_the_heads_at_the_best_action(tiny_model, trained_looking):
    model = trained_looking(tiny_model(num_q=3))
    latent = model.encode({"state": torch.randn(5, 3)})
    q = model.q_values(latent, model.policy.best_action(latent))
    assert q.std(0).min() > 0
    torch.testing.assert_close(model.value(latent), q.mean(0))


def test_another_networks_heads_can_be_asked(tiny_model, trained_looking):
    model, other = tiny_model(), trained_looking(tiny_model())
    latent, action = model.encode({"state": torch.ones(5, 3)}), torch.ones(5, 2)
    assert (model.q_logits(latent, action) == 0).all()
    found = model.q_logits(latent, action, heads=other.q_heads)
    assert torch.equal(found, other.q_logits(latent, action))
    assert found.abs().max() > 0


def test_untrained_rewards_and_values_are_zero(tiny_model):
    model = tiny_model()
    latent, action = model.encode({"state": torch.randn(20, 3)}), torch.rand(20, 2)
    assert (model.reward_logits(latent, action) == 0).all()
    assert (model.q_logits(latent, action) == 0).all()
    torch.testing.assert_close(model.reward(latent, action), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.value(latent), torch.zeros(20), atol=1e-4, rtol=0)


def test_weights_depend_on_the_seed_alone(tiny_model):
    first, same, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.encoder.layers[0].weight, other.encoder.layers[0].weight)


def test_without_a_continuation_head_every_episode_goes_on(tiny_model):
    model = tiny_model()
    assert model.continuation_head is None
    assert (model.continuation(torch.randn(4, 5, 16)) == 1).all()


def test_a_continuation_head_gives_a_probability(tiny_model, trained_looking):
    model = trained_looking(tiny_model(predicts_continuation=True), std=0.5)
    going_on = model.continuation(torch.randn(50, 16))
    assert ((going_on > 0) & (going_on < 1)).all()
    assert going_on.std() > 0.01


def test_the_latent_is_bounded_however_long_one_imagines(tiny_model, trained_looking):
    model = trained_looking(tiny_model(), std=2.0)
    latent = model.encode({"state": 1e6 * torch.randn(5, 3)})
    for _ in range(100):
        latent = model.step(latent, torch.ones(5, 2))
        torch.testing.assert_close(latent.reshape(5, 2, 8).sum(-1), torch.ones(5, 2))


def test_a_model_is_built_again_from_its_config(tiny_model):
    model = tiny_model(num_q=3, latent_norm="layernorm", predicts_continuation=True, angles=(0, 2))
    again = WorldModel(WorldModelSize(**json.loads(json.dumps(model.config()))))
    again.load_state_dict(model.state_dict())
    assert again.size == model.size


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in PRESETS.glob("*.yaml") if path.stem != "oracle")
)
def test_a_preset_has_the_documented_number_of_parameters(name):
    size = WorldModelSize(
        state_dim=24, action_dim=6, **yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    )
    with torch.device("meta"):
        millions = make_model(size).num_parameters() / 1e6
    low, high = DOCUMENTED[name]
    assert low < millions < high


def test_base_has_td_mpc2s_five_q_heads():
    assert yaml.safe_load((PRESETS / "base.yaml").read_text())["num_q"] == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"state_dim": 0}, r"state_dim=0: must be a whole number of at least 1"),
        ({"action_dim": -1}, r"action_dim=-1: must be a whole number of at least 1"),
        ({"hidden_dim": 2.5}, r"hidden_dim=2\.5: must be a whole number"),
        ({"num_q": True}, r"num_q=True: must be a whole number"),
        ({"num_bins": 2}, r"num_bins=2: must be a whole number of at least 3"),
        ({"num_encoder_layers": -1}, r"num_encoder_layers=-1: must be a whole number of at least 0"),
        ({"latent_norm": "batchnorm"}, r"latent_norm='batchnorm': must be simnorm, layernorm or none"),
        ({"angles": (0, 3)}, r"angles=\[0, 3\]: must be entries of a state of 3, rising"),
        ({"angles": (1, 0)}, r"angles=\[1, 0\]: must be entries of a state of 3, rising"),
        ({"latent_dim": 60}, r"latent_dim=60: SimNorm needs a multiple of group_dim=8"),
    ],
)
def test_a_size_that_cannot_be_built_is_refused(wrong, message):
    sizes = {"state_dim": 3, "action_dim": 2} | wrong
    with pytest.raises(ConfigError, match=message):
        size_of_any_type(**sizes)


def size_of_any_type(**sizes):
    """`WorldModelSize` without the type checks of the test run, which users do not have."""
    size = object.__new__(WorldModelSize)
    for name, field in WorldModelSize.__dataclass_fields__.items():
        object.__setattr__(size, name, sizes.get(name, field.default))
    size.__post_init__()
    return size


def test_layernorm_needs_no_groups():
    assert WorldModelSize(state_dim=3, action_dim=2, latent_dim=60, latent_norm="layernorm").latent_dim == 60
