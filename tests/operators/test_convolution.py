"""Convolution against SciPy in every mode, for odd and even kernels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import Convolution, gaussian_kernel
from sparsepriors.testing import dot_test


@given(data=st.data(), mode=st.sampled_from(("circular", "same", "valid")),
       dtype=st.sampled_from((torch.float64, torch.complex128)), seed=st.integers(0, 99))
def test_equals_scipy(data: st.DataObject, mode: str, dtype: torch.dtype, seed: int) -> None:
    kernel_shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    shape = [data.draw(st.integers(k, 8)) for k in kernel_shape]
    g = torch.Generator().manual_seed(seed)
    kernel = torch.randn(*kernel_shape, dtype=dtype, generator=g)
    x = torch.randn(*shape, dtype=dtype, generator=g)
    op = Convolution(kernel, (2, *shape), mode)
    if mode == "circular":
        # A periodic continuation long enough for the kernel, then the zero-padded convolution of its middle.
        wide = np.pad(x.numpy(), [(k, k) for k in kernel_shape], mode="wrap")
        expected = scipy.signal.convolve(wide, kernel.numpy(), mode="same", method="direct")
        expected = expected[tuple(slice(k, k + n) for k, n in zip(kernel_shape, shape, strict=True))]
    else:
        expected = scipy.signal.convolve(x.numpy(), kernel.numpy(), mode=mode, method="direct")
    found = op(torch.stack((x, 2 * x)))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-11)
    np.testing.assert_allclose(found[1].numpy(), 2 * expected, atol=1e-11)
    dot_test(op, g, (2,))


def test_circular_with_an_odd_kernel_is_ndimage_wrap(generator: torch.Generator) -> None:
    x = torch.randn(7, 8, dtype=torch.float64, generator=generator)
    kernel = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    expected = scipy.ndimage.convolve(x.numpy(), kernel.numpy(), mode="wrap")
    np.testing.assert_allclose(Convolution(kernel, (7, 8))(x).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["same", "valid"])
def test_complex_tensors_with_a_real_kernel(mode: Literal["same", "valid"], generator: torch.Generator) -> None:
    x = torch.randn(9, dtype=torch.complex128, generator=generator)
    kernel = torch.randn(4, dtype=torch.float64, generator=generator)
    found = Convolution(kernel, (9,), mode, torch.complex128)(x)
    np.testing.assert_allclose(found.numpy(), np.convolve(x.numpy(), kernel.numpy(), mode=mode), atol=1e-12)


def test_same_mode_takes_kernels_larger_than_the_image(generator: torch.Generator) -> None:
    x, kernel = torch.randn(3, generator=generator), torch.randn(7, generator=generator)
    op = Convolution(kernel, (3,), "same")
    full = np.convolve(x.numpy(), kernel.numpy())
    np.testing.assert_allclose(op(x).numpy(), full[3:6], atol=1e-5)
    dot_test(op, generator)


def test_circular_norm_is_exact_and_the_gram_is_one_convolution(generator: torch.Generator) -> None:
    op = Convolution(torch.randn(3, 4, dtype=torch.float64, generator=generator), (6, 5))
    assert op.norm() == pytest.approx(float(torch.linalg.matrix_norm(op.dense(), ord=2)), rel=1e-12)
    assert isinstance(op.gram(), Convolution)


def test_gaussian_kernel_sums_to_one_and_has_the_variance() -> None:
    kernel = gaussian_kernel(1.5, 2, dtype=torch.float64)
    assert kernel.shape == (13, 13)
    assert float(kernel.sum()) == pytest.approx(1)
    t = torch.arange(-6, 7, dtype=torch.float64)
    assert float((kernel.sum(1) * t**2).sum()) == pytest.approx(1.5**2, rel=1e-2)
    torch.testing.assert_close(gaussian_kernel(1.0, 1, radius=0), torch.ones(1))


def test_gradient_flows_to_the_kernel(generator: torch.Generator) -> None:
    kernel = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    x = torch.randn(6, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda k: Convolution(k, (6,), "same")(x), kernel)


@pytest.mark.public_door
def test_bad_arguments() -> None:
    kernel = torch.ones(3)
    with pytest.raises(ValueError, match="must not be larger"):
        Convolution(kernel, (2,))
    with pytest.raises(ValueError, match="1 to 1 non-empty axes"):
        Convolution(torch.ones(3, 3), (8,))
    with pytest.raises(ValueError, match="1 to 1 non-empty axes"):
        Convolution(torch.ones(0), (8,))
    with pytest.raises(ValueError, match="did you mean 'circular'"):
        Convolution(kernel, (8,), "circlar")
    with pytest.raises(TypeError, match="single or double"):
        Convolution(kernel.half(), (8,))
    with pytest.raises(TypeError, match="complex counterpart"):
        Convolution(kernel, (8,), dtype=torch.float64)
    with pytest.raises(ValueError, match="kernel holds NaN"):
        Convolution(kernel / 0 - kernel / 0, (8,))
    with pytest.raises(ValueError, match="std must be finite and positive"):
        gaussian_kernel(0.0)
