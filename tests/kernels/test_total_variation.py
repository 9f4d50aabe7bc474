"""The total variation kernel: its certificate, each instruction set, threads, batches, scales, and lines exactly."""

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sparsepriors import kernels
from sparsepriors.kernels import reference
from sparsepriors.kernels.differences import differences, differences_adjoint, onto_bound

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
SHAPES = [(9,), (1, 7), (5, 1), (6, 11), (1, 1, 1), (4, 3, 5), (3, 5, 1), (2, 1, 17)]


def problem(shape, dtype, seed=0, n=2):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, dtype=dtype, generator=g)
    bound = torch.linspace(0.1, 0.7, n, dtype=dtype.to_real() if dtype.is_complex else dtype)
    return x, bound, torch.zeros(n, len(shape), *shape, dtype=dtype)


def true_gap(x, bound, u, p, isotropic):
    """Primal minus dual objective in double precision, relative to the primal one."""
    d, wide = x.ndim - 1, C128 if x.is_complex() else F64
    x, u, p, bound = x.to(wide), u.to(wide), p.to(wide), bound.double()
    axes = tuple(range(1, d + 1))
    g = differences(u, d)
    sizes = g.abs().square().sum(dim=1).sqrt() if isotropic else g.abs().sum(dim=1)
    primal = 0.5 * (u - x).abs().square().sum(dim=axes) + bound * sizes.sum(dim=axes)
    rest = x - differences_adjoint(p, d)
    dual = 0.5 * x.abs().square().sum(dim=axes) - 0.5 * rest.abs().square().sum(dim=axes)
    return (primal - dual) / primal.clamp(min=1e-300)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets() or (None,))
@pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-9), (F32, 3e-5), (C128, 1e-9), (C64, 3e-5)])
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gap_is_certified_and_the_reference_agrees(instruction_set, dtype, tol, isotropic, shape):
    x, bound, p = problem(shape, dtype)
    u, dual, gap = kernels.tv_prox(x, bound, p, isotropic, tol, 20000, instruction_set=instruction_set)
    assert gap <= tol
    eps = torch.finfo(dtype).eps
    assert bool((true_gap(x, bound, u, dual, isotropic) <= tol + 100 * eps).all())
    sizes = dual.abs().square().sum(dim=1).sqrt() if isotropic else dual.abs().amax(dim=1)
    assert bool((sizes.reshape(2, -1).amax(dim=1) <= bound * (1 + 8 * eps)).all())
    wide = C128 if dtype.is_complex else F64
    exact = reference.tv_prox(x.to(wide), bound.double(), p.to(wide), isotropic, 1e-12, 20000)[0]
    off = (u - exact).abs().square().reshape(2, -1).sum(dim=1)
    primal = 0.5 * x.abs().square().reshape(2, -1).sum(dim=1)  # of u = 0 and more, so no less than at the prox
    assert bool((off.sqrt() <= (2 * (tol + 1e-12) * primal).sqrt() + 10 * eps * (2 * primal).sqrt()).all())


@pytest.mark.parametrize("dtype", [F32, C128])
def test_results_do_not_depend_on_threads_or_the_batch(dtype):
    x, bound, p = problem((300, 250), dtype, n=3)  # more than one band
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(kernels.tv_prox(x, bound, p, True, 1e-4, 60))
            for one, of_one in ((slice(0, 1), lambda i: bound[i, None]), (0, lambda i: bound[i]),
                                (0, lambda i: float(bound[i]))):
                parts = [kernels.tv_prox(x[i, None][one], of_one(i), p[i, None][one], True, 1e-4, 60) for i in range(3)]
                u, dual, gaps = zip(*parts, strict=True)
                found.append((torch.stack(u).reshape(x.shape), torch.stack(dual).reshape(p.shape), max(gaps)))
    finally:
        torch.set_num_threads(before)
    for u, dual, gap in found[1:]:
        assert torch.equal(u, found[0][0])
        assert torch.equal(dual, found[0][1])
        assert gap == found[0][2]


def test_a_batch_may_have_any_axes():
    x, bound, p = problem((4, 5), C64, n=6)
    u, dual, gap = kernels.tv_prox(x, bound, p, True, 1e-4, 60)
    folded = kernels.tv_prox(x.reshape(2, 3, 4, 5), bound.reshape(2, 3), p.reshape(2, 3, 2, 4, 5), True, 1e-4, 60)
    assert torch.equal(folded[0].reshape(x.shape), u)
    assert torch.equal(folded[1].reshape(p.shape), dual)
    assert folded[2] == gap


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12), st.floats(0, 4), st.sampled_from([F32, F64]))
@example([1.0, 1.0, 0.0, 0.0], 0.5, F64)
@example([0.0, 3.0, 0.0], 1e30, F64)
@example([1.0, -1.0, 1.0, -1.0, 1.0], 1.0, F64)
def test_a_line_is_solved_exactly(values, bound, dtype):
    """Against the condition of optimality: the running sum of u - x stays in the bounds and meets them at jumps."""
    x = torch.tensor([values], dtype=dtype)
    b = torch.tensor([bound], dtype=dtype)
    u, p, gap = kernels.tv_prox(x, b, torch.zeros(1, 1, len(values), dtype=dtype), True, 1e-6, 100_000)
    slack = 1e-3 if not kernels.info().native else 40 * len(values) * torch.finfo(dtype).eps
    size = slack * max(1.0, float(x.abs().max()))
    assert gap <= max(1e-6 * (not kernels.info().native), 1e-10)
    dual = (u - x).double().cumsum(dim=1)[0]
    assert abs(float(dual[-1])) <= size
    assert float(dual.abs().max()) <= float(b) + size
    for i, jump in enumerate(u[0].double().diff().tolist()):
        if abs(jump) > size:
            assert abs(float(dual[i]) - float(b) * (1 if jump > 0 else -1)) <= size
    assert torch.allclose(p[0, 0].double(), dual, atol=size)


@pytest.mark.parametrize("shape", [(6, 5), (40,)])
@pytest.mark.parametrize("power", [-90, -60, 60, 90])
def test_powers_of_two_change_nothing(shape, power):
    x, bound, p = problem(shape, F32)
    scale = 2.0 ** power
    plain, scaled = (kernels.tv_prox(x * s, bound * s, p, True, 1e-4, 500) for s in (1.0, scale))
    assert torch.equal(plain[0] * scale, scaled[0])
    assert plain[2] == scaled[2]
    alone = kernels.tv_prox(x[:1] * scale, bound[:1] * scale, p[:1], True, 1e-4, 500)
    assert torch.equal(alone[0], scaled[0][:1])


def test_nothing_to_penalise_and_nothing_else_to_do():
    x, _, p = problem((5, 4), F64)
    u, dual, gap = kernels.tv_prox(x, torch.zeros(2, dtype=F64), p, True, 1e-9, 5)
    assert torch.equal(u, x)
    assert not dual.any()
    assert gap == 0
    flat, *_ = kernels.tv_prox(x, torch.full((2,), 1e6, dtype=F64), p, True, 1e-12, 5000)
    assert torch.allclose(flat, x.mean(dim=(1, 2), keepdim=True).expand_as(x), atol=1e-5)


@pytest.mark.parametrize("isotropic", [True, False])
def test_a_good_start_needs_no_iteration(isotropic):
    x, bound, p = problem((6, 5), F64)
    u, dual, gap = kernels.tv_prox(x, bound, p, isotropic, 1e-6, 5000)
    again, same, later = kernels.tv_prox(x, bound, dual, isotropic, 1e-6, 5000)
    assert torch.allclose(again, u, atol=1e-14)
    assert torch.equal(same, dual)
    assert later == pytest.approx(gap, rel=1e-6)
    assert kernels.tv_prox(x, bound, p, isotropic, 1e-6, 3)[2] > 1e-6


@pytest.mark.parametrize("isotropic", [True, False])
def test_gradients_flow(isotropic):
    x, bound, p = problem((3, 4), F64)
    g = torch.Generator().manual_seed(1)
    weight, h = (torch.randn(x.shape, dtype=F64, generator=g) for _ in range(2))

    def loss(x):
        return (kernels.tv_prox(x, bound, p, isotropic, 1e-13, 50_000)[0] * weight).sum()

    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf)
    slope = float(loss(x + 1e-5 * h) - loss(x - 1e-5 * h)) / 2e-5
    assert float((grad * h).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_differences_and_their_adjoint():
    g = torch.Generator().manual_seed(0)
    for d, dtype in itertools.product((1, 2, 3), (F64, C128)):
        x = torch.randn(2, *(3, 4, 5)[:d], dtype=dtype, generator=g)
        p = torch.randn(2, d, *(3, 4, 5)[:d], dtype=dtype, generator=g)
        left, right = (differences(x, d).conj() * p).sum(), (x.conj() * differences_adjoint(p, d)).sum()
        assert torch.allclose(left, right)
        near = onto_bound(p, torch.full((2, 1, *(1,) * d), 0.3, dtype=F64), d, True)
        assert torch.allclose(near.abs().square().sum(dim=1).sqrt(), p.abs().square().sum(dim=1).sqrt().clamp(max=0.3))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_tolerance_may_be_an_integer(dtype):
    x = torch.rand(1, 9, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    bound = torch.full((1,), 0.1, dtype=dtype)
    whole, real = (kernels.tv_prox(x, bound, None, True, tol, 50)[0] for tol in (1, 1.0))
    assert torch.equal(whole, real)


@pytest.mark.public_door
def test_bad_input():
    x, bound, p = problem((4, 5), F64)
    with pytest.raises(ValueError, match=r"1 to 3 spatial axes, got \(2,\) and 1 axes of bound"):
        kernels.tv_prox(x[:, 0, 0], bound, p, True, 1e-3, 5)
    with pytest.raises(ValueError, match=r"bound and p must have shapes \(2,\) and \(2, 2, 4, 5\)"):
        kernels.tv_prox(x, bound[:1], p, True, 1e-3, 5)
    with pytest.raises(ValueError, match="max_iter must be"):
        kernels.tv_prox(x, bound, p, True, 1e-3, 0)
    if kernels.instruction_sets():
        with pytest.raises(ValueError, match="instruction_set must be one of"):
            kernels.tv_prox(x, bound, p, True, 1e-3, 5, instruction_set="altivec")
