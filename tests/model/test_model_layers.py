import torch

from worldmodel.model.layers import SimNorm, ensemble_mlp, mlp, zero_last_layer


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_group_of_simnorm_sums_to_one():
    normalized = SimNorm(4)(30 * noise(5, 2, 12))
    assert (normalized >= 0).all()
    torch.testing.assert_close(normalized.reshape(5, 2, 3, 4).sum(-1), torch.ones(5, 2, 3))


def test_simnorm_is_a_softmax_of_neighbouring_dimensions():
    normalized = SimNorm(2)(torch.tensor([0.0, 0.0, 3.0, 3.0 + torch.tensor(3.0).log()]))
    torch.testing.assert_close(normalized, torch.tensor([0.5, 0.5, 0.25, 0.75]))


def test_an_ensemble_equals_separate_networks_with_its_weights():
    ensemble = ensemble_mlp(3, 5, (8, 6), 4)
    with torch.no_grad():
        for index, parameter in enumerate(ensemble.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=index))
    x = noise(3, 7, 5, seed=99)
    found = ensemble(x)
    for member in range(3):
        single = mlp(5, (8, 6), 4)
        with torch.no_grad():
            for layer, source in zip(single, ensemble, strict=True):
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.copy_(source.weight[member].T)
                    layer.bias.copy_(source.bias[member, 0])
                elif isinstance(layer, torch.nn.LayerNorm):
                    layer.weight.copy_(source.weight[member, 0])
                    layer.bias.copy_(source.bias[member, 0])
        torch.testing.assert_close(found[member], single(x[member]), rtol=1e-4, atol=1e-4)


def test_members_of_an_ensemble_start_different():
    first, second = ensemble_mlp(2, 5, (8,), 4)(noise(1, 7, 5).expand(2, -1, -1))
    assert not torch.allclose(first, second)


def test_a_zeroed_last_layer_gives_exactly_zero():
    for layers, x in ((mlp(5, (8,), 4), noise(7, 5)), (ensemble_mlp(2, 5, (8,), 4), noise(2, 7, 5))):
        assert layers(x).abs().max() > 0
        assert (zero_last_layer(layers)(x) == 0).all()


def test_without_hidden_layers_an_mlp_is_linear():
    layers = mlp(3, (), 2)
    assert [type(layer) for layer in layers] == [torch.nn.Linear]
