"""Predictors of an ensemble disagree where they have not learned: what an alarm and wary plans rest on."""

import numpy as np
import torch
from made_linear import linear_dataset

from worldmodel.model import LatentModel, WorldModelSize
from worldmodel.training import JepaTrainer, TrainerSettings

SIZE = {"state_dim": 3, "action_dim": 2, "latent_dim": 8, "hidden_dim": 32, "encoder_dim": 32}
SETTINGS = {
    "learning_rate": 3e-3,
    "encoder_learning_rate": 3e-3,
    "rho": 1.0,
    "horizon": 2,
    "max_grad_norm": 1.0,
}


def steps_of(episodes) -> tuple[torch.Tensor, torch.Tensor]:
    """All states in which something was done, and what."""
    states = np.concatenate([episode.observation["state"][:-1] for episode in episodes])
    return torch.from_numpy(states), torch.from_numpy(
        np.concatenate([episode.action for episode in episodes])
    )


def share_above(found: torch.Tensor, usual: torch.Tensor) -> float:
    """AUROC: how often one of `found` is above one of `usual`; 0.5 where they are alike."""
    return float((found[:, None] > usual).float().mean())


def test_predictors_disagree_where_they_have_not_learned():
    torch.manual_seed(0)
    size = WorldModelSize(**SIZE, latent_norm="none", predicts_return=False, num_dynamics=4)
    apart = {"variance_coefficient": 1.0, "covariance_coefficient": 0.1}
    trainer = JepaTrainer(LatentModel(size), TrainerSettings(**SETTINGS, **apart), seed=0)
    dataset, chance = linear_dataset(num_episodes=30), np.random.default_rng(0)
    unseen = linear_dataset(num_episodes=40)
    learned, held_out = steps_of(dataset), steps_of([unseen.episode(index) for index in range(30, 40)])
    trainer.model.encoder.update_statistics({"state": learned[0]})

    @torch.no_grad()
    def shares() -> dict[str, float]:
        model, (states, actions) = trainer.averaged_model, held_out
        asked = {
            "held out": (states, actions),
            "other states": (states + torch.tensor([0.0, 0.0, 4.0]), actions),
            "other actions": (states, 4 * actions),
        }
        doubts = {name: model.disagreement(model.encode({"state": s}), a) for name, (s, a) in asked.items()}
        usual = model.disagreement(model.encode({"state": learned[0]}), learned[1])
        return {name: share_above(doubt, usual) for name, doubt in doubts.items()}

    before = shares()
    for _ in range(300):
        trainer.update(dataset.sample(64, trainer.window, chance))
    after = shares()
    assert all(0.4 < share < 0.65 for share in before.values()), "they know nothing yet, of anything"
    assert 0.4 < after["held out"] < 0.6, "nor is it more than usual where they have learned"
    assert after["other states"] > 0.75
    assert after["other actions"] > 0.75
