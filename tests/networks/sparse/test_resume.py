"""A sparse training that is stopped and continued ends with the bits of one that was not."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_nets import NETS, STEPS, gradients, network, optimizer_of, plan_of, sparsifier_of, train
from sparsepriors.networks import Recipe, load_checkpoint, train_classifier
from sparsepriors.networks.sparse import PRESETS, Sparsifier, preset

RECIPE = Recipe(epochs=2, batch=16, rate=0.05)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_plain_state_dicts_resume_to_the_same_bits(name, kind):
    resumed_at(5, name, "residual", kind)


@given(st.integers(0, STEPS), st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(NETS)))
@settings(max_examples=15)
def test_a_training_resumes_from_any_step(cut, name, net):
    resumed_at(cut, name, net, "adamw")


def resumed_at(cut, name, net, kind):
    """Train whole, and in two parts with a new model, optimizer and sparsifier for the second: compare all bits."""
    straight = network(net)
    whole = sparsifier_of(straight, plan_of(name), optimizer_of(straight, kind))
    train(whole)

    model = network(net)
    first = sparsifier_of(model, plan_of(name), optimizer_of(model, kind))
    train(first, 0, cut)
    saved = copy.deepcopy((model.state_dict(), first.optimizer.state_dict(), first.state_dict()))
    train(first, cut, min(cut + 2, STEPS))   # work that is lost

    model = network(net, seed=5)   # other weights, another generator: the states bring theirs
    second = sparsifier_of(model, plan_of(name), optimizer_of(model, kind), seed=99)
    for part, state in zip((model, second.optimizer, second), saved, strict=True):
        part.load_state_dict(state)
    train(second, cut)
    assert all(torch.equal(m, whole.masks[n]) for n, m in second.masks.items())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), straight.parameters(), strict=True))
    a, b = whole.finalize(force=True), second.finalize(force=True)
    assert a.to_dict() == b.to_dict()


def examples():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(96, 4, 4, 4, generator=generator), torch.randint(0, 4, (96,), generator=generator)


class KilledError(RuntimeError):
    pass


@pytest.mark.parametrize("name", ["rigl", "imp", "sr-ste", "snfs"])
def test_a_training_killed_between_checkpoints_resumes_to_the_same_bits(name, tmp_path):
    plan = preset(name, **({} if name == "sr-ste" else {"density": 0.3}), **({"rounds": 3} if name == "imp" else {}),
                  **({"every": 3} if name in ("rigl", "snfs") else {}))

    def fit(**options):
        model = network("mlp")
        return model, train_classifier(model, examples(), RECIPE, plan=plan,
                                       generator=torch.Generator().manual_seed(1), test=examples(), **options)

    model, want = fit()
    path = tmp_path / "state.safetensors"

    def die(state):
        if state.step == 8:
            raise KilledError

    with pytest.raises(KilledError):
        fit(checkpoint=path, checkpoint_every=3, callback=die)
    assert load_checkpoint(path)["step"] == 6
    resumed, found = fit(checkpoint=path, checkpoint_every=3, resume=True)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in model.state_dict().items())
    assert want.report is not None
    assert found.report is not None
    assert want.report.to_dict() == found.report.to_dict()
    assert all(torch.equal(m, found.report.masks[n]) for n, m in want.report.masks.items())
    assert (want.accuracy, want.training.trace) == (found.accuracy, found.training.trace)


def test_states_of_other_trainings_are_refused():
    model = network("mlp")
    state = sparsifier_of(model, plan_of("rigl"), optimizer_of(model)).state_dict()
    for other, message in (
            (sparsifier_of(m := network("mlp"), plan_of("set"), optimizer_of(m)), "another plan"),
            (sparsifier_of(m := network("mlp"), plan_of("rigl"), optimizer_of(m), steps=STEPS + 1), "number of steps"),
            (sparsifier_of(m := network("residual"), plan_of("rigl"), optimizer_of(m)), "other weights")):
        before = {n: mask.clone() for n, mask in other.masks.items()}
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        assert all(torch.equal(mask, before[n]) for n, mask in other.masks.items())
    good = sparsifier_of(m := network("mlp"), plan_of("rigl"), optimizer_of(m))
    state["masks"]["3.weight"] = state["masks"]["3.weight"][:-1]
    with pytest.raises(ValueError, match="3.weight"):
        good.load_state_dict(state)


@pytest.mark.parametrize(("ours", "theirs"), [((8, 4), (4, 8)), ((3, 3), (4, 4))])
def test_masks_of_other_shapes_are_refused_where_they_have_as_many_bytes(ours, theirs):
    def of(shape):
        layer = nn.Linear(*shape)
        return Sparsifier(layer, preset("random", density=0.5), optimizer_of(layer), total_steps=3,
                          generator=torch.Generator())

    sparsifier = of(ours)
    before = sparsifier.masks["weight"].clone()
    with pytest.raises(ValueError, match=re.escape(f"does not fit weight: it has a mask of shape {theirs[::-1]}")):
        sparsifier.load_state_dict(of(theirs).state_dict())
    assert torch.equal(sparsifier.masks["weight"], before)


def test_a_loaded_state_is_a_copy():
    model = network("mlp")
    first = sparsifier_of(model, plan_of("snfs"), optimizer_of(model))
    train(first, 0, 4)
    state = first.state_dict()
    twin = network("mlp")
    second = sparsifier_of(twin, plan_of("snfs"), optimizer_of(twin))
    second.load_state_dict(state)
    before = copy.deepcopy(state["momenta"])
    gradients(twin, second.optimizer, 0)
    second.step()
    assert all(torch.equal(v, before[n]) for n, v in state["momenta"].items())
