import copy

import pytest
import torch
from torch import nn

from sparsepriors.networks.batchnorm import batchnorm_moments, recalibrate_batchnorm


def network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.BatchNorm2d(5))
    with torch.no_grad():
        for name in ("1", "4"):
            model.get_buffer(f"{name}.running_mean").normal_()
            model.get_buffer(f"{name}.running_var").uniform_(0.5, 2)
            model.get_parameter(f"{name}.weight").uniform_(0.5, 2)
    return model.eval()


def outputs(model, x):
    """What leaves each batch normalisation."""
    found = []
    handles = [m.register_forward_hook(lambda *a: found.append(a[2].detach())) for m in model
               if isinstance(m, nn.BatchNorm2d)]
    model(x)
    for h in handles:
        h.remove()
    return found


def prune_some(model):
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        for m in pruned:
            if isinstance(m, nn.Conv2d):
                m.weight.copy_(torch.where(m.weight.abs() > m.weight.abs().median(), m.weight, 0))
    return pruned


def test_plain_recalibration_is_what_training_would_collect():
    model, x = network(), 3 + torch.randn(16, 3, 10, 10)
    expected = copy.deepcopy(model).train()
    for m in expected:
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    expected(x)
    recalibrate_batchnorm(model, x)
    n = 16 * 8 * 8
    ours, theirs = dict(model.named_buffers()), dict(expected.named_buffers())
    torch.testing.assert_close(ours["1.running_mean"], theirs["1.running_mean"])
    torch.testing.assert_close(ours["1.running_var"], theirs["1.running_var"] * (n - 1) / n)   # ours is biased
    torch.testing.assert_close(ours["4.running_mean"], theirs["4.running_mean"], rtol=1e-4, atol=1e-5)


def test_matched_channels_have_the_dense_moments():
    dense, x = network(), torch.randn(16, 3, 10, 10)
    pruned = prune_some(dense)
    recalibrate_batchnorm(pruned, x, like=batchnorm_moments(dense, x))
    for a, b in zip(outputs(dense, x), outputs(pruned, x), strict=True):
        torch.testing.assert_close(a.mean((0, 2, 3)), b.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a.std((0, 2, 3)), b.std((0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_an_unchanged_network_keeps_its_statistics():
    dense, x = network(), torch.randn(8, 3, 10, 10)
    same = copy.deepcopy(dense)
    recalibrate_batchnorm(same, x, like=batchnorm_moments(dense, x))
    for key, value in dense.state_dict().items():
        torch.testing.assert_close(same.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_a_dead_channel_gets_its_dense_mean():
    dense, x = network(), torch.randn(8, 3, 10, 10)
    dead = copy.deepcopy(dense)
    with torch.no_grad():
        dead.get_parameter("0.weight")[2] = 0
    recalibrate_batchnorm(dead, x, like=batchnorm_moments(dense, x))
    a, b = outputs(dense, x)[0][:, 2], outputs(dead, x)[0][:, 2]
    assert float(b.std()) < 1e-5
    torch.testing.assert_close(b.mean(), a.mean(), rtol=1e-4, atol=1e-4)


def test_weights_and_modes_are_untouched():
    model = network().train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.named_parameters()}
    recalibrate_batchnorm(model, torch.randn(4, 3, 10, 10))
    assert model.training
    assert model[4].training
    assert not model[1].training
    assert all(torch.equal(p, before[k]) for k, p in model.named_parameters())
    assert int(model.get_buffer("1.num_batches_tracked")) == 0
    assert not any(m._forward_pre_hooks for m in model)


@pytest.mark.public_door
def test_bad_input_is_refused():
    x = torch.randn(4, 3, 10, 10)
    with pytest.raises(ValueError, match="no batch normalisation"):
        recalibrate_batchnorm(nn.Linear(3, 3), x)
    with pytest.raises(ValueError, match="at least two"):
        recalibrate_batchnorm(network(), x[:1])
    with pytest.raises(ValueError, match="NaN"):
        recalibrate_batchnorm(network(), x * float("nan"))
    with pytest.raises(TypeError, match="model"):
        recalibrate_batchnorm("network", x)  # pyright: ignore[reportArgumentType]
    moments = batchnorm_moments(network(), x)
    del moments["1"]
    with pytest.raises(ValueError, match="like"):
        recalibrate_batchnorm(network(), x, like=moments)
