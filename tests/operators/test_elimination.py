import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import Elimination, Matrix

F64 = torch.float64


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(7, generator=generator)
    return Elimination(7, order[:3], order[3:5], torch.randn(2, 3, dtype=F64, generator=generator),
                       torch.rand(3, dtype=F64, generator=generator) + 0.1)


@given(seed=st.integers(0, 10_000))
def test_solve_inverts_and_the_determinant_is_that_of_the_residuals(seed):
    E = drawn(seed)
    x = torch.randn(2, 7, dtype=F64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(E.solve(E(x)), x)
    torch.testing.assert_close(E(E.solve(x)), x)
    torch.testing.assert_close(torch.linalg.det(E.dense()), 1 / E.residuals.prod())


def test_columns_lose_what_the_pivots_explain():
    X = torch.randn(20, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    R, I = torch.tensor([0, 3]), torch.tensor([1, 4])  # noqa: E741 the names of the docstring
    C = torch.linalg.lstsq(X[:, R], X[:, I]).solution
    rest = X[:, I] - X[:, R] @ C
    norms = torch.linalg.vector_norm(rest, dim=0)
    Z = (Matrix(X) @ Elimination(5, I, R, C, norms)).dense()
    torch.testing.assert_close(Z[:, I], rest / norms)
    torch.testing.assert_close(X[:, R].mT @ Z[:, I], torch.zeros(2, 2, dtype=F64), atol=1e-10, rtol=0)
    torch.testing.assert_close(Z[:, [0, 2, 3]], X[:, [0, 2, 3]])


def test_a_column_that_is_explained_completely_is_left_to_the_pivots():
    E = Elimination(3, torch.tensor([2]), torch.tensor([0]), torch.tensor([[2.0]]).double(), torch.zeros(1).double())
    w = torch.tensor([1.0, 5.0, 3.0], dtype=F64)
    assert E.solve(w).tolist() == [7.0, 5.0, 0.0]
    assert E(w).tolist() == [1.0, 5.0, 0.0]


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"columns": torch.tensor([0.0])}, TypeError, "columns must be a vector of int64"),
    ({"columns": torch.tensor([3])}, ValueError, "columns must lie between 0 and 2"),
    ({"columns": torch.tensor([1])}, ValueError, "no index twice"),
    ({"coefficients": torch.ones(2, 1)}, ValueError, "coefficients and residuals must have shapes"),
    ({"residuals": -torch.ones(1)}, ValueError, "residuals must be finite and nonnegative"),
    ({"residuals": torch.ones(1, dtype=F64)}, TypeError, r"residuals must be torch\.float32"),
])
def test_bad_parts_are_named(change, error, message):
    parts = {"size": 3, "columns": torch.tensor([0]), "pivots": torch.tensor([1]), "coefficients": torch.ones(1, 1),
             "residuals": torch.ones(1), **change}
    with pytest.raises(error, match=message):
        Elimination(**parts)
