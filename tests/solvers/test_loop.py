"""Problems without rows, columns or entries have the solution that they leave."""

import pytest
import torch

from sparsepriors import solvers
from sparsepriors.operators import Matrix
from sparsepriors.priors import L1, Cardinality

PRIOR = L1(0.1, dims=1)
SOLVERS = {
    "proximal gradient": lambda A, y: solvers.proximal_gradient(A, y, PRIOR),
    "admm": lambda A, y: solvers.admm(A, y, PRIOR),
    "admm, two splits": lambda A, y: solvers.admm(A, y, PRIOR, loss=L1(1.0, dims=1)),
    "primal-dual": lambda A, y: solvers.primal_dual(A, y, PRIOR),
    "csalsa": lambda A, y: solvers.csalsa(A, y, PRIOR, eps=10.0, kappa=1.0, alpha=1.0),
    "hqs": lambda A, y: solvers.hqs(A, y, PRIOR, noise_std=0.1),
    "least squares": lambda A, y: solvers.least_squares(A, y),
    "hard thresholding": lambda A, y: solvers.iterative_hard_thresholding(A, y, Cardinality(1, dims=1)),
    "orthogonal matching pursuit": lambda A, y: solvers.orthogonal_matching_pursuit(A, y, k=1),
    "cosamp": lambda A, y: solvers.cosamp(A, y, k=1),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (6, 0), (0, 0)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_operators_without_rows_or_columns(name, rows, columns, batch):
    A = Matrix(torch.zeros(rows, columns, dtype=torch.float64))
    solution = SOLVERS[name](A, torch.ones(*batch, rows, dtype=torch.float64))
    assert solution.x.shape == (*batch, columns)
    assert not bool(solution.x.any())
