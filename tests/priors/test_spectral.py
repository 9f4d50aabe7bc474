import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.priors import NuclearNorm

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def with_spectrum(singular, rows, columns, dtype, generator):
    """A matrix of these singular values and random singular vectors."""
    k = len(singular)
    u, v = (torch.linalg.qr(torch.randn(n, k, dtype=dtype, generator=generator)).Q for n in (rows, columns))
    return (u * torch.tensor(singular, dtype=dtype)) @ v.mH


def by_definition(x, threshold):
    u, s, vh = torch.linalg.svd(x.to(torch.complex128 if x.is_complex() else torch.float64), full_matrices=False)
    return (u * torch.relu(s - threshold)[..., None, :]) @ vh


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), decay=st.floats(0.01, 1), share=st.floats(1e-3, 1.5),
       dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**31))
def test_singular_values_are_thresholded_as_exactly_as_rounding_lets(rows, columns, decay, share, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x = with_spectrum([decay**i for i in range(min(rows, columns))], rows, columns, dtype, generator)
    off = (NuclearNorm(share).prox(x) - by_definition(x, share)).abs().max()
    assert off <= 100 * torch.finfo(dtype).eps  # the largest singular value is 1


@pytest.mark.parametrize("threshold", [1e-1, 1e-3, 1e-6])
def test_small_thresholds_keep_small_singular_values_exact(threshold, generator):
    x = with_spectrum([1.0, 0.5, 3 * threshold, 2 * threshold], 8, 6, torch.float64, generator)
    off = (NuclearNorm(threshold).prox(x) - by_definition(x, threshold)).abs().max()
    assert off <= 100 * torch.finfo(torch.float64).eps


@pytest.mark.parametrize("shape", [(7, 40, 6), (7, 6, 40), (2, 3, 5, 5)])
def test_a_batch_has_thresholds_of_its_own(shape, generator):
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    step = torch.rand((*shape[:-2], 1, 1), dtype=torch.float64, generator=generator) + 0.5
    found = NuclearNorm(0.7).prox(x, step)
    torch.testing.assert_close(found, by_definition(x, 0.7 * step[..., 0]))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-150, 1.0, 1e150, 1e160, 1e300])
def test_squares_that_overflow_or_vanish_do_not_matter(scale, generator):
    x = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    found = NuclearNorm(scale).prox(scale * x)
    torch.testing.assert_close(found / scale, by_definition(x, 1.0))
    assert torch.equal(NuclearNorm(1.0).prox(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_values_are_the_same_with_and_without_a_gradient(generator):
    x = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(NuclearNorm(0.8).prox(x.clone().requires_grad_()).detach(), NuclearNorm(0.8).prox(x))
    assert torch.autograd.gradcheck(NuclearNorm(0.8).prox, x.clone().requires_grad_())


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_complex_results_are_plain_tensors(shape, generator):
    u = NuclearNorm(2.0).prox(torch.randn(shape, dtype=torch.complex128, generator=generator))
    assert not u.is_conj()  # NumPy takes no lazy conjugates
    assert u.numpy().shape == shape
