"""The Fourier transform against NumPy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import FourierTransform
from sparsepriors.testing import dot_test

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, data=st.data(), centred=st.booleans(), seed=st.integers(0, 99))
def test_equals_numpy(shape: tuple[int, ...], data: st.DataObject, centred: bool, seed: int) -> None:
    dims = data.draw(st.integers(1, len(shape)))
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *shape, dtype=torch.complex128, generator=g)
    op = FourierTransform(shape, dims, torch.complex128, centred)
    axes = tuple(range(-dims, 0))
    if centred:
        expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x.numpy(), axes), axes=axes, norm="ortho"), axes)
    else:
        expected = np.fft.fftn(x.numpy(), axes=axes, norm="ortho")
    np.testing.assert_allclose(op(x).numpy(), expected, atol=1e-12)
    torch.testing.assert_close(op.adjoint(op(x)), x, rtol=1e-12, atol=1e-12)
    dot_test(op, g, (3,))


@pytest.mark.parametrize("n", [4, 5])
def test_the_centre_is_the_zero_frequency(n: int) -> None:
    op = FourierTransform((n,), dtype=torch.complex128)
    spectrum = op(torch.ones(n, dtype=torch.complex128))
    expected = torch.zeros(n, dtype=torch.complex128)
    expected[n // 2] = n**0.5
    torch.testing.assert_close(spectrum, expected)
    point = torch.zeros(n, dtype=torch.complex128)
    point[n // 2] = 1
    torch.testing.assert_close(op(point), torch.full((n,), n**-0.5, dtype=torch.complex128))


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="RealToComplex"):
        FourierTransform((4,), dtype=torch.float32)
    with pytest.raises(ValueError, match="dims must be from 1 to 2"):
        FourierTransform((4, 4), dims=3)
    with pytest.raises(ValueError, match="must not hold a zero"):
        FourierTransform((4, 0))
    op = FourierTransform((4, 4))
    with pytest.raises(TypeError, match=r"x must be torch.complex64, got torch.float32"):
        op(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 4, 4\), got \(4, 5\)"):
        op(torch.zeros(4, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match="y holds NaN"):
        op.adjoint(torch.full((4, 4), torch.nan, dtype=torch.complex64))
