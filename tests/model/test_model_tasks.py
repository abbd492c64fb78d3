"""One model of several tasks: what pads is nothing, and one of its tasks is an ordinary model."""

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from worldmodel.errors import ConfigError
from worldmodel.model import (
    TaskSize,
    WorldModel,
    WorldModelSize,
    estimate_return,
    imagine,
    propose,
    single_task,
)

TASKS = (
    TaskSize(state_dim=3, action_dim=1, angles=(1,)),
    TaskSize(state_dim=5, action_dim=3),
    TaskSize(state_dim=2, action_dim=2, angles=(0, 1)),
)
NEAR = {"rtol": 1e-3, "atol": 1e-3}  # the bins that a value is the mean of reach to 22,000
KINDS = [
    {},
    {"history": 3, "num_dynamics": 2, "predicts_continuation": True},
    {"latent_norm": "none", "num_encoder_layers": 0, "num_q": 5, "task_dim": 2},
]


def size_of(**settings) -> WorldModelSize:
    dims = {"latent_dim": 16, "hidden_dim": 24, "encoder_dim": 24, "num_bins": 21}
    return WorldModelSize(
        **({"state_dim": 5, "action_dim": 3, "tasks": TASKS, "task_dim": 4} | dims | settings)
    )


@pytest.fixture(params=KINDS, ids=["plain", "history", "change"])
def model(request, trained_looking) -> WorldModel:
    """Weights as after training, and statistics that differ from task to task."""
    torch.manual_seed(0)
    made = trained_looking(WorldModel(size_of(**request.param)))
    for index, task in enumerate(TASKS):
        states = (2 + index) * torch.randn(50, task.state_dim) + index
        made.encoder.update_statistics({"state": states, "task": torch.tensor(index)})
    return made


def padded(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, dim - tensor.shape[-1]))


def seen(task: int, *shape: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The same observations as the whole model takes them, and as one of the task alone does."""
    state = 3 * torch.randn(*shape, TASKS[task].state_dim)
    return {"state": padded(state, 5), "task": torch.full(shape, task)}, {"state": state}


@pytest.mark.parametrize("task", range(3))
def test_one_of_its_tasks_is_the_same_function_without_padding(model, task):
    one, action_dim = single_task(model, task), TASKS[task].action_dim
    own = TASKS[task]
    assert (one.size.state_dim, one.size.action_dim, one.size.tasks) == (own.state_dim, own.action_dim, ())
    several, alone = seen(task, 4)
    whole, latent = model.encode(several), one.encode(alone)
    actions = torch.rand(4, 6, action_dim) * 2 - 1
    futures = imagine(model, whole, padded(actions, 3)), imagine(one, latent, actions)
    embedding = slice(model.size.latent_dim)
    torch.testing.assert_close(
        model.layout.current(futures[0])[..., embedding], one.layout.current(futures[1])
    )
    (whole, latent), action = (future[:, -1] for future in futures), actions[:, 0]
    full = padded(action, 3)
    torch.testing.assert_close(model.reward_logits(whole, full), one.reward_logits(latent, action))
    torch.testing.assert_close(model.q_logits(whole, full), one.q_logits(latent, action))
    torch.testing.assert_close(model.continuation(whole), one.continuation(latent))
    torch.testing.assert_close(model.disagreement(whole, full), one.disagreement(latent, action))
    noise = torch.randn(4, 3)
    both = model.policy.sample(whole, noise), one.policy.sample(latent, noise[:, :action_dim])
    torch.testing.assert_close(both[0][0], padded(both[1][0], 3))
    torch.testing.assert_close(both[0][1], both[1][1])
    torch.testing.assert_close(model.value(whole), one.value(latent), **NEAR)


@pytest.mark.parametrize("task", range(3))
def test_returns_and_proposals_are_those_of_the_task_alone(model, task):
    one, action_dim = single_task(model, task), TASKS[task].action_dim
    several, alone = seen(task, 2)
    whole, latent = model.encode(several), one.encode(alone)
    noise = torch.randn(2, 8, 4, 3)
    proposals = propose(model, whole, noise)
    assert (proposals[..., action_dim:] == 0).all()
    assert (proposals[..., :action_dim] != 0).any()
    torch.testing.assert_close(proposals[..., :action_dim], propose(one, latent, noise[..., :action_dim]))
    torch.testing.assert_close(
        estimate_return(model, whole, proposals, discount=0.9),
        estimate_return(one, latent, proposals[..., :action_dim], discount=0.9),
        **NEAR,
    )


def test_what_pads_a_state_is_not_seen(model):
    several, _ = seen(2, 6)
    other = {"state": several["state"].clone(), "task": several["task"]}
    other["state"][:, 2:] = 100 * torch.randn(6, 3)
    assert torch.equal(model.embed(several), model.embed(other))


def test_each_task_is_normalised_by_what_was_seen_of_it(model):
    normalizers = model.encoder.normalizers
    before = [{name: value.clone() for name, value in each.state_dict().items()} for each in normalizers]
    model.encoder.update_statistics({"state": torch.full((9, 5), 7.0), "task": torch.tensor(0)})
    changed = [
        any(not torch.equal(value, each.state_dict()[name]) for name, value in then.items())
        for each, then in zip(normalizers, before, strict=True)
    ]
    assert changed == [True, False, False]


def test_the_same_numbers_are_something_else_in_another_task(model):
    state = torch.rand(1, 5)
    embeddings = [model.embed({"state": state, "task": torch.tensor([task])}) for task in range(3)]
    for left, right in ((0, 1), (1, 2), (0, 2)):
        assert (embeddings[left] - embeddings[right])[..., :16].abs().max() > 1e-3


def test_rows_of_a_batch_may_be_of_different_tasks(model):
    state, task = torch.randn(2, 6, 5), torch.arange(6).remainder(3).expand(2, 6)
    together = model.embed({"state": state, "task": task})
    for index in range(3):
        rows = task[0] == index
        alone = model.embed({"state": state[:, rows], "task": task[:, rows]})
        torch.testing.assert_close(together[:, rows], alone)


def test_the_log_probability_is_that_of_the_actions_that_the_task_has(model):
    """Entropy neither: those that it has not are certain."""
    several, _ = seen(0, 20)
    policy, latent = model.policy, model.encode(several)
    action, log_prob = policy.sample(latent, 0.3 * torch.randn(20, 3))
    mean, log_std = (part[:, :1].double() for part in policy(latent))
    normal = Independent(Normal(mean, log_std.exp()), 1)
    expected = TransformedDistribution(normal, [TanhTransform()]).log_prob(action[:, :1].double())
    moderate = action[:, 0].abs() < 0.99
    assert moderate.sum() > 5
    torch.testing.assert_close(log_prob[moderate].double(), expected[moderate], rtol=1e-3, atol=1e-3)
    gradients = torch.autograd.grad(log_prob.sum() + action.sum(), list(policy.layers[-1].parameters()))
    for gradient in gradients:  # rows: means of three entries, then log stds
        assert (gradient[[1, 2, 4, 5]] == 0).all()
        assert (gradient[[0, 3]] != 0).any()


def test_a_code_is_no_longer_than_one(model):
    with torch.no_grad():
        model.encoder.codes[0] *= 50
        model.encoder.codes[1] *= 0.1
    lengths = model.encoder.code(torch.arange(3)).norm(dim=-1)
    torch.testing.assert_close(lengths[0], torch.tensor(1.0))
    assert lengths[1] < 0.9


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"observes": ["pixels"]}, r"observes=\[pixels\]: of several tasks it must be \[state\]"),
        ({"predictor": "gru"}, "predictor=gru.*mlp"),
        ({"predicts_return": False}, "predicts_return=false.*true"),
        ({"predicts_action": True}, "predicts_action=true.*false"),
        ({"angles": [0]}, r"angles=\[0\].*must be \[\]"),
        ({"state_dim": 6}, "state_dim=6: its tasks ask for 5"),
        ({"action_dim": 2}, "action_dim=2: its tasks ask for 3"),
        ({"tasks": [{"state_dim": 5, "action_dim": 3, "angles": [5]}]}, r"angles=\[5\].*state of 5"),
        ({"tasks": [{"state_dim": 5, "action_dim": True}]}, "action_dim=True"),
        ({"task_dim": 0}, "task_dim=0"),
    ],
)
def test_what_cannot_be_built_is_told(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        size_of(**settings)
