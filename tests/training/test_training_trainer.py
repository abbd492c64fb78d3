import dataclasses

import numpy as np
import pytest
import torch
from made_linear import linear_batch, linear_dataset, linear_episode

from worldmodel.data import Batch
from worldmodel.errors import ConfigError
from worldmodel.model import imagine
from worldmodel.training import ReturnTrainer, TrainerSettings, objectives

FAST = {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3}


def weights_of(module):
    return [value.clone() for value in module.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def make_trainer(tiny_model):
    def make(*, seed=0, model_seed=0, sizes=None, **settings) -> ReturnTrainer:
        model = tiny_model(seed=model_seed, **(sizes or {}))
        return ReturnTrainer(model, TrainerSettings(**settings), seed=seed)

    return make


@pytest.mark.parametrize("num_td_steps", [1, 4])
def test_updates_lower_the_losses_of_a_fixed_batch(make_trainer, num_td_steps):
    trainer = make_trainer(num_td_steps=num_td_steps, sizes={"predicts_continuation": True}, **FAST)
    batch = linear_batch(trainer.window)
    first = trainer.update(batch)
    for _ in range(40):
        last = trainer.update(batch)
    assert trainer.num_updates == 41
    for name in ("loss", "reward_loss", "continuation_loss"):
        assert last[name].item() < 0.7 * first[name].item(), name


def test_a_linear_system_is_learned(make_trainer):
    trainer = make_trainer(horizon=3, reward_coefficient=1.0, **FAST)
    dataset, chance = linear_dataset(num_episodes=20), np.random.default_rng(0)
    for episode in dataset:
        trainer.model.encoder.normalizer.update(torch.from_numpy(episode.observation["state"].copy()))
    losses = [trainer.update(dataset.sample(32, 3, chance))["reward_loss"].item() for _ in range(200)]
    assert np.mean(losses[-20:]) < 0.5 * losses[0]
    unseen = [linear_episode(seed, num_steps=3) for seed in range(1000, 1020)]
    state, action, reward = (
        torch.from_numpy(np.stack(arrays))
        for arrays in zip(*((e.observation["state"], e.action, e.reward) for e in unseen), strict=True)
    )
    with torch.no_grad():
        latents = imagine(trainer.model, trainer.model.encode({"state": state[:, 0]}), action)
        imagined = trainer.model.reward(latents[:, :-1], action)
    error = (imagined - reward).abs().mean(0)
    assert (error < 0.25 * reward.abs().mean()).all()


def with_other_padding(batch: Batch, *, only_actions: bool) -> Batch:
    padding = ~batch.valid
    action = torch.where(padding[..., None], 0.77, batch.action)
    if only_actions:
        return dataclasses.replace(batch, action=action)
    state = batch.observation["state"].clone()
    state[:, 1:][padding] = 5.0
    return dataclasses.replace(
        batch,
        action=action,
        observation={"state": state},
        reward=torch.where(padding, 123.0, batch.reward),
        terminated=batch.terminated | padding,
    )


@pytest.mark.parametrize(("num_td_steps", "only_actions"), [(1, False), (4, True)])
def test_padding_never_enters_the_weights(make_trainer, num_td_steps, only_actions):
    # With more steps the repeated last observation and the zero rewards of padding have their meaning.
    trainers = [make_trainer(num_td_steps=num_td_steps, sizes={"predicts_continuation": True}) for _ in "ab"]
    for seed in range(3):
        batch = linear_batch(trainers[0].window, seed=seed)
        other = with_other_padding(batch, only_actions=only_actions)
        assert not torch.equal(batch.action, other.action)
        trainers[0].update(batch)
        trainers[1].update(other)
    assert same(weights_of(trainers[0].model), weights_of(trainers[1].model))
    assert trainers[0].value_scale == trainers[1].value_scale


def test_the_same_seed_gives_the_same_weights_to_the_bit(make_trainer):
    trainers = [make_trainer(seed=seed, num_td_steps=2) for seed in (1, 1, 2)]
    torch.manual_seed(0)
    for trainer in trainers:
        for seed in range(3):
            trainer.update(linear_batch(4, seed=seed))
        torch.rand(7)  # torch's own generator is not asked
    first, again, other = (weights_of(trainer.model) for trainer in trainers)
    assert same(first, again)
    assert not same(first, other)


def test_a_target_asks_the_value_as_many_steps_later_as_it_has_rewards(make_trainer, trained_looking):
    trainer = make_trainer(horizon=2, num_td_steps=3)
    trained_looking(trainer.model)
    trained_looking(trainer.target_q)
    batch = linear_dataset(num_episodes=1).gather(np.array([4]), 4)
    chance = trainer.generator.get_state()
    depends_on = {}

    def targets(batch):
        trainer.generator.set_state(chance)
        noise = torch.randn((1, 2, trainer.model.size.action_dim), generator=trainer.generator)
        heads = torch.arange(2)
        known = trainer.model.embed({"state": batch.observation["state"][:, :1]})
        return objectives.targets(
            trainer.model, trainer.settings, batch, known, target_q=trainer.target_q, noise=noise, heads=heads
        )

    latents, values = targets(batch)
    for step in range(5):
        state = batch.observation["state"].clone()
        state[:, step] += 1
        moved = targets(dataclasses.replace(batch, observation={"state": state}))
        depends_on[step] = (moved[0] != latents).any(-1)[0].tolist(), (moved[1] != values)[0].tolist()
    nothing = [False, False]
    assert depends_on == {
        0: (nothing, nothing),
        1: ([True, False], nothing),
        2: ([False, True], nothing),
        3: (nothing, [True, False]),
        4: (nothing, [False, True]),
    }


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_the_target_moves_by_its_rate(make_trainer, rate):
    trainer = make_trainer(target_rate=rate)
    for seed in range(2):
        before = weights_of(trainer.target_q)
        trainer.update(linear_batch(3, seed=seed))
        heads = weights_of(trainer.model.q_heads)
        assert not same(before, heads)
        for old, new, head in zip(before, weights_of(trainer.target_q), heads, strict=True):
            torch.testing.assert_close(new, (1 - rate) * old + rate * head)


@pytest.mark.parametrize(
    ("fraction", "shares"),
    [
        (0.0, [0, 0, 0, 1]),  # the latest
        (1.0, [1, 1, 1, 1]),  # the mean of all
        (0.5, [1, 2, 3, 4]),  # polynomial decay: older ones count less, in a straight line
    ],
)
def test_the_averaged_model_is_the_weighted_mean_of_the_weights_after_each_update(
    make_trainer, fraction, shares
):
    trainer = make_trainer(average_fraction=fraction)
    history = []
    for seed in range(4):
        trainer.update(linear_batch(3, seed=seed))
        history.append(weights_of(trainer.model))
    shares = torch.tensor(shares, dtype=torch.float32)
    shares /= shares.sum()
    for found, *weights in zip(weights_of(trainer.averaged_model), *history, strict=True):
        expected = sum(share * weight for share, weight in zip(shares, weights, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_averaged_model_sees_observations_as_the_model_does(make_trainer):
    trainer = make_trainer(average_fraction=0.25)
    trainer.model.encoder.update_statistics({"state": torch.randn(20, 3) + 5})
    found = trainer.averaged_model.encoder.normalizer(torch.ones(3))
    assert torch.equal(found, trainer.model.encoder.normalizer(torch.ones(3)))
    assert not torch.equal(found, torch.ones(3))


def test_the_target_has_no_gradient_of_its_own(make_trainer):
    trainer = make_trainer()
    trainer.update(linear_batch(3))
    assert all(p.grad is None and not p.requires_grad for p in trainer.target_q.parameters())
    optimized = {
        id(p)
        for optimizer in (trainer.model_optimizer, trainer.policy_optimizer)
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert optimized == {id(p) for p in trainer.model.parameters()}


def test_a_window_of_another_length_is_refused(make_trainer):
    trainer = make_trainer(horizon=3, num_td_steps=2)
    with pytest.raises(ValueError, match="batch of 3 steps: this trainer learns from 4"):
        trainer.update(linear_batch(3))
    assert trainer.num_updates == 0


def test_the_policys_loss_reaches_the_policy_alone(make_trainer, trained_looking):
    """Without a model's gradient (no coefficient), an update moves nothing but the policy and the target."""
    trainer = make_trainer(
        consistency_coefficient=0.0,
        reward_coefficient=0.0,
        value_coefficient=0.0,
        continuation_coefficient=0.0,
    )
    trained_looking(trainer.model)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.update(linear_batch(3))
    after = trainer.model.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"policy"}
    assert all(p.requires_grad for p in trainer.model.parameters())
    assert all(not p.grad.any() for p in trainer.model.q_heads.parameters())


def test_the_policy_is_updated_every_nth_time(make_trainer):
    trainer = make_trainer(policy_every=3)
    moved = []
    for seed in range(6):
        before = weights_of(trainer.model.policy)
        trainer.update(linear_batch(3, seed=seed))
        moved.append(not same(before, weights_of(trainer.model.policy)))
    assert sum(moved) == 2


def test_the_policy_finds_the_action_with_the_highest_reward(make_trainer):
    trainer = make_trainer(horizon=1, discount=0.01, value_coefficient=1.0, **FAST)
    chance = np.random.default_rng(0)
    best = np.array([0.5, -0.4])
    for _ in range(200):
        action = chance.uniform(-1, 1, size=(64, 1, 2))
        reward = 5 - 5 * np.square(action - best).sum(-1)
        batch = Batch(
            observation={"state": torch.from_numpy(chance.normal(size=(64, 2, 3))).float()},
            action=torch.from_numpy(action).float(),
            reward=torch.from_numpy(reward).float(),
            terminated=torch.zeros(64, 1, dtype=torch.bool),
            valid=torch.ones(64, 1, dtype=torch.bool),
            extra={},
        )
        trainer.update(batch)
    with torch.no_grad():
        latent = trainer.model.encode({"state": torch.from_numpy(chance.normal(size=(50, 3))).float()})
        found = trainer.model.policy.best_action(latent)
    assert (found - torch.from_numpy(best).float()).abs().mean() < 0.2


def test_metrics_are_detached_scalars(make_trainer):
    metrics = make_trainer().update(linear_batch(3))
    assert {"loss", "consistency_loss", "reward_loss", "value_loss", "grad_norm"} <= metrics.keys()
    for value in metrics.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert value.isfinite()


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"max_grad_norm": float("nan")}, "must be above 0"),
        ({"discount": 1.01}, "must be above 0 and at most 1"),
        ({"rho": 0.0}, "must be above 0 and at most 1"),
        ({"horizon": 0}, "must be a whole number of at least 1"),
        ({"num_td_steps": 0}, "must be a whole number of at least 1"),
        ({"value_coefficient": -0.1}, "must be finite and not negative"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting, rule):
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=rf"{name}={value}: {rule}"):
        TrainerSettings(**setting)


def test_an_update_of_the_policy_reports_its_metrics_when_an_even_one_is_logged(make_trainer):
    trainer = make_trainer(policy_every=2)
    assert "policy_loss" not in trainer.update(linear_batch(3))
    assert {"policy_loss", "q", "entropy"} <= trainer.update(linear_batch(3)).keys()
