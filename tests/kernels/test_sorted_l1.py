"""The prox of the sorted l1 norm: optimality, agreement with isotonic regression, entries that differ in few digits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import kernels
from sparsepriors.kernels import reference

F32, F64 = torch.float32, torch.float64


def is_optimal(r, weights, step, u, slack):
    """By majorisation: r - u is a subgradient of the sorted norm at u."""
    order = torch.sort(u + 1e-30 * r, descending=True, stable=True).indices
    g = (r - u)[order]
    short = (step * weights - g).cumsum(0)   # of the k largest entries, their weights less what they were lowered by
    assert bool((u >= 0).all())
    assert bool((short >= -slack).all())
    falls = torch.cat((u[order].diff() < 0, (u[order][-1:] > 0)))   # there the sums are equal
    assert bool((short[falls].abs() <= slack).all())


@given(n=st.integers(1, 700), seed=st.integers(0, 2**31), step=st.floats(0, 3), kind=st.integers(0, 4),
       dtype=st.sampled_from([F32, F64]))
def test_it_is_optimal(n, seed, step, kind, dtype):
    generator = torch.Generator().manual_seed(seed)
    r = torch.rand(n, dtype=F64, generator=generator)
    if kind == 1:
        r = (4 * r).round() / 4
    elif kind == 2:   # the upper halves of the numbers are the same
        r = 1 + r * 2.0**-40
    elif kind == 3:
        r = r ** 40
    elif kind == 4:
        r = torch.where(r < 0.9, 0, r)
    r = r.to(dtype)
    weights = torch.rand(n, dtype=F64, generator=generator).sort(descending=True).values.to(dtype)
    u = kernels.sorted_l1_prox(r, weights, step)
    is_optimal(r.double(), weights.double(), step, u.double(), 20 * torch.finfo(dtype).eps * n)
    want = reference.sorted_l1_prox(r, weights, step)
    torch.testing.assert_close(u, want, rtol=1e-5, atol=1e-6 if dtype is F32 else 1e-13)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e200, 1e305])
def test_extreme_scales(scale, generator):
    r = torch.randn(2000, dtype=F64, generator=generator).abs()
    weights = torch.linspace(1, 0, 2000, dtype=F64)
    want = kernels.sorted_l1_prox(r, weights, 1.0)
    found = kernels.sorted_l1_prox((100 * r).round() * scale, weights, 100 * scale)
    torch.testing.assert_close(found / scale / 100, kernels.sorted_l1_prox((100 * r).round(), weights, 100.0) / 100,
                               rtol=1e-12, atol=0.02 if scale < 1e-320 else 1e-12)
    assert float((found / scale / 100 - want).abs().max()) < 0.02


def test_many_entries_agree_with_the_reference(generator):
    r = torch.randn(2, 300_000, dtype=F64, generator=generator).abs()
    r[1, ::3] = r[1, 0]
    weights = torch.linspace(2, 0, 300_000, dtype=F64)
    step = torch.tensor([0.5, 1.5], dtype=F64)
    torch.testing.assert_close(kernels.sorted_l1_prox(r, weights, step), reference.sorted_l1_prox(r, weights, step))


def test_gradients_are_those_of_the_reference(generator):
    r = torch.rand(2, 6, dtype=F64, generator=generator).requires_grad_()
    weights = torch.linspace(0.5, 0.1, 6, dtype=F64).requires_grad_()
    step = torch.tensor([0.3, 1.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(kernels.sorted_l1_prox, (r, weights, step))
