import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparsepriors.networks.prune import prune
from sparsepriors.networks.sparse import ERK, Global, RandomScore, Selector
from sparsepriors.priors.patterns import NM, Channel, Unstructured


def network():
    return nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def weights(model):
    return {f"{n}.weight": m.weight for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


@given(st.floats(0.02, 1.0), st.sampled_from(("uniform", "global", "erk")), st.integers(0, 99), st.booleans())
def test_counts_are_exact_and_everything_else_is_untouched(density, how, seed, ties):
    torch.manual_seed(seed)
    model = network()
    if ties:
        with torch.no_grad():
            for w in weights(model).values():
                w.copy_(w.sign())
    before = copy.deepcopy(model)
    spread = {"uniform": None, "global": Global(), "erk": ERK()}[how]
    done = prune(model, Unstructured(density), distribution=spread)
    sizes = {n: w.numel() for n, w in weights(model).items()}
    kept = {n: int(m.sum()) for n, m in done.masks.items()}
    if how == "uniform":
        assert kept == {n: max(1, round(s * density)) for n, s in sizes.items()}
    elif how == "global":
        assert sum(kept.values()) == max(1, round(sum(sizes.values()) * density))
    else:
        # each layer rounds, and keeps at least one weight
        assert abs(sum(kept.values()) - density * sum(sizes.values())) <= len(sizes)
    for name, w in weights(model).items():
        mask, old = done.masks[name], weights(before)[name]
        assert torch.equal(w[mask], old[mask])
        assert not w[~mask].any()
        assert not torch.signbit(w[~mask]).any()   # no negative zeros
    touched = set(done.masks)
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in model.state_dict().items() if k not in touched)
    assert set(model.state_dict()) == set(before.state_dict())
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("pattern", [Unstructured(0.4), NM(2, 4), Channel(0.5)], ids=str)
def test_a_second_call_changes_nothing(pattern):
    model = network()
    first = prune(model, pattern).masks
    once = copy.deepcopy(model.state_dict())
    second = prune(model, pattern).masks
    assert all(torch.equal(v, once[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("pattern", [Unstructured(0.4), NM(2, 4), Channel(0.5)], ids=str)
def test_pruning_is_the_projection_of_the_prior(pattern):
    model = network()
    expected = {n: pattern.prox(w.detach()) for n, w in weights(model).items()}
    prune(model, pattern)
    assert all(torch.equal(w, expected[n]) for n, w in weights(model).items())


def test_two_of_four_runs_along_the_input_channels():
    model = network()
    masks = prune(model, NM(2, 4)).masks
    for mask in masks.values():
        groups = mask.movedim(1, -1).reshape(-1, 4)
        assert (groups.sum(dim=1) == 2).all()


def test_whole_output_channels_are_zeroed():
    model = network()
    done = prune(model, Channel(0.5), example=torch.zeros(1, 8, 8, 8))
    for record, w in zip(done.report.layers, weights(model).values(), strict=True):
        dead = (w.flatten(1) == 0).all(dim=1)
        assert int(dead.sum()) == record.zeroed_channels == len(w) // 2
    assert any("not removed" in n for n in done.report.notes)


def test_masks_equal_those_of_torch():
    model = network()
    peer = copy.deepcopy(model)
    masks = prune(model, Unstructured(0.3), distribution=Global()).masks
    layers = {f"{n}.weight": m for n, m in peer.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    torch_prune.global_unstructured([(m, "weight") for m in layers.values()], torch_prune.L1Unstructured, amount=0.7)
    assert all(torch.equal(masks[n], m.get_buffer("weight_mask").bool()) for n, m in layers.items())


def test_a_shared_weight_is_pruned_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    done = prune(nn.Sequential(first, second), Unstructured(0.25), example=torch.zeros(1, 4))
    assert int((first.weight != 0).sum()) == 4
    assert list(done.masks) == ["0.weight"]
    assert done.report.macs_kept == 8


def test_random_scores_prune_by_the_generator():
    def masks(seed):
        generator = torch.Generator().manual_seed(seed)
        return prune(network(), Unstructured(0.5), score=RandomScore(), generator=generator).masks

    a, b, c = masks(0), masks(0), masks(1)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"pattern": NM(2, 4), "where": None, "inputs": 6}, ValueError, r"0\.weight of shape \(12, 6, 3, 3\).*4"),
    ({"pattern": 0.5}, TypeError, "pattern"),
    ({"pattern": Unstructured(0.5), "score": lambda n, w: w.flatten()}, ValueError, "the score of 0.weight must have"),
    ({"pattern": Unstructured(0.5), "score": lambda n, w: w * float("inf")}, FloatingPointError,
     "the score of 0.weight"),
    ({"pattern": Unstructured(0.5), "where": Selector(skip=("lin",))}, ValueError, "'lin'"),
    ({"pattern": NM(2, 4), "distribution": Global()}, TypeError, "NM"),
])
def test_a_refused_call_leaves_the_model_alone(change, error, message):
    model = network()
    inputs = change.pop("inputs", 8)
    model[0] = nn.Conv2d(inputs, 12, 3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        prune(model, **change)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.public_door
def test_weights_that_are_not_numbers_are_refused():
    model = network()
    with torch.no_grad():
        model.get_parameter("3.weight")[0] = float("nan")
    kept = model.get_parameter("0.weight").clone()
    with pytest.raises(ValueError, match=r"3\.weight holds NaN"):
        prune(model, Unstructured(0.5))
    assert torch.equal(model.get_parameter("0.weight"), kept)


@pytest.mark.public_door
@pytest.mark.parametrize("density", [-0.5, 1.5, float("nan")])
def test_a_density_outside_zero_to_one_is_refused(density):
    with pytest.raises(ValueError, match="density"):
        prune(network(), Unstructured(density))
