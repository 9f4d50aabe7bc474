"""Pruning one layer with the second moments of its inputs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks import MagnitudePruning, SparseGPT, Wanda
from sparsepriors.priors import NM, Channel, Unstructured

METHODS = (MagnitudePruning(), Wanda(), SparseGPT(), SparseGPT(block=8))


def layer(seed, out=6, inputs=24, tokens=100):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=g, dtype=torch.float64)
    x = torch.randn(tokens, inputs, generator=g, dtype=torch.float64) @ mix
    return torch.randn(out, inputs, generator=g, dtype=torch.float64), x.mT @ x / tokens


def error(weight, pruned, moments):
    d = pruned - weight
    return float(torch.trace(d @ moments @ d.mT))


def one_by_one(weight, moments, mask, damping):
    """Optimal brain surgery in the order of the inputs, each step with an inverse of its own."""
    n = len(moments)
    h = moments + damping * moments.diagonal().mean() * torch.eye(n, dtype=moments.dtype)
    w = weight.clone()
    for j in range(n):
        inverse = torch.linalg.inv(h[j:, j:])
        w[:, j:] -= torch.where(mask[:, j], 0, w[:, j])[:, None] * inverse[0] / inverse[0, 0]
    return w


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 8), Unstructured(0.5), Unstructured(0.3, dims=1)], ids=str)
def test_the_mask_is_in_the_pattern_and_the_weights_in_the_mask(method, pattern):
    weight, moments = layer(0)
    before = weight.clone()
    pruned, mask = method.prune(weight, moments, pattern)
    assert torch.equal(weight, before)
    assert not pruned[~mask].any()
    assert pruned[mask].all()
    if isinstance(pattern, NM):
        assert mask.reshape(-1, pattern.m).sum(dim=1).eq(pattern.n).all()
    else:
        assert torch.equal(mask.sum(dim=1), pattern.mask(weight).sum(dim=1)) or pattern.dims is None
        assert mask.sum() == pattern.mask(weight).sum()


@given(seed=st.integers(0, 10**6), n=st.integers(1, 8))
def test_sparsegpt_decides_on_each_group_when_those_before_it_are_gone(seed, n):
    weight, moments = layer(seed, inputs=40)
    pruned, mask = SparseGPT(damping=0.05).prune(weight, moments, NM(n, 8))
    torch.testing.assert_close(pruned, one_by_one(weight, moments, mask, 0.05), rtol=1e-7, atol=1e-9)
    h = moments + 0.05 * moments.diagonal().mean() * torch.eye(40, dtype=moments.dtype)
    before = one_by_one(weight, moments, mask | (torch.arange(40) >= 32), 0.05)   # the last group not decided on yet
    pivots = torch.stack([torch.linalg.inv(h[j:, j:])[0, 0] for j in range(32, 40)])
    cost = before[:, 32:].square() / pivots
    assert torch.equal(mask[:, 32:], NM(n, 8).mask(cost))


@given(seed=st.integers(0, 10**6), block=st.sampled_from([1, 5, 8, 24, 128]))
def test_sparsegpt_is_optimal_brain_surgery_in_order(seed, block):
    weight, moments = layer(seed)
    pruned, mask = SparseGPT(block=block, damping=0.05).prune(weight, moments, Unstructured(0.5))
    torch.testing.assert_close(pruned, one_by_one(weight, moments, mask, 0.05), rtol=1e-7, atol=1e-9)


def test_removing_the_first_weight_refits_the_others():
    weight, moments = layer(3, out=1, inputs=5)
    weight[0, 0] = 1e-3
    pruned, mask = SparseGPT(damping=1e-9).prune(weight, moments, Unstructured(0.8))
    assert mask.tolist() == [[False, True, True, True, True]]
    refit = torch.linalg.solve(moments[1:, 1:], moments[1:] @ weight[0])
    torch.testing.assert_close(pruned[0, 1:], refit, rtol=1e-5, atol=1e-7)


def test_methods_that_look_at_the_inputs_change_the_output_less():
    errors = {type(m).__name__: 0.0 for m in METHODS[:3]}
    for seed in range(10):
        weight, moments = layer(seed)
        for m in METHODS[:3]:
            errors[type(m).__name__] += error(weight, m.prune(weight, moments, NM(2, 4))[0], moments)
    assert errors["SparseGPT"] < 0.7 * errors["Wanda"] < 0.7 * errors["MagnitudePruning"]


def test_wanda_ranks_moduli_times_root_mean_squares_of_inputs():
    weight = torch.tensor([[3.0, -2.0, 1.0, 1.0]])
    moments = torch.diag(torch.tensor([1.0, 4.0, 16.0, 0.0]))
    _, mask = Wanda().prune(weight, moments, NM(2, 4))
    assert mask.tolist() == [[False, True, True, False]]
    assert MagnitudePruning().prune(weight, moments, NM(2, 4))[1].tolist() == [[True, True, False, False]]


def test_methods_that_say_so_are_content_with_mean_squares():
    weight, moments = layer(4)
    for method in (MagnitudePruning(), Wanda()):
        for full, squares in zip(method.prune(weight, moments, NM(2, 4)),
                                 method.prune(weight, moments.diagonal(), NM(2, 4)), strict=True):
            assert torch.equal(full, squares)
    with pytest.raises(ValueError, match=r"\(6, 24\) and \(24,\)"):
        SparseGPT().prune(weight, moments.diagonal(), NM(2, 4))


def test_inputs_that_are_always_zero_go_first_and_do_not_disturb():
    weight, moments = layer(1)
    moments[5] = moments[:, 5] = 0.0
    pruned, mask = SparseGPT().prune(weight, moments, NM(3, 4))
    assert not mask[:, 5].any()
    assert torch.isfinite(pruned).all()
    assert torch.equal(SparseGPT().prune(weight, torch.zeros_like(moments), NM(1, 4))[0], torch.zeros_like(weight))


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "words"), [
    ({"weight": torch.zeros(3)}, ValueError, "belong together"),
    ({"moments": torch.eye(3)}, ValueError, r"\(6, 24\) and \(3, 3\)"),
    ({"moments": -torch.eye(24)}, ValueError, "nonnegative diagonal"),
    ({"moments": torch.full((24, 24), torch.nan)}, ValueError, "moments holds NaN"),
    ({"weight": torch.zeros(6, 24, dtype=torch.int64)}, TypeError, "weight must be floating"),
    ({"pattern": 0.5}, TypeError, "pattern must be a sparsity pattern"),
    ({"pattern": Channel(0.5)}, TypeError, "Unstructured and NM patterns"),
    ({"pattern": NM(2, 5)}, ValueError, "cannot be cut"),
])
def test_bad_input_is_named(change, error, words):
    weight, moments = layer(0)
    arguments = {"weight": weight, "moments": moments, "pattern": NM(2, 4)} | change
    with pytest.raises(error, match=words):
        SparseGPT().prune(**arguments)


@pytest.mark.parametrize("options", [{"block": 0}, {"damping": 0.0}])
def test_parameters_of_sparsegpt_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SparseGPT(**options)


def test_a_method_is_a_description():
    method = SparseGPT(block=64, damping=0.02)
    assert SparseGPT.from_dict(method.to_dict()) == method
