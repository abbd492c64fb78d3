"""Models without rewards: what a latent holds, encoders of every kind, predictors of every kind."""

import pytest
import torch

from worldmodel.errors import ConfigError
from worldmodel.model import LatentModel, WorldModelSize, goal_distance, imagine
from worldmodel.model.layout import Layout

SMALL = {"state_dim": 3, "action_dim": 2, "latent_dim": 8, "hidden_dim": 16, "encoder_dim": 16}
KINDS = [
    {},
    {"history": 3},
    {"history": 3, "predictor": "transformer"},
    {"history": 3, "predictor": "gru"},
    {"num_dynamics": 3},
    {"num_dynamics": 2, "history": 2, "latent_norm": "simnorm"},
    {"observes": ["pixels"], "state_dim": 0, "image_size": 32},
    {"observes": ["pixels"], "pixel_encoder": "vit", "image_size": 16},
    {"observes": ["pixels"], "pixel_encoder": "keypoints", "image_size": 16},
    {"observes": ["state", "pixels"], "image_size": 16, "history": 2},
]


def make(**sizes) -> LatentModel:
    torch.manual_seed(0)
    fixed = {"latent_norm": "none", "predicts_return": False}
    return LatentModel(WorldModelSize(**(SMALL | fixed | sizes)))


def observed(model: LatentModel, *batch: int) -> dict[str, torch.Tensor]:
    size = model.size
    generator = torch.Generator().manual_seed(1)
    pixels = (*batch, 3, size.image_size, size.image_size)
    return {
        "state": torch.randn(*batch, size.state_dim, generator=generator),
        "pixels": torch.randint(0, 256, pixels, generator=generator, dtype=torch.uint8),
    }


@pytest.mark.parametrize("sizes", KINDS)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_leading_axes_are_free_and_rows_do_not_mix(sizes, batch):
    model = make(**sizes).eval()
    observation, action = observed(model, *batch), torch.rand(*batch, 2)
    latent = model.encode(observation)
    assert latent.shape == (*batch, model.layout.dim)
    assert model.embed(observation).shape == model.predict(latent, action).shape == (*batch, 8)
    after = model.step(latent, action)
    assert after.shape == latent.shape
    assert model.disagreement(latent, action).shape == batch
    if batch:
        alone = model.encode({key: value[-1:] for key, value in observation.items()})
        torch.testing.assert_close(alone, latent[-1:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.step(alone, action[-1:]), after[-1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", KINDS)
def test_every_weight_is_used(sizes):
    model = make(**sizes)
    if sizes.get("predictor") == "transformer":  # its gates start at 0, which cuts off what they gate
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    latents = imagine(model, model.encode(observed(model, 5)), torch.rand(5, 4, 2))
    embeddings = model.layout.embeddings(latents).flatten(1)
    guess = model.inverse_head(embeddings[:, :16])
    (embeddings.square().sum() + guess.square().sum()).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


def test_a_latent_holds_what_was_seen_and_done_last():
    layout = Layout(embedding_dim=2, action_dim=1, history=3)
    assert layout.dim == 8
    numbers = torch.arange(1.0, 6.0)
    embeddings, actions = torch.stack([numbers, -numbers], dim=-1)[None], 10 * numbers[None, :4, None]
    latents = layout.over(embeddings, actions)
    assert latents[0].tolist() == [
        [1, -1, 2, -2, 3, -3, 10, 20],
        [2, -2, 3, -3, 4, -4, 20, 30],
        [3, -3, 4, -4, 5, -5, 30, 40],
    ]
    assert layout.embeddings(latents[0, 0]).tolist() == [[1, -1], [2, -2], [3, -3]]
    assert layout.actions(latents[0, 0]).tolist() == [[10], [20]]
    assert layout.current(latents[0, 0]).tolist() == [3, -3]
    later = layout.advance(latents[:, 0], actions[:, 2], embeddings[:, 3])
    assert torch.equal(later, latents[:, 1])
    assert layout.start(embeddings[0, 0]).tolist() == [1, -1, 1, -1, 1, -1, 0, 0]


@pytest.mark.parametrize("history", [1, 2, 3, 6])
def test_latents_along_an_episode_are_those_that_grow_step_by_step(history):
    layout = Layout(embedding_dim=2, action_dim=3, history=history)
    embeddings, actions = torch.rand(5, 2), torch.rand(4, 3)
    grown = [layout.start(embeddings[0])]
    for action, embedding in zip(actions, embeddings[1:], strict=True):
        grown.append(layout.advance(grown[-1], action, embedding))
    assert torch.equal(layout.along(embeddings, actions), torch.stack(grown))


def test_with_a_history_of_one_a_latent_is_an_embedding():
    layout = Layout(embedding_dim=2, action_dim=3, history=1)
    embedding = torch.rand(4, 2)
    assert layout.dim == 2
    assert layout.start(embedding) is embedding
    assert layout.advance(torch.rand(4, 2), torch.rand(4, 3), embedding) is embedding
    over = torch.rand(1, 5, 2)
    assert torch.equal(layout.over(over, torch.rand(1, 4, 3)), over)


@pytest.mark.parametrize("predictor", ["transformer", "gru"])
def test_a_predictor_over_the_history_looks_back(predictor):
    model = make(history=3, predictor=predictor)
    latent, action = torch.randn(6, model.layout.dim), torch.rand(6, 2)
    for parameter in model.dynamics.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    before = model.predict(latent, action)
    for place in (0, model.layout.dim - 1):  # the oldest embedding, the newest action in the past
        changed = latent.clone()
        changed[:, place] += 1
        assert (model.predict(changed, action) - before).abs().max() > 1e-4
    assert (model.predict(latent, action + 1) - before).abs().max() > 1e-4


def test_predictors_disagree_and_one_never_does():
    several, one = make(num_dynamics=4), make()
    latent, action = torch.randn(7, 8), torch.rand(7, 2)
    members = several.predictions(latent, action)
    assert members.shape == (4, 7, 8)
    torch.testing.assert_close(several.predict(latent, action), members.mean(0))
    expected = members.var(0, correction=0).mean(-1).sqrt()
    torch.testing.assert_close(several.disagreement(latent, action), expected)
    assert (several.disagreement(latent, action) > 0).all()
    assert not one.disagreement(latent, action).any()


def test_the_goal_distance_is_that_of_the_imagined_embeddings():
    model = make(history=2, num_dynamics=2)
    latent, goal, candidates = torch.randn(3, model.layout.dim), torch.randn(3, 8), torch.rand(3, 5, 4, 2)
    score = goal_distance(model, latent, goal, candidates, last_weight=0.25)
    assert score.shape == (3, 5)
    seen = imagine(model, latent[1], candidates[1, 2])[1:]
    squares = (model.layout.current(seen) - goal[1]).square().sum(-1)
    torch.testing.assert_close(score[1, 2], -(0.25 * squares[-1] + 0.75 * squares.mean()))
    wary = goal_distance(model, latent, goal, candidates, last_weight=0.25, disagreement_weight=0.7)
    before, doubts = latent[1], []
    for action in candidates[1, 2]:
        doubts.append(model.predictions(before, action).var(0, correction=0).sum())
        before = model.step(before, action)
    torch.testing.assert_close(wary[1, 2], score[1, 2] - 0.7 * torch.stack(doubts).mean())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"observes": []}, r"observes=\[\]: must be some of state, pixels"),
        ({"observes": ["depth"]}, r"observes=\['depth'\]"),
        ({"observes": ["pixels"], "image_size": 30}, "image_size=30: must be a multiple of 8"),
        ({"history": 0}, "history=0: must be a whole number of at least 1"),
        ({"predictor": "lstm"}, "predictor='lstm': must be mlp, transformer or gru"),
        ({"pixel_encoder": "resnet"}, "pixel_encoder='resnet': must be cnn, keypoints or vit"),
        ({"predictor": "transformer", "num_dynamics": 2}, "several need predictor=mlp"),
        ({"predictor": "gru", "num_dynamics": 2}, "several need predictor=mlp"),
    ],
)
def test_a_size_that_cannot_be_built_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        make(**wrong)


def test_the_first_half_of_a_joint_embedding_is_of_the_state_and_can_be_weighed():
    model = make(observes=["state", "pixels"], image_size=16)
    seen = observed(model, 1)
    moved = seen | {"state": seen["state"] + 1.0}
    change = (model.embed(moved) - model.embed(seen))[0]
    assert (change[:4] != 0).any()
    assert (change[4:] == 0).all()
    latent, goal, candidates = model.encode(seen), torch.rand(1, 8), torch.rand(1, 5, 3, 2)
    scores = [goal_distance(model, latent, goal, candidates, state_weight=w) for w in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(scores[0] - scores[1], scores[1] - scores[2])
    images = imagine(model, latent[:, None].expand(-1, 5, -1), candidates)[:, :, 1:, 4:]
    distance = (images - goal[:, None, None, 4:]).square().sum(-1)
    torch.testing.assert_close(scores[0], -(distance[..., -1] + distance.mean(-1)) / 2)
