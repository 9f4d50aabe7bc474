"""Singular values lowered by Gram matrices: as exact as a decomposition for every spectrum, threshold and scale."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sparsepriors.kernels import dispatch
from sparsepriors.priors import NuclearNorm, Rank
from sparsepriors.priors import _singular_values as singular_values

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
pytestmark = pytest.mark.skipif(not dispatch.instruction_sets(), reason="asks for the compiled module")


def factors(rows, columns, k, seed):
    """Orthonormal columns."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.linalg.qr(torch.randn(n, k, dtype=torch.complex128, generator=generator)).Q for n in (rows, columns)]


SPECTRA = st.one_of(
    st.builds(lambda k, q: [q**i for i in range(k)], st.integers(1, 24), st.floats(1e-3, 1)),
    st.builds(lambda k, low: [1.0] * k + [low] * k, st.integers(1, 12), st.floats(0, 1)),
    st.lists(st.floats(0, 1), min_size=1, max_size=24).map(lambda s: [1.0, *sorted(s, reverse=True)]))


@given(spectrum=SPECTRA, more=st.integers(0, 20), wide=st.booleans(), power=st.floats(-17, 0.5),
       dtype=st.sampled_from(DTYPES), scale=st.sampled_from([1.0, 1e-30, 1e30]), seed=st.integers(0, 2**31))
@example(spectrum=[4.0**-i for i in range(20)], more=0, wide=False, power=-17.0, dtype=torch.float64, scale=1.0, seed=0)
@example(spectrum=[1.0, *[1e-6] * 20], more=5, wide=True, power=-7.0, dtype=torch.float64, scale=1.0, seed=0)
def test_the_nuclear_norm_is_proxed_to_rounding(spectrum, more, wide, power, dtype, scale, seed):
    k = len(spectrum)
    u, v = factors(*((k, k + more) if wide else (k + more, k)), k, seed)
    if not dtype.is_complex:
        u, v = (torch.linalg.qr(q.real).Q.to(torch.complex128) for q in (u, v))
    s, threshold = torch.tensor(spectrum, dtype=torch.float64), 10**power
    x = ((u * s) @ v.mH * scale).to(dtype) if dtype.is_complex else ((u * s) @ v.mH * scale).real.to(dtype)
    want = (u * torch.relu(s - threshold)) @ v.mH
    found = NuclearNorm(threshold * scale).prox(x)
    assert found.dtype == dtype
    assert found.is_contiguous()
    off = torch.linalg.matrix_norm(found.to(torch.complex128) / scale - want, 2)
    assert float(off) <= 40 * torch.finfo(dtype).eps   # the largest singular value is 1


@given(spectrum=SPECTRA, more=st.integers(0, 20), wide=st.booleans(), k=st.integers(1, 12),
       dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**31))
def test_no_matrix_of_that_rank_is_nearer(spectrum, more, wide, k, dtype, seed):
    n = len(spectrum)
    u, v = factors(*((n, n + more) if wide else (n + more, n)), n, seed)
    x = (u * torch.tensor(spectrum, dtype=torch.float64)) @ v.mH
    x = x.to(dtype) if dtype.is_complex else x.real.to(dtype)
    found, eps = Rank(k).project(x), torch.finfo(dtype).eps
    exact = x.to(torch.complex128)
    least = torch.linalg.svdvals(exact)[k:].norm()
    assert float((found.to(torch.complex128) - exact).norm()) <= float(least) + 100 * eps * float(exact.norm())
    assert float(torch.linalg.svdvals(found.to(torch.complex128))[k:].sum()) <= 100 * eps * float(exact.norm())


@pytest.mark.parametrize("shape", [(3, 60, 50), (2, 2, 50, 70)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_matrices_of_a_batch_are_taken_one_by_one(shape, dtype, generator):
    x = torch.randn(shape, dtype=dtype, generator=generator)
    x[0] *= 1e3
    assert singular_values.takes(x)
    assert not singular_values.takes(x[..., :9])
    step = 0.1 + torch.rand((*shape[:-2], 1, 1), dtype=dtype.to_real(), generator=generator)
    together, rank = NuclearNorm(2.0).prox(x, step), Rank(3).project(x)
    for i in range(shape[0]):
        alone = NuclearNorm(2.0).prox(x[i], step[i])
        torch.testing.assert_close(together[i], alone)
        torch.testing.assert_close(rank[i], Rank(3).project(x[i]))


@pytest.mark.parametrize("scale", [0.0, 5e-324, 1e-310, 1e-160, 1e160, 1e300])
def test_extreme_scales(scale, generator):
    x = torch.randn(9, 7, dtype=torch.float64, generator=generator)
    for view in (x, x.mT, x[::2], torch.complex(x, x).conj().imag):
        found = NuclearNorm(0.7).prox(view * scale, scale or 1.0)
        if scale > 1e-300:
            torch.testing.assert_close(found / scale, NuclearNorm(0.7).prox(view.clone()))
        assert bool(torch.isfinite(found).all())
        assert bool((NuclearNorm(1e308).prox(view * scale) == 0).all())


def test_without_the_compiled_module_the_values_are_the_same(generator, monkeypatch):
    x = torch.randn(30, 20, dtype=torch.float64, generator=generator)
    found = [p.prox(x) for p in (NuclearNorm(3.0), NuclearNorm(1e-3), Rank(4))]
    monkeypatch.setattr(dispatch, "NATIVE", None)
    for a, p in zip(found, (NuclearNorm(3.0), NuclearNorm(1e-3), Rank(4)), strict=True):
        torch.testing.assert_close(a, p.prox(x))


def test_eigenvectors_that_are_not_found_are_told(monkeypatch):
    gram_of, times, _, adjoint = singular_values._routines("d")

    def fails(gram, **_):
        return gram[0], gram, 1

    monkeypatch.setattr(singular_values, "_routines", lambda kind: (gram_of, times, fails, adjoint))
    with pytest.raises(np.linalg.LinAlgError, match="eigenvectors of a Gram matrix were not found"):
        NuclearNorm(1e-3).prox(torch.eye(3, dtype=torch.float64))
