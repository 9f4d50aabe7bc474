"""What holds for every prior of a kind, on drawn tensors: ties, scales, complex numbers, steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.priors import Conjugate, NuclearNorm, Pattern, PlugAndPlay, Prior, Scaled, Translated
from sparsepriors.priors.sets import ConstraintSet
from sparsepriors.testing import PriorCase
from sparsepriors.testing.instances import priors

SEEDS = st.integers(0, 10**6)
SWEEP = settings(max_examples=20)  # of each instance: more than a thousand examples of each property
SCALES = st.sampled_from((0.05, 1.0, 20.0))
STEPS = st.floats(0.05, 5)


def _inner(prior: Prior) -> Prior:
    return _inner(prior.prior) if hasattr(prior, "prior") else prior  # pyright: ignore[reportAttributeAccessIssue]


CLOSED = [c for c in priors() if not c.accuracy and not isinstance(_inner(c.prior), PlugAndPlay)]
CONVEX = [c for c in CLOSED if c.prior.convex]
SETS = [c for c in CLOSED if isinstance(c.prior, ConstraintSet)]
VALUED = [c for c in CLOSED if not isinstance(c.prior, Conjugate)]  # whose value is known, not its prox alone
PATTERNS = [c for c in CLOSED if isinstance(c.prior, Pattern)]


def _name(case: PriorCase) -> str:
    return "-".join(dict.fromkeys((type(case.prior).__name__, type(_inner(case.prior)).__name__)))


def _draw(case: PriorCase, seed: int, scale: float) -> torch.Tensor:
    """Small integers every other time: they tie and vanish."""
    x = scale * case.draw(seed)
    if not seed % 2:
        return x
    return torch.complex(x.real.round(), x.imag.round()) if x.is_complex() else x.round()


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.conj() * b).real.sum())


@pytest.mark.parametrize("case", CONVEX, ids=_name)
@SWEEP
@given(seed=SEEDS, scale=SCALES, step=STEPS)
def test_convex_proxes_are_firmly_nonexpansive(case: PriorCase, seed: int, scale: float, step: float) -> None:
    x, y = _draw(case, seed, scale), _draw(case, seed + 1, scale)
    p, q = case.prior.prox(x, step), case.prior.prox(y, step)
    d = p - q
    assert _dot(d, d) <= _dot(d, x - y) + 1e-9 * (1 + _dot(x - y, x - y))


@pytest.mark.parametrize("case", [c for c in VALUED if c.prior.convex], ids=_name)
@SWEEP
@given(seed=SEEDS, scale=SCALES, step=STEPS)
def test_moreaus_identity(case: PriorCase, seed: int, scale: float, step: float) -> None:
    """X is the sum of the prox and of what the conjugate's prox leaves."""
    x = _draw(case, seed, scale)
    other = Conjugate(case.prior).prox(x / step, 1 / step)
    assert torch.allclose(case.prior.prox(x, step) + step * other, x, atol=1e-9 * scale, rtol=1e-9)


@pytest.mark.parametrize("case", VALUED, ids=_name)
@SWEEP
@given(seed=SEEDS, scale=SCALES, step=STEPS, move=st.floats(-1, 1))
def test_no_point_on_the_way_to_another_is_better_than_the_prox(case: PriorCase, seed: int, scale: float, step: float,
                                                                move: float) -> None:
    p, x = case.prior, _draw(case, seed, scale)

    def cost(u: torch.Tensor) -> float:
        return float((step * p.value(u)).sum()) + 0.5 * _dot(u - x, u - x)

    u = p.prox(x, step)
    best = cost(u)
    for rival in (x, torch.zeros_like(x), u + move * _draw(case, seed + 2, scale), p.prox(u, 1e-3),
                  p.prox(_draw(case, seed + 3, scale), step), u + move * (x - u)):
        assert best <= cost(rival) + 1e-8 * (1 + abs(best))


@pytest.mark.parametrize("case", VALUED, ids=_name)
@SWEEP
@given(seed=SEEDS, step=STEPS, factor=st.floats(0.1, 4))
def test_a_factor_of_the_prior_is_a_factor_of_the_step(case: PriorCase, seed: int, step: float, factor: float) -> None:
    x = _draw(case, seed, 1.0)
    scaled = Scaled(case.prior, factor)
    assert torch.allclose(scaled.prox(x, step), case.prior.prox(x, factor * step), atol=1e-9)
    u = case.prior.prox(x, step)
    assert torch.allclose(scaled.value(u), factor * case.prior.value(u), rtol=1e-12)


@pytest.mark.parametrize("case", [c for c in CONVEX if not isinstance(c.prior, Translated)], ids=_name)
@SWEEP
@given(seed=SEEDS, step=STEPS, offset=st.floats(-3, 3))
def test_translation_moves_the_prox(case: PriorCase, seed: int, step: float, offset: float) -> None:
    x = _draw(case, seed, 1.0)
    moved = Translated(case.prior, offset).prox(x + offset, step)
    # Not exactly: x + offset rounds, and a tie may then be none.
    assert torch.allclose(moved, case.prior.prox(x, step) + offset, atol=1e-8)


@pytest.mark.parametrize("case", SETS, ids=_name)
@SWEEP
@given(seed=SEEDS, scale=SCALES)
def test_projections_are_nearest_and_stay(case: PriorCase, seed: int, scale: float) -> None:
    p, x = case.prior, _draw(case, seed, scale)
    u = p.prox(x)
    assert torch.allclose(p.prox(u), u, atol=1e-12 * scale, rtol=1e-12)
    assert float(p.value(u).max()) == 0
    rival = p.prox(_draw(case, seed + 1, scale))
    assert _dot(u - x, u - x) <= _dot(rival - x, rival - x) * (1 + 1e-12) + 1e-12
    if p.convex:
        assert _dot(x - u, rival - u) <= 1e-9 * (1 + scale**2)


@pytest.mark.parametrize("case", PATTERNS, ids=_name)
@SWEEP
@given(seed=SEEDS, scale=SCALES)
def test_masks_count_exactly_whatever_ties(case: PriorCase, seed: int, scale: float) -> None:
    pattern, x = case.prior, _draw(case, seed, scale)
    assert isinstance(pattern, Pattern)
    mask = pattern.mask(x.abs())
    # How many are kept depends on the shape alone, and an order-preserving change of the scores keeps the mask.
    assert int(mask.sum()) == int(pattern.mask(torch.ones_like(x)).sum())
    assert torch.equal(pattern.mask(2 * x.abs()), mask)
    assert torch.equal(pattern.mask(mask.double()), mask)
    assert torch.equal(pattern.project(x) != 0, mask & (x != 0))


@given(seed=SEEDS, scale=SCALES, step=STEPS)
def test_the_nuclear_norm_does_not_see_rotations(seed: int, scale: float, step: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(4, 3, dtype=torch.float64, generator=g)
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=g)).Q
    prior = NuclearNorm(0.6)
    assert torch.allclose(prior.prox(q @ x, step), q @ prior.prox(x, step), atol=1e-9 * scale)
    assert float(prior.value(q @ x)) == pytest.approx(float(prior.value(x)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("case", CLOSED, ids=_name)
def test_functional_derivatives_are_those_of_autograd(case: PriorCase) -> None:
    x, along, weight = case.draw(1), case.draw(2), case.draw(3)

    def moved(v: torch.Tensor) -> torch.Tensor:
        return case.prior.prox(v, 0.6)

    leaf = x.clone().requires_grad_()
    (by_tape,) = torch.autograd.grad(moved(leaf), leaf, weight)
    u, pulled_back = torch.func.vjp(moved, x)[:2]
    torch.testing.assert_close(u, moved(x))
    torch.testing.assert_close(pulled_back(weight)[0], by_tape)
    pushed = torch.func.jvp(moved, (x,), (along,))[1]
    torch.testing.assert_close((pushed.conj() * weight).sum().real, (along.conj() * by_tape).sum().real)


@pytest.mark.parametrize("case", priors(), ids=_name)
def test_a_tensor_without_entries_has_a_prox_and_a_value_or_is_refused_by_name(case: PriorCase) -> None:
    for shape in ((0,) * len(case.shape), (*case.shape[:-1], 0)):
        x = torch.zeros(shape, dtype=case.dtypes[0])
        for call in (case.prior.prox, case.prior.value):
            found, words = None, "must"
            try:
                found = call(x)
            except ValueError as e:  # its weights or its network have another shape
                words = str(e)
            assert "must" in words or "broadcast" in words
            assert found is None or call == case.prior.value or found.shape == shape
