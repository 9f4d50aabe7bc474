"""The wavelet transform against PyWavelets, its orthonormality, its derivative and its refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import WaveletTransform, greatest_levels
from sparsepriors.testing import dot_test


@given(levels=st.integers(0, 3), multiples=st.lists(st.integers(1, 3), min_size=1, max_size=3),
       wavelet=st.sampled_from(("haar", "db2", "db7", "sym4", "coif2")),
       dtype=st.sampled_from((torch.float64, torch.complex128)), data=st.data())
@pytest.mark.filterwarnings("ignore:Level value of:UserWarning")
def test_equals_pywavelets(levels: int, multiples: list[int], wavelet: str, dtype: torch.dtype,
                           data: st.DataObject) -> None:
    shape = tuple(m << levels for m in multiples)
    dims = data.draw(st.integers(1, len(shape)))
    g = torch.Generator().manual_seed(levels)
    x = torch.randn(2, *shape, dtype=dtype, generator=g)
    op = WaveletTransform(shape, wavelet, levels, dims, dtype)
    axes = tuple(range(-dims, 0))
    coefficients = pywt.wavedecn(x.numpy(), wavelet, mode="periodization", level=levels, axes=axes)
    expected, _ = pywt.coeffs_to_array(coefficients, axes=axes)
    np.testing.assert_allclose(op(x).numpy(), expected, atol=1e-11)
    torch.testing.assert_close(op.adjoint(op(x)), x, rtol=1e-9, atol=1e-9)
    dot_test(op, g, (2,))


def test_derivative_by_finite_differences(generator: torch.Generator) -> None:
    op = WaveletTransform((4, 8), "db2", 1, dtype=torch.float64)
    x = torch.randn(4, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(op.forward, x)
    assert torch.autograd.gradgradcheck(lambda z: op.adjoint(z).square(), x)
    z = torch.randn(4, 8, dtype=torch.complex128, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(WaveletTransform((4, 8), "sym4", 2, dtype=torch.complex128).adjoint, z)


def test_every_accepted_family_is_orthonormal(generator: torch.Generator) -> None:
    x = torch.randn(16, dtype=torch.float64, generator=generator)
    for name in pywt.wavelist(kind="discrete"):  # pyright: ignore[reportAttributeAccessIssue]
        if name == "dmey" or (name.startswith(("bior", "rbio")) and name[4:] != "1.1"):  # bior1.1 is haar
            with pytest.raises(ValueError, match="orthonormal"):
                WaveletTransform((16,), name, 2)
            continue
        op = WaveletTransform((16,), name, 2, dtype=torch.float64)
        torch.testing.assert_close(op.adjoint(op(x)), x, rtol=1e-8, atol=1e-8)


def test_greatest_levels() -> None:
    assert greatest_levels((256, 96)) == 5
    assert greatest_levels((7, 8)) == 0
    with pytest.raises(ValueError, match="no zero"):
        greatest_levels((0, 4))


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"levels must be at most 2 for axes of 12, 8 entries.*got 3"):
        WaveletTransform((12, 8), "haar", 3)
    for name in ("bior2.2", "dmey"):
        with pytest.raises(ValueError, match="must be orthonormal"):
            WaveletTransform((8,), name, 1)
    with pytest.raises(ValueError, match="did you mean 'haar'"):
        WaveletTransform((8,), "harr", 1)
    with pytest.raises(TypeError, match="single or double"):
        WaveletTransform((8,), "haar", 1, dtype=torch.float16)
    with pytest.raises(ValueError, match="at least one axis"):
        WaveletTransform((), "haar", 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(ImportError, match="pip install PyWavelets"):
        WaveletTransform((8,), "haar", 1)
