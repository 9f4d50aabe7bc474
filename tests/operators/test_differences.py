"""Finite differences against NumPy and PyLops, and their boundary conventions."""

from __future__ import annotations

import numpy as np
import pylops
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import FiniteDifference
from sparsepriors.testing import dot_test


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), data=st.data(),
       boundary=st.sampled_from(("neumann", "periodic")),
       dtype=st.sampled_from((torch.float32, torch.float64, torch.complex64, torch.complex128)))
def test_equals_numpy(shape: tuple[int, ...], data: st.DataObject, boundary: str, dtype: torch.dtype) -> None:
    dims = data.draw(st.integers(1, len(shape)))
    g = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, dtype=dtype, generator=g)
    op = FiniteDifference(shape, dims, dtype, boundary)
    y = op(x).numpy()
    for j, axis in enumerate(range(-dims, 0)):
        next_entry = np.take(x.numpy(), [*range(1, shape[axis]), 0], axis=axis)
        expected = next_entry - x.numpy()
        if boundary == "neumann":
            expected[(..., -1, *[slice(None)] * (-axis - 1))] = 0
        np.testing.assert_array_equal(y[j], expected)
    dot_test(op, g, (2,))


def test_equals_pylops_gradient(generator: torch.Generator) -> None:
    x = torch.randn(5, 6, 4, dtype=torch.float64, generator=generator)
    peer = pylops.Gradient((5, 6, 4), kind="forward", edge=False, dtype="float64")
    expected = np.asarray(peer @ x.numpy().ravel()).reshape(3, 5, 6, 4)
    op = FiniteDifference((5, 6, 4), dtype=torch.float64)
    np.testing.assert_allclose(op(x).numpy(), expected, atol=1e-14)
    np.testing.assert_allclose(op.adjoint(op(x)).numpy().ravel(), peer.H @ expected.ravel(), atol=1e-13)


def test_constants_have_no_differences_and_the_adjoint_has_no_mean(generator: torch.Generator) -> None:
    for boundary in ("neumann", "periodic"):
        op = FiniteDifference((4, 5), boundary=boundary, dtype=torch.float64)
        assert not op(torch.ones(4, 5, dtype=torch.float64)).any()
        y = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
        assert float(op.adjoint(y).sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="did you mean 'neumann'"):
        FiniteDifference((4,), boundary="neuman")
    with pytest.raises(ValueError, match="at least one axis"):
        FiniteDifference(())
    with pytest.raises(ValueError, match="dims must be from 1 to 1"):
        FiniteDifference((4,), dims=2)
