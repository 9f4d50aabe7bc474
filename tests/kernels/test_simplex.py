"""Projections onto the simplex and the l1 ball: optimality in exact arithmetic, extreme values, gradients."""

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparsepriors import kernels
from sparsepriors.kernels import reference

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
SETS = kernels.instruction_sets() or (None,)
TINY = 5e-324


def exact_shift(entries, radius):
    """The shift of the projection onto the simplex, by sorting rational numbers."""
    ordered = sorted(map(Fraction, entries), reverse=True)
    total, tau = Fraction(0), Fraction(0)
    for count, v in enumerate(ordered, start=1):
        if count > 1 and v <= tau:
            break
        total += v
        tau = (total - Fraction(radius)) / count
    return tau


def is_exact(found, entries, radius, eps, least):
    """Every entry is within rounding of the radius, to which they add up, from what rational arithmetic gives."""
    tau = exact_shift(entries, radius)
    for u, v in zip(found, entries, strict=True):
        want = max(Fraction(v) - tau, 0)
        slack = 8 * Fraction(eps) * Fraction(radius) + 2 * Fraction(least)
        assert abs(Fraction(u) - want) <= slack, (u, float(want))


ROWS = st.one_of(
    st.lists(st.floats(-3, 3), min_size=1, max_size=40),
    st.lists(st.sampled_from([0.0, -0.0, 0.25, 1.0, -1.0]), min_size=1, max_size=40),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    st.builds(lambda n, v: [v] * n, st.integers(1, 70), st.floats(-1e300, 1e300)),
    st.builds(lambda n, q: [q**i for i in range(n)], st.integers(1, 60), st.floats(0.01, 0.99)))
RADII = st.one_of(st.floats(1e-3, 1e3), st.floats(TINY, 1e308))


@pytest.mark.parametrize("instruction_set", SETS)
@given(row=ROWS, radius=RADII)
@example(row=[1e308, 1e308, -1e308], radius=1.0)
@example(row=[1e308] * 40, radius=1e308)
@example(row=[TINY, 3 * TINY, 2 * TINY], radius=2 * TINY)
@example(row=[1e16, 1.0, 1.0], radius=1e16)
@example(row=[1e8 + i * 1e-8 for i in range(9)], radius=1e-8)
def test_float64_equals_rational_arithmetic(instruction_set, row, radius):
    x = torch.tensor(row, dtype=F64)
    eps = torch.finfo(F64).eps
    u = kernels.project_simplex(x, radius, instruction_set=instruction_set)
    is_exact(u.tolist(), row, radius, eps, TINY)
    u = kernels.project_l1_ball(x, radius, instruction_set=instruction_set)
    if sum(map(Fraction, x.abs().tolist())) <= Fraction(radius):
        torch.testing.assert_close(u, x, rtol=8 * eps, atol=2 * TINY)
    else:
        assert bool((u * x.sgn() >= 0).all())
        is_exact(u.abs().tolist(), x.abs().tolist(), radius, eps, TINY)


@pytest.mark.parametrize("instruction_set", SETS)
@given(row=arrays.arrays("float32", st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
       radius=st.floats(1e-30, 1e30))
def test_float32_equals_rational_arithmetic(instruction_set, row, radius):
    x = torch.from_numpy(row)
    u = kernels.project_simplex(x, radius, instruction_set=instruction_set)
    is_exact(u.tolist(), x.tolist(), radius, torch.finfo(F32).eps, 2.0**-149)


@given(n=st.integers(1, 400), seed=st.integers(0, 2**31), share=st.floats(1e-3, 1.2),
       dtype=st.sampled_from([C64, C128]), scale=st.sampled_from([1.0, 1e-30, 1e30]))
def test_complex_entries_keep_their_phase(n, seed, share, dtype, scale):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, dtype=dtype, generator=generator)
    x[torch.rand(n, generator=generator) < 0.1] = 0
    wide = x.to(C128)
    radius = share * float(wide.abs().sum()) or 1.0
    u = kernels.project_l1_ball(x, radius)
    want = reference.project_l1_ball(wide, radius)
    assert float((u.to(C128) - want).abs().max()) <= 100 * torch.finfo(dtype).eps * float(wide.abs().max())


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("share", [1e-6, 0.1, 0.9])
def test_many_entries_sum_to_the_radius(dtype, share, generator):
    x = torch.randn(3_000_000, dtype=dtype, generator=generator)
    x[0], eps = 1e6, torch.finfo(dtype).eps
    for radius in (share * float(x.double().abs().sum()), 1e6 + share * 1e5):
        for project in (kernels.project_simplex, kernels.project_l1_ball):
            v = x.double().abs() if project is kernels.project_l1_ball else x.double()
            u = project(x, radius).double().abs()
            assert abs(float(u.sum()) - radius) <= 20 * eps * radius
            shifts = (v - u)[u > 0]   # one shift for all that stay, and no entry above it among the rest
            tau = float(shifts.median())
            assert float((shifts - tau).abs().max()) <= 4 * eps * 1e6
            assert float(v[u == 0].max()) <= tau + 4 * eps * max(1.0, abs(tau)) if bool((u == 0).any()) else True


@pytest.mark.parametrize("row", [[2.0**-i for i in range(1060)], [1 - 2.0**-i for i in range(50)] * 700,
                                 [float(i) for i in range(20000)], [3.0**-(i % 600) for i in range(40000)]])
def test_slowly_converging_rows_end(row):
    x = torch.tensor(row, dtype=F64)
    for radius in (1e-300, 1e-9, 0.3, 1.0, 17.0):
        found, want = kernels.project_simplex(x, radius), reference.project_simplex(x, radius)
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-13 * radius)


def test_inside_the_ball_nothing_moves(generator):
    x = torch.randn(5, 100, dtype=F64, generator=generator)
    radius = x.abs().sum(dim=-1) * torch.tensor([0.5, 2.0, 1.1, 0.9, 1e6], dtype=F64)
    found = kernels.project_l1_ball(x, radius)
    same = (found == x).all(dim=-1)
    assert same.tolist() == [False, True, True, False, True]
    assert found.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("kernel", [kernels.project_simplex, kernels.project_l1_ball])
def test_gradients_are_those_of_the_reference(kernel, generator):
    x = torch.randn(3, 9, dtype=F64, generator=generator, requires_grad=True)
    radius = torch.tensor([0.5, 1.5, 100.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(kernel, (x, radius))
    torch.testing.assert_close(kernel(x, radius).detach(), kernel(x.detach(), radius.detach()))
    jacobian = torch.func.jacrev(lambda y: kernel(y, 1.5))(x.detach()[1])
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(lambda y: kernel(y, 1.5), x.detach()[1]))


def test_not_a_number_ends():
    """Callers look for NaN; the kernel must come to an end all the same."""
    for bad in (torch.nan, torch.inf, -torch.inf):
        x = torch.tensor([1.0, bad, 0.5], dtype=F64)
        kernels.project_simplex(x, 1.0)
        kernels.project_l1_ball(x, 1.0)
