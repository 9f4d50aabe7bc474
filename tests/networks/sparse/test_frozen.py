from typing import Any

import pytest
import torch
from torch import nn

from sparsepriors.networks.sparse import FreezeOutside


def _model() -> Any:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def _masks(model, generator, share=0.5):
    return {n: torch.rand(p.shape, generator=generator) < share for n, p in model.named_parameters()}


def _train(model, optimizer, steps, generator, *, closure=False, clip=None):
    for _ in range(steps):
        x = torch.randn(8, 4, generator=generator)

        def loss(x=x):
            optimizer.zero_grad()
            value = (model(x) - x.sum(1, keepdim=True)).square().mean()
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return value

        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3)], ids=["adamw", "momentum", "lbfgs"])
def test_weights_outside_stay_as_they_are_and_those_inside_are_trained(make, generator):
    model = _model()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer, masks = make(model.parameters()), _masks(model, generator)
    closure = isinstance(optimizer, torch.optim.LBFGS)
    with FreezeOutside(model, optimizer, masks):
        _train(model, optimizer, 3, generator, closure=closure)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter != start[name], masks[name])
    _train(model, optimizer, 1, generator, closure=closure)
    assert all(bool((p != start[n]).all()) for n, p in model.named_parameters())


def test_moments_stay_zero_outside_and_an_older_state_moves_nothing(generator):
    model = _model()
    optimizer, masks = torch.optim.AdamW(model.parameters(), lr=0.1), _masks(model, generator)
    with FreezeOutside(model, optimizer, masks):
        _train(model, optimizer, 2, generator)
        for name, parameter in model.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                assert not bool(optimizer.state[parameter][moment][~masks[name]].any())
    _train(model, optimizer, 1, generator)
    kept = model[0].weight.detach().clone()
    with FreezeOutside(model, optimizer, {"0.weight": torch.zeros(5, 4, dtype=torch.bool)}):
        before = model[2].weight.detach().clone()
        _train(model, optimizer, 1, generator)
    assert torch.equal(model[0].weight, kept)
    assert not torch.equal(model[2].weight, before)


def test_gradients_are_clipped_whole():
    """With sgd the step inside is that of the whole training, whose clipping saw every gradient."""
    steps = []
    for frozen in (False, True):
        torch.manual_seed(0)
        model = _model()
        start = model[0].weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        masks = _masks(model, torch.Generator().manual_seed(1))
        freeze = FreezeOutside(model, optimizer, masks)
        if not frozen:
            freeze.remove()
        _train(model, optimizer, 1, torch.Generator().manual_seed(2), clip=0.01)
        steps.append((model[0].weight.detach() - start)[masks["0.weight"]])
    assert torch.equal(*steps)


@pytest.mark.public_door
def test_bad_input():
    model = _model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1.0)
    right = torch.ones(5, 4, dtype=torch.bool)
    for masks, error, text in (({"0.weight": right.float()}, TypeError, "must be a boolean tensor"),
                               ({"0.weight": right.mT}, ValueError, r"does not fit the model: shape \(5, 4\)"),
                               ({"9.weight": right}, ValueError, "does not fit the model: no such parameter"),
                               ({"2.bias": right[0, :1]}, ValueError, "the optimizer does not hold 2.bias")):
        with pytest.raises(error, match=text):
            FreezeOutside(model, optimizer, masks)
    with pytest.raises(TypeError, match="optimizer must be"):
        FreezeOutside(model, model, {})
