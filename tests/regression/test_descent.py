import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet as ReferenceElasticNet
from sklearn.linear_model import Lasso

from sparsepriors.kernels import Penalty, dispatch, penalties
from sparsepriors.operators import Matrix
from sparsepriors.priors import (
    CEL0,
    L0,
    L1,
    MCP,
    SCAD,
    SLOPE,
    TV,
    Box,
    ElasticNet,
    GroupL2,
    Huber,
    LogSum,
    Lq,
    NonNegative,
    Partition,
    Prior,
    SquaredL2,
    Translated,
    Zero,
)
from sparsepriors.regression import coordinate_descent, largest_factor, regularization_path
from sparsepriors.regression.forms import separable
from sparsepriors.solvers import duality_gap


@dataclass(frozen=True)
class Distance(Prior, convex=True, separable=True):
    """Half a squared distance from [-1, 1] in every coordinate: a prior that the kernels do not know."""

    def _value(self, x):
        return self._sum(torch.relu(x.abs() - 1).square() / 2)

    def _prox(self, x, step):
        inside = x.clamp(-1, 1)
        return inside + (x - inside) / (1 + step)


PRIORS = {
    "L1": L1(0.7), "ElasticNet": ElasticNet(0.5, ridge=0.3), "SquaredL2": SquaredL2(0.4), "Zero": Zero(),
    "NonNegative": NonNegative(), "Box": Box(-0.2, 0.5), "L0": L0(0.3), "MCP": MCP(0.8, gamma=2.5),
    "CEL0": CEL0(0.3, norm=1.4), "SCAD": SCAD(0.6), "LogSum": LogSum(0.4, epsilon=0.2), "half": Lq(0.4, q=0.5),
    "two thirds": Lq(0.4, q=2 / 3), "scaled": 2.0 * MCP(0.4, gamma=5.0),
}
CONVEX = ("L1", "ElasticNet", "SquaredL2", "NonNegative", "Box")


def problem(n, p, seed, noise=0.3):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, dtype=torch.float64, generator=g)
    x = torch.where(torch.rand(p, generator=g) < 0.3, torch.randn(p, dtype=torch.float64, generator=g) * 2, 0.0)
    return X, X @ x + noise * torch.randn(n, dtype=torch.float64, generator=g)


@pytest.mark.parametrize("name", PRIORS)
@given(v=st.floats(-20, 20), step=st.floats(0.01, 30))
def test_the_kernel_s_penalty_is_the_prior(name, v, step):
    prior = PRIORS[name]
    form = separable(prior, 1)
    got = penalties.prox(form.kind, v, step * form.factor, float(form.weight), float(form.second))
    x, inside = torch.tensor([v], dtype=torch.float64), torch.tensor([got], dtype=torch.float64)
    want = prior.prox(x, step)

    def cost(u):
        return step * float(prior.value(u)) + 0.5 * float((u - x).square().sum())

    assert cost(inside) <= cost(want) + 1e-9 * (1 + v * v)   # where two minimisers tie, either will do
    assume(math.isfinite(float(prior.value(x))))
    assert form.factor * penalties.value(form.kind, v, float(form.weight), float(form.second)) == pytest.approx(
        float(prior.value(x)), rel=1e-12, abs=1e-12)


OWN = {"distance": Distance() * 3.0, "Huber": Huber(0.6, delta=0.3), "L1 by its prox": Translated(L1(0.4), 0.0)}


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=5)
@given(n=st.integers(1, 30), p=st.integers(1, 40), seed=st.integers(0, 999))
def test_a_prior_of_ones_own_is_solved_through_its_prox(name, n, p, seed):
    X, y = problem(n, p, seed)
    found = coordinate_descent(X, y, OWN[name], tol=1e-8, max_iter=100)
    assert found.converged
    if name == "L1 by its prox":
        want = coordinate_descent(X, y, L1(0.4), tol=1e-12)
        assert found.trace["objective"][-1] == pytest.approx(want.trace["objective"][-1], rel=1e-6)
    with pytest.raises(TypeError, match="no form for Translated"):
        coordinate_descent(X, y, Translated(MCP(), 0.0))


@pytest.mark.parametrize("name", PRIORS)
@given(n=st.integers(1, 30), p=st.integers(1, 40), seed=st.integers(0, 999))
def test_the_solution_is_a_fixed_point_of_every_coordinate(name, n, p, seed):
    prior = PRIORS[name]
    X, y = problem(n, p, seed)
    found = coordinate_descent(X, y, prior, tol=1e-9, max_iter=300)
    assert found.converged
    curvature = X.square().sum(0)
    q = X.T @ (y - X @ found.x)
    moved = prior.prox(found.x + q / curvature, 1 / curvature)
    assert float((curvature * (moved - found.x)).abs().max()) <= 1e-4 * max(1.0, float((X.T @ y).abs().max()))
    if prior.convex:
        values = [v for v in found.trace["objective"] if math.isfinite(v)]
        assert values[-1] <= values[0] + 1e-9 * abs(values[0])


@given(n=st.integers(2, 40), p=st.integers(1, 60), seed=st.integers(0, 999), strength=st.floats(0.01, 0.9),
       ridge=st.sampled_from([0.0, 0.5]))
def test_the_certificate_bounds_the_gap_that_the_library_computes(n, p, seed, strength, ridge):
    X, y = problem(n, p, seed)
    weight = strength * float((X.T @ y).abs().max())
    prior = ElasticNet(weight, ridge=ridge)
    found = coordinate_descent(X, y, prior, tol=1e-8)
    assert found.converged
    assert float(duality_gap(Matrix(X), y, prior, found.x)) <= 1.01e-8 * 0.5 * float(y @ y) + 1e-12


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("n", "p"), [(50, 20), (40, 300)])
def test_lasso_and_elastic_net_agree_with_scikit_learn(n, p, sparse, intercept):
    X, y = problem(n, p, n + p)
    X = torch.where(X.abs() > 1, X + 0.5, 0.0)
    weights = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    s = weights * n / weights.sum()
    top = largest_factor(X, y, L1(), weights=s, intercept=intercept)
    design = scipy.sparse.csc_array(X.numpy()) if sparse else X
    for factor in (0.5, 0.05):
        for ratio in (1.0, 0.6):
            alpha = factor * top / n
            options = {"alpha": alpha, "fit_intercept": intercept, "tol": 1e-13, "max_iter": 100000}
            model = Lasso(**options) if ratio == 1 else ReferenceElasticNet(l1_ratio=ratio, **options)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")   # scikit-learn warns of gaps at its own rounding
                model.fit(X.numpy(), y.numpy(), sample_weight=weights.numpy())
            prior = ElasticNet(alpha * ratio * n, ridge=alpha * (1 - ratio) * n)
            found = coordinate_descent(design, y, prior, weights=s, intercept=intercept, tol=1e-13)
            np.testing.assert_allclose(found.x.numpy(), model.coef_, atol=2e-6)
            assert float(found.extras["intercept"]) == pytest.approx(float(model.intercept_), abs=1e-5)


@given(seed=st.integers(0, 999), strength=st.floats(0.02, 0.9), ridge=st.sampled_from([0.0, 0.4]))
def test_screening_never_discards_a_column_that_is_needed(seed, strength, ridge):
    X, y = problem(20, 40, seed)
    weight = strength * float((X.T @ y).abs().max())
    best = coordinate_descent(X, y, ElasticNet(weight, ridge=ridge), tol=1e-13).x
    form, curvature = separable(ElasticNet(weight, ridge=ridge), 40), X.square().sum(0)
    x = best + 0.02 * torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * (best != 0)
    discarded = []
    for at in (torch.zeros_like(x), x, best):
        r = y - X @ at
        _, active, (_, _, gap) = form.optimality(at, X.T @ r, curvature, float(r @ r), float(r @ y))
        assert math.isfinite(gap)
        assert not bool((best != 0)[~active].any())
        discarded.append(int((~active).sum()))
    assert discarded[-1] >= 40 - int((best != 0).sum()) - 5   # at the optimum all but ties are found


@given(seed=st.integers(0, 999), n=st.integers(3, 25), p=st.integers(1, 30), name=st.sampled_from(CONVEX))
def test_weights_are_repeated_rows(seed, n, p, name):
    X, y = problem(n, p, seed)
    counts = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed)).double()
    assume(bool((counts > 0).any()))
    repeated = X.repeat_interleave(counts.long(), 0), y.repeat_interleave(counts.long())
    a = coordinate_descent(X, y, PRIORS[name], weights=counts, intercept=True, tol=1e-12, max_iter=500)
    b = coordinate_descent(*repeated, PRIORS[name], intercept=True, tol=1e-12, max_iter=500)

    def objective(found):
        rest = repeated[0] @ found.x + found.extras["intercept"] - repeated[1]
        return 0.5 * float(rest @ rest) + float(PRIORS[name].value(found.x))

    assert objective(a) == pytest.approx(objective(b), rel=1e-6, abs=1e-8)


@given(seed=st.integers(0, 999), name=st.sampled_from(["L1", "MCP", "SCAD", "L0", "LogSum", "half"]))
def test_the_largest_factor_is_where_the_zero_solution_ends(seed, name):
    X, y = problem(20, 30, seed)
    prior = PRIORS[name]
    top = largest_factor(X, y, prior)
    assert not bool(coordinate_descent(X, y, prior * (1.0001 * top)).x.any())
    assert bool(coordinate_descent(X, y, prior * (0.999 * top), tol=1e-12).x.any())
    if name == "L1":
        assert top == pytest.approx(float((X.T @ y).abs().max()) / 0.7, rel=1e-10)


def test_a_path_gives_the_solutions_of_its_points():
    X, y = problem(60, 200, 3)
    factors = [largest_factor(X, y, L1()) * 0.7 ** i for i in range(12)]
    for factor, found in zip(factors, regularization_path(X, y, L1(), factors, tol=1e-10), strict=True):
        alone = coordinate_descent(X, y, L1(factor), tol=1e-10)
        assert found.converged
        torch.testing.assert_close(found.x, alone.x, atol=1e-6, rtol=0)


def test_entries_of_a_sparse_design_at_one_place_add_up():
    rows, columns, values = [0, 0, 1, 2, 3, 3], [0, 0, 0, 1, 1, 2], [1.0, 2.0, -1.0, 2.0, 0.5, 3.0]
    X = scipy.sparse.csc_matrix((values, rows, [0, 3, 5, 6]), shape=(4, 3))
    assert columns == np.repeat(np.arange(3), np.diff(X.indptr)).tolist()
    y = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 0.0, 3.0], dtype=torch.float64)
    dense = torch.from_numpy(X.toarray())
    for intercept in (False, True):
        a, b = (coordinate_descent(A, y, L1(0.1), weights=weights, intercept=intercept, tol=1e-12) for A in (X, dense))
        torch.testing.assert_close(a.x, b.x, atol=1e-9, rtol=0)
    assert X.nnz == 6  # what was given is as it was


def test_torch_has_one_thread_inside_and_the_kernels_theirs():
    X, y = torch.randn(30, 50, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    seen = []
    before = torch.get_num_threads()
    with dispatch.torch_threads(2):
        coordinate_descent(X, y, L1(0.1), callback=lambda s: seen.append((torch.get_num_threads(), dispatch.threads())))
        assert torch.get_num_threads() == 2
    assert set(seen) == {(1, 2)}
    assert torch.get_num_threads() == before


def test_hard_and_degenerate_designs_converge():
    X, y = problem(15, 40, 0)
    twice = torch.cat([X, X, torch.zeros(15, 2, dtype=torch.float64)], dim=1)     # equal and empty columns
    found = coordinate_descent(twice, y, L1(0.01), tol=1e-10)
    assert found.converged
    assert not bool(found.x[-2:].any())
    single = coordinate_descent(X[:, :1], y, L1(0.01), tol=1e-10)
    assert single.converged
    none = coordinate_descent(X[:, :0], y, L1(0.01))
    assert none.converged
    assert none.x.shape == (0,)
    constant = coordinate_descent(X, torch.full((15,), 3.0, dtype=torch.float64), L1(0.1), intercept=True)
    assert not bool(constant.x.any())
    assert float(constant.extras["intercept"]) == pytest.approx(3.0)


def test_single_precision_and_layouts_change_only_rounding():
    X, y = problem(40, 80, 5)
    want = coordinate_descent(X, y, L1(2.0), tol=1e-10).x
    for other in (X.T.contiguous().T, X.repeat_interleave(2, 0)[::2], Matrix(X)):
        torch.testing.assert_close(coordinate_descent(other, y, L1(2.0), tol=1e-10).x, want)
    single = coordinate_descent(X.float(), y, L1(2.0), tol=1e-6)
    assert single.converged
    torch.testing.assert_close(single.x, want, atol=1e-3, rtol=0)


def test_a_callback_sees_every_round_and_can_stop():
    X, y = problem(60, 300, 1)
    seen = []
    found = coordinate_descent(X, y, L1(0.5), tol=1e-12, callback=lambda s: seen.append(s.iteration))
    assert seen == list(range(1, found.iterations + 1))
    assert all(len(v) == found.iterations for v in found.trace.values())
    stopped = coordinate_descent(X, y, L1(0.5), tol=1e-12, callback=lambda s: s.iteration == 2)
    assert stopped.iterations == 2
    assert not stopped.converged


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"A": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "A must be a float32 or float64 matrix"),
    ({"A": torch.full((5, 4), math.nan, dtype=torch.float64)}, ValueError, "A must be finite"),
    ({"A": scipy.sparse.csc_array(np.full((5, 4), np.inf))}, ValueError, "A must be finite"),
    ({"A": [[1.0]]}, TypeError, "A must be a Matrix operator, a tensor or a SciPy sparse matrix, got list"),
    ({"y": torch.ones(4, dtype=torch.float64)}, ValueError, "for each of the 5 rows of A, got 4"),
    ({"y": torch.full((5,), math.nan, dtype=torch.float64)}, ValueError, "y"),
    ({"prior": GroupL2(0.1, axis=-1)}, TypeError, "a Partition of the entries"),
    ({"prior": SLOPE(torch.ones(4))}, TypeError, "no form for SLOPE"),
    ({"prior": 3}, TypeError, "prior must be a Prior, got int"),
    ({"loss": TV()}, TypeError, "loss must be SquaredL2, Huber or Logistic"),
    ({"loss": Huber(), "prior": Partition(L1(), torch.zeros(4, dtype=torch.int64))}, TypeError, "loss must be None"),
    ({"prior": L1(torch.ones(3))}, ValueError, "broadcast"),
    ({"weights": torch.zeros(5, dtype=torch.float64)}, ValueError, "weights must have"),
    ({"weights": -torch.ones(5, dtype=torch.float64)}, ValueError, "weights"),
    ({"x0": torch.zeros(3, dtype=torch.float64)}, ValueError, "x0 must be a real tensor of shape \\(4,\\)"),
    ({"tol": 0.0}, ValueError, "tol"),
    ({"max_iter": 0}, ValueError, "max_iter"),
])
def test_bad_input_is_named(change, error, message):
    X, y = problem(5, 4, 0)
    arguments = {"A": X, "y": y, "prior": L1(0.1), **change}
    with pytest.raises(error, match=message):
        coordinate_descent(arguments.pop("A"), arguments.pop("y"), arguments.pop("prior"), **arguments)


def test_a_prior_without_a_zero_solution_has_no_largest_factor():
    X, y = problem(5, 4, 0)
    with pytest.raises(ValueError, match="holds every coordinate at zero"):
        largest_factor(X, y, NonNegative())


def test_codes_are_those_of_the_compiled_kernel():
    assert [p.name for p in Penalty] == ["elastic", "positive", "box", "l0", "mcp", "scad", "log_sum", "power"]
