import pytest
import torch

from worldmodel.model import estimate_return, imagine, propose


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def counting(tiny_model, monkeypatch):
    """A world known by heart: next latent = latent + action, reward = latent * action, value = 10 latent."""

    def build(*, going_on=None):
        model = tiny_model(
            latent_dim=1, action_dim=1, group_dim=1, predicts_continuation=going_on is not None
        )
        monkeypatch.setattr(model, "step", lambda latent, action: latent + action)
        monkeypatch.setattr(model, "reward", lambda latent, action: (latent * action)[..., 0])
        monkeypatch.setattr(model, "value", lambda latent: 10 * latent[..., 0])
        if going_on is not None:
            monkeypatch.setattr(model, "continuation", lambda latent: going_on(latent[..., 0]))
        return model

    return build


def test_imagining_is_stepping_by_hand(tiny_model, trained_looking):
    model = trained_looking(tiny_model())
    latent, actions = model.encode({"state": noise(4, 3)}), noise(4, 5, 2, seed=1).tanh()
    imagined = imagine(model, latent, actions)
    assert imagined.shape == (4, 6, 16)
    assert torch.equal(imagined[:, 0], latent)
    for step in range(5):
        latent = model.step(latent, actions[:, step])
        assert torch.equal(imagined[:, step + 1], latent)


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_imagining_works_for_any_leading_axes(tiny_model, shape):
    assert imagine(tiny_model(), torch.zeros(*shape, 16), torch.zeros(*shape, 7, 2)).shape == (*shape, 8, 16)


def test_a_return_is_discounted_and_ends_in_the_value(counting):
    candidates = torch.tensor([1.0, 2.0, -1.0]).reshape(1, 1, 3, 1)
    # Latents 3, 4, 6, 5; rewards 3, 8, -6; value 50.
    found = estimate_return(counting(), torch.tensor([[3.0]]), candidates, discount=0.5)
    assert found.item() == 3 + 0.5 * 8 - 0.25 * 6 + 0.125 * 50


def test_each_candidate_starts_at_its_own_latent(counting):
    candidates = torch.tensor([[1.0, 2.0], [0.0, -1.0]])[:, :, None, None]  # (B, N, 1, 1)
    found = estimate_return(counting(), torch.tensor([[3.0], [5.0]]), candidates, discount=1.0)
    assert found.tolist() == [[3 + 40, 6 + 50], [0 + 50, -5 + 40]]


def test_what_comes_after_the_likely_end_counts_less(counting):
    # The episode goes on surely, except in latents above 5, where it does with probability 0.25.
    model = counting(going_on=lambda latent: torch.where(latent > 5, 0.25, 1.0))
    candidates = torch.tensor([1.0, 2.0, -1.0, 3.0]).reshape(1, 1, 4, 1)
    # Latents 3, 4, 6, 5, 8; rewards 3, 8, -6, 15; value 80; still going 1, 1, 1/4, 1/4, 1/16.
    found = estimate_return(model, torch.tensor([[3.0]]), candidates, discount=0.5)
    expected = 3 + 0.5 * 8 + 0.25 * 0.25 * -6 + 0.125 * 0.25 * 15 + 0.0625 * 0.0625 * 80
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_nothing_counts_after_a_certain_end(counting):
    model = counting(going_on=lambda latent: (latent < 4).float())
    first = torch.tensor([1.0, 2.0, -1.0]).reshape(1, 1, 3, 1)
    other = torch.tensor([1.0, -5.0, 7.0]).reshape(1, 1, 3, 1)
    start = torch.tensor([[3.0]])
    assert estimate_return(model, start, first, discount=0.9).item() == 3
    assert estimate_return(model, start, other, discount=0.9).item() == 3


def test_a_real_models_return_is_the_sum_over_its_parts(tiny_model, trained_looking):
    model = trained_looking(tiny_model(predicts_continuation=True))
    start, candidates = model.encode({"state": noise(2, 3)}), noise(2, 3, 4, 2, seed=1).tanh()
    found = estimate_return(model, start, candidates, discount=0.9)
    for row in range(2):
        for candidate in range(3):
            latent, weight, total = start[row], 1.0, 0.0
            for action in candidates[row, candidate]:
                total = total + weight * model.reward(latent, action)
                latent = model.step(latent, action)
                weight = weight * 0.9 * model.continuation(latent)
            total = total + weight * model.value(latent)
            torch.testing.assert_close(found[row, candidate], total, rtol=1e-3, atol=1e-4)


def test_what_predictors_disagree_about_is_taken_off_each_reward(tiny_model, trained_looking):
    model = trained_looking(tiny_model(num_dynamics=3))
    start, candidates = model.encode({"state": noise(2, 3)}), noise(2, 3, 4, 2, seed=1).tanh()
    plain, wary = (
        estimate_return(model, start, candidates, discount=0.5, disagreement_weight=weight)
        for weight in (0.0, 2.0)
    )
    latents = imagine(model, start[1], candidates[1, 2])
    doubt = model.disagreement(latents[:-1], candidates[1, 2])
    expected = plain[1, 2] - 2 * (doubt * 0.5 ** torch.arange(4)).sum()
    torch.testing.assert_close(wary[1, 2], expected, rtol=1e-4, atol=1e-4)
    assert (wary < plain).all()


def test_proposals_follow_the_policy_through_imagined_latents(tiny_model, trained_looking):
    model = trained_looking(tiny_model())
    start, some = model.encode({"state": noise(2, 3)}), noise(2, 3, 4, 2, seed=1)
    proposals = propose(model, start, some)
    latent = start[1]
    for step in range(4):
        action, _ = model.policy.sample(latent, some[1, 2, step])
        torch.testing.assert_close(proposals[1, 2, step], action, rtol=1e-4, atol=1e-5)
        latent = model.step(latent, action)


def test_proposals_are_a_pure_function_of_their_noise_and_in_bounds(tiny_model, trained_looking):
    model = trained_looking(tiny_model(), std=1.0)
    start = model.encode({"state": noise(2, 3)})
    proposals = propose(model, start, 5 * noise(2, 8, 4, 2, seed=1))
    assert torch.equal(proposals, propose(model, start, 5 * noise(2, 8, 4, 2, seed=1)))
    assert not torch.equal(proposals, propose(model, start, 5 * noise(2, 8, 4, 2, seed=2)))
    assert (proposals.abs() <= 1).all()
