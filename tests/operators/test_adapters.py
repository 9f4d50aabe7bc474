"""Operators of SciPy and PyLops, and pairs of functions, seen from here."""

from __future__ import annotations

import numpy as np
import pylops
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from torch import Tensor

from sparsepriors.operators import FiniteDifference, from_callable, from_pylops, from_scipy
from sparsepriors.testing import check_operator


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_sparse_matrices_of_every_precision(dtype: str) -> None:
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random_array((7, 5), density=0.5, rng=rng, dtype="float64").astype(dtype)
    if "complex" in dtype:
        matrix = matrix * (1 + 2j)
    op = from_scipy(matrix.astype(dtype).tocsr())
    check_operator(op)
    np.testing.assert_allclose(op.dense().numpy(), matrix.toarray(), rtol=1e-6)


def test_scipy_linear_operator_with_shapes() -> None:
    matrix = np.random.default_rng(1).standard_normal((6, 4))

    class Peer(ScipyOperator):
        def __init__(self) -> None:
            super().__init__(np.dtype(np.float64), (6, 4))

        def _matvec(self, x: np.ndarray) -> np.ndarray:
            return matrix @ x

        def _rmatvec(self, x: np.ndarray) -> np.ndarray:
            return matrix.T @ x

    op = from_scipy(Peer(), in_shape=(2, 2), out_shape=(3, 2))
    check_operator(op)
    assert (op.in_shape, op.out_shape) == ((2, 2), (3, 2))


@pytest.mark.parametrize("peer", [
    pylops.FirstDerivative((4, 5), axis=-1, kind="centered"),
    pylops.Gradient((4, 5), kind="forward"),
    pylops.signalprocessing.FFTND((4, 6), axes=(0, 1), norm="ortho"),
    pylops.Restriction(8, [1, 4, 6]),
], ids=["FirstDerivative", "Gradient", "FFTND", "Restriction"])
def test_pylops_operators_pass_the_contract(peer: pylops.LinearOperator) -> None:
    check_operator(from_pylops(peer))


def test_pylops_operators_compose_with_ours(generator: torch.Generator) -> None:
    x = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    gradient = from_pylops(pylops.Gradient((4, 5), kind="forward"))
    ours = FiniteDifference((4, 5), dtype=torch.float64)
    torch.testing.assert_close((ours.H @ gradient)(x), ours.gram()(x))


def test_real_input_transforms_have_real_adjoints() -> None:
    op = from_pylops(pylops.signalprocessing.FFT2D((4, 6), real=True), in_dtype=torch.float64)
    assert (op.in_dtype, op.out_dtype) == (torch.float64, torch.complex128)
    check_operator(op)


class _Physics:
    """The convention of deepinv: one batch axis leads, ``A`` and ``A_adjoint``."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        assert x.ndim == 3
        return torch.einsum("mn,bcn->bcm", self.matrix, x)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        assert y.ndim == 3
        return torch.einsum("mn,bcm->bcn", self.matrix, y)


def test_objects_of_deepinvs_convention(generator: torch.Generator) -> None:
    op = from_callable(_Physics(torch.randn(4, 3, generator=generator)), in_shape=(2, 3))
    assert op.out_shape == (2, 4)
    assert repr(op) == "_Physics(2x3 -> 2x4, float32)"
    check_operator(op)


def test_functions_see_one_item_unless_batched() -> None:
    seen: list[int] = []

    def double(x: Tensor) -> Tensor:
        seen.append(x.ndim)
        return 2 * x

    op = from_callable(double, double, in_shape=(3,), in_dtype=torch.float64)
    check_operator(op)
    assert set(seen) == {1}
    seen.clear()
    check_operator(from_callable(double, double, in_shape=(3,), in_dtype=torch.float64, batched=True))
    assert set(seen) == {2}


def test_a_wrong_adjoint_is_found_at_the_door() -> None:
    with pytest.raises(ValueError, match="is not adjoint to its adjoint"):
        from_callable(lambda x: x.cumsum(0), lambda y: y.cumsum(0), in_shape=(4,))
    op = from_callable(lambda x: x.cumsum(0), lambda y: y.cumsum(0), in_shape=(4,), check=False)
    assert op(torch.ones(4)).tolist() == [1, 2, 3, 4]


def test_a_wrong_adjoint_is_found_in_half_precision_too() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="is not adjoint to its adjoint"):
            from_callable(lambda x: x.clone(), lambda y: 1.5 * y, in_shape=(3,), in_dtype=dtype)
        from_callable(lambda x: x.cumsum(0), lambda y: y.flip(0).cumsum(0).flip(0), in_shape=(64,), in_dtype=dtype)


def test_two_precisions_are_compared_by_the_coarser_one(generator: torch.Generator) -> None:
    matrix = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(3, generator=generator)
    op = from_scipy(matrix.numpy(), in_dtype=torch.float32)
    assert (op.in_dtype, op.out_dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(op(x), matrix @ x.double(), rtol=1e-6, atol=1e-6)
    from_callable(lambda v: matrix @ v.double(), lambda y: (matrix.T @ y).float(), in_shape=(3,))


@pytest.mark.parametrize("name", ["float16", "longdouble", "clongdouble", "int8", "bool"])
def test_dtypes_that_torch_has_not_become_double_precision(name: str, generator: torch.Generator) -> None:
    matrix = (3 * torch.randn(4, 3, dtype=torch.complex128, generator=generator)).numpy()
    matrix = (matrix if name == "clongdouble" else np.real(matrix)).astype(name)
    op = from_scipy(matrix)
    x = torch.randn(3, dtype=op.in_dtype, generator=generator)
    assert op.in_dtype == (torch.complex128 if name == "clongdouble" else torch.float64)
    want = matrix.astype(np.complex128) @ x.numpy()
    np.testing.assert_allclose(op(x).numpy(), want, rtol=1e-12)


def test_functions_with_parameters_are_tested_without_a_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    op = from_callable(lambda x: weight * x, lambda y: weight * y, in_shape=(3,))
    assert op(torch.ones(3)).requires_grad


@pytest.mark.public_door
def test_bad_arguments() -> None:
    class Forward(ScipyOperator):
        def _matvec(self, x: np.ndarray) -> np.ndarray:
            return x

    with pytest.raises(TypeError, match=r"must have an adjoint \(rmatvec\), Forward has none"):
        from_scipy(Forward(np.float64, (3, 3)))
    with pytest.raises(TypeError, match="methods A and A_adjoint, got Tensor"):
        from_callable(torch.eye(3), in_shape=(3,))
    with pytest.raises(TypeError, match=r"must return a torch.Tensor, got float"):
        from_callable(lambda x: 1.0, lambda y: y, in_shape=(3,))
    with pytest.raises(ValueError, match=r"must return torch.float32 of shape \(1, 3\)"):
        from_callable(lambda x: x[:2], lambda y: y, in_shape=(3,), out_shape=(3,), out_dtype=torch.float32)
    with pytest.raises(TypeError, match="SciPy LinearOperator or a matrix, got str"):
        from_scipy("matrix")
    with pytest.raises(ValueError, match=r"in_shape must hold 4 entries.*got \(3,\)"):
        from_scipy(np.ones((2, 4)), in_shape=(3,))
    with pytest.raises(TypeError, match="in_dtype must have single or double"):
        from_scipy(np.ones((2, 4)), in_dtype=torch.float16)
    with pytest.raises(TypeError, match="dims and dimsd, got ndarray"):
        from_pylops(np.ones((2, 2)))
