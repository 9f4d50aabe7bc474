"""The contract of a prior, as one function with named checks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparsepriors.priors.base import Prior
from sparsepriors.priors.sets import ConstraintSet

_STEPS = (0.3, 1.0, 2.5)


@dataclass(frozen=True)
class PriorCase:
    """A prior and the tensors it is tried on.

    Attributes
    ----------
    prior
        The prior.
    shape
        Shape of one unknown.
    dtypes
        Real dtypes that it takes; the complex ones follow from ``prior.accepts_complex``.
    accuracy
        Relative accuracy of its prox in float64, 0 when it is computed in closed form.
    """

    prior: Prior
    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    accuracy: float = 0.0

    @property
    def tolerance(self) -> float:
        """What two results in the first dtype may differ by, relative to the tensors' size."""
        return 1e4 * torch.finfo(self.dtypes[0]).eps ** 0.9 + math.sqrt(self.accuracy)

    def draw(self, seed: int, dtype: torch.dtype | None = None, batch: tuple[int, ...] = ()) -> Tensor:
        """A random unknown, or a batch of them."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*batch, *self.shape, dtype=dtype or self.dtypes[0], generator=generator)


def check_prior(case: PriorCase | Prior, shape: tuple[int, ...] | None = None) -> list[str]:
    """Try a prior against every check that applies to it.

    Parameters
    ----------
    case
        A prior, or a `PriorCase` that says more about it.
    shape
        Shape of one unknown, when ``case`` is a bare prior.

    Returns
    -------
    list of str
        The names of the checks that were run.

    Raises
    ------
    AssertionError
        Naming each check that failed, with the numbers.
    """
    if isinstance(case, Prior):
        case = PriorCase(case, shape or (4,) * (case.dims or 1))
    ran, failures = [], []
    for name, check in CHECKS.items():
        try:
            if check(case) is not False:
                ran.append(name)
        except AssertionError as e:
            failures.append(f"{name}: {e}")
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as e:
            failures.append(f"{name}: raised {type(e).__name__}: {e}")
    if failures:
        raise AssertionError(f"{case.prior!r} breaks {len(failures)} of its contract's checks\n  "
                             + "\n  ".join(failures))
    return ran


Check = Callable[[PriorCase], bool | None]
CHECKS: dict[str, Check] = {}
"""Every check by name. A check returns False when it does not apply, and raises AssertionError when it fails."""


def _named(check: Check) -> Check:
    CHECKS[check.__name__.removeprefix("_").replace("_", "-")] = check
    return check


def _close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    off = float((a - b).abs().max()) if a.numel() else 0.0
    size = max(1.0, float(b.abs().max())) if b.numel() else 1.0
    assert off <= tolerance * size, f"{what} differ by {off:.2e}, allowed {tolerance * size:.2e}"


def _refused(call: Callable[[], object], what: str,
             errors: tuple[type[Exception], ...] = (ValueError, TypeError)) -> None:
    try:
        call()
    except errors as e:
        if not str(e):
            raise AssertionError(f"{what} is refused without a message") from e
    else:
        raise AssertionError(f"{what} is accepted")


def _objective(p: Prior, u: Tensor, x: Tensor, step: float) -> Tensor:
    value = p.value(u)
    size = (u - x).abs().square()
    return step * value + 0.5 * size.sum(dim=tuple(range(value.ndim, size.ndim)))


def _each(case: PriorCase, call: Callable[[Tensor], Tensor], xs: Tensor) -> Tensor:
    """Results for a stack of unknowns, in one call where the prior takes a batch."""
    return call(xs) if case.prior.dims is not None else torch.stack([call(x) for x in xs])


def _valued(case: PriorCase) -> bool:
    return not bool(torch.isnan(case.prior.value(case.draw(0))).any())


def _complex_dtype(case: PriorCase) -> bool:
    """Whether complex twins of the case's dtypes can be tried."""
    if not case.prior.accepts_complex or case.dtypes[0].is_complex:
        return False
    try:
        case.prior.value(torch.complex(case.draw(0), case.draw(1)))
    except (TypeError, ValueError):
        return False
    return True


def _unknowns(case: PriorCase) -> list[Tensor]:
    real = [case.draw(seed) for seed in range(3)]
    if not _complex_dtype(case):
        return real
    return real + [torch.complex(x, case.draw(50 + i)) for i, x in enumerate(real)]


@_named
def _value_is_one_real_number_per_unknown(case: PriorCase) -> None:
    batch = () if case.prior.dims is None else (2, 3)
    value = case.prior.value(case.draw(1, batch=batch))
    extra = len(case.shape) - (case.prior.dims if case.prior.dims is not None else len(case.shape))
    want = batch + case.shape[:extra]
    assert tuple(value.shape) == want, f"value has shape {tuple(value.shape)}, expected {want}"
    assert not value.is_complex(), f"value is {value.dtype}"


@_named
def _value_of_a_batch_is_that_of_its_items(case: PriorCase) -> bool | None:
    if case.prior.dims is None or not _valued(case):
        return False
    x = case.prior.prox(case.draw(2, batch=(3,)))
    one_by_one = torch.stack([case.prior.value(item) for item in x])
    _close(case.prior.value(x), one_by_one, 1e-9, "values")
    return None


@_named
def _prox_keeps_shape_and_dtype(case: PriorCase) -> None:
    for dtype in case.dtypes:
        x = case.draw(3, dtype)
        u = case.prior.prox(x, 0.7)
        assert u.shape == x.shape, f"shape {tuple(u.shape)} for {tuple(x.shape)}"
        assert u.dtype == x.dtype, f"dtype {u.dtype} for {x.dtype}"
        assert u.device == x.device, f"device {u.device} for {x.device}"


@_named
def _input_is_not_changed(case: PriorCase) -> None:
    for x in _unknowns(case):
        before = x.clone()
        u = case.prior.prox(x)
        assert torch.equal(x, before), "prox wrote into its input"
        assert u.data_ptr() != x.data_ptr() or not x.numel(), "prox returned its input's memory"


@_named
def _prox_is_optimal(case: PriorCase) -> bool | None:
    """No rival does better: 0, x, proxes of other steps, 200 perturbations, half of them moved into the domain."""
    if not _valued(case):
        return False
    p, generator = case.prior, torch.Generator().manual_seed(9)
    scales = torch.logspace(0, -5, 100, dtype=torch.float64).reshape(-1, *(1,) * len(case.shape))
    for x in _unknowns(case):
        for step in _STEPS:
            u = p.prox(x, step)
            best = _objective(p, u, x, step)
            slack = (1e-9 + 2 * case.accuracy) * (1 + best.abs())
            noise = torch.randn(2, 100, *case.shape, dtype=x.dtype, generator=generator)
            moved = u + scales * noise
            inside = _each(case, lambda v: p.prox(v, 1e-3), moved[1])
            others = torch.stack([torch.zeros_like(x), x, p.prox(x, step / 2), p.prox(x, 2 * step)])
            rivals = torch.cat([others, moved[0], inside])
            excess = best - _each(case, partial(_objective, p, x=x, step=step), rivals) - slack
            assert float(excess.max()) <= 0, f"step {step}: a rival is better by {float(excess.max()):.2e}"
    return None


@_named
def _value_never_rises(case: PriorCase) -> bool | None:
    if not _valued(case):
        return False
    for x in _unknowns(case):
        before, after = case.prior.value(x), case.prior.value(case.prior.prox(x))
        assert bool((after <= before + 1e-9 * (1 + after.abs())).all()), f"from {before} to {after}"
    return None


@_named
def _projection_is_idempotent(case: PriorCase) -> bool | None:
    if not isinstance(case.prior, ConstraintSet):
        return False
    for x in _unknowns(case):
        u = case.prior.prox(x)
        assert bool((case.prior.value(u) == 0).all()), "the projection is outside the set"
        _close(case.prior.prox(u, 3.0), u, 1e-12, "a projection and its projection")
    return None


@_named
def _residual_is_a_subgradient(case: PriorCase) -> bool | None:
    """(x - u) / step lies in the subdifferential at u = prox(x): what Moreau's identity rests on."""
    if not case.prior.convex or not _valued(case):
        return False
    for i, x in enumerate(_unknowns(case)):
        for step in _STEPS:
            u = case.prior.prox(x, step)
            g = (x - u) / step
            vs = _each(case, lambda v: case.prior.prox(v, 0.1), case.draw(100 + i, batch=(20,)).to(x.dtype))
            base = case.prior.value(u)
            values = _each(case, case.prior.value, vs)
            inner = (g.conj() * (vs - u)).real.sum(dim=tuple(range(values.ndim, vs.ndim)))
            short = base + inner - values
            slack = 1e-9 * (1 + base.abs()) + 10 * case.tolerance * (case.accuracy > 0)
            assert bool((short <= slack).all()), f"short by {float(short.max()):.2e}"
    return None


@_named
def _prox_is_firmly_nonexpansive(case: PriorCase) -> bool | None:
    if not case.prior.convex:
        return False
    xs = _unknowns(case)
    for x in xs:
        for y in (x + 0.1 * x.roll(1, -1), -x):
            d, e = case.prior.prox(x) - case.prior.prox(y), x - y
            left, right = float(d.abs().square().sum()), float((d.conj() * e).real.sum())
            assert left <= right + case.tolerance * (1 + abs(right)), f"||Pd||^2 = {left:.6g} > <Pd, d> = {right:.6g}"
    return None


@_named
def _batch_is_a_loop(case: PriorCase) -> bool | None:
    if case.prior.dims is None:
        return False
    x = case.draw(4, batch=(2, 2))
    u = case.prior.prox(x, 0.8)
    for i in range(2):
        for j in range(2):
            _close(u[i, j], case.prior.prox(x[i, j], 0.8), case.tolerance, "the batch and its item")
    return None


@_named
def _memory_layout_does_not_matter(case: PriorCase) -> bool | None:
    if not case.shape:
        return False
    x = case.draw(5)
    strided = torch.stack((x, torch.zeros_like(x)), dim=-1)[..., 0]
    _close(case.prior.prox(strided), case.prior.prox(x), case.tolerance, "strided and contiguous results")
    return None


@_named
def _empty_batch_is_fine(case: PriorCase) -> bool | None:
    if case.prior.dims is None:
        return False
    x = case.draw(6, batch=(0,))
    assert case.prior.prox(x).shape == x.shape, "an empty batch changes shape"
    assert case.prior.value(x).numel() == 0, "an empty batch has values"
    return None


@_named
def _too_few_axes_are_refused(case: PriorCase) -> bool | None:
    if not case.prior.dims:
        return False
    x = torch.ones((2,) * (case.prior.dims - 1), dtype=case.dtypes[0])
    _refused(lambda: case.prior.prox(x), f"a tensor with {x.ndim} axes", (ValueError,))
    return None


@_named
def _nan_and_infinity_are_refused(case: PriorCase) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        x = case.draw(7)
        x.view(-1)[0] = bad
        _refused(lambda x=x: case.prior.prox(x), f"{bad} in prox", (ValueError,))
        _refused(lambda x=x: case.prior.value(x), f"{bad} in value", (ValueError,))


@_named
def _integers_are_refused(case: PriorCase) -> None:
    _refused(lambda: case.prior.prox(torch.ones(case.shape, dtype=torch.int64)), "an integer tensor", (TypeError,))


@_named
def _bad_steps_are_refused(case: PriorCase) -> None:
    x = case.draw(8)
    for step in (0.0, -1.0, math.nan, math.inf):
        _refused(lambda step=step: case.prior.prox(x, step), f"step {step}", (ValueError,))
    _refused(lambda: case.prior.prox(x, torch.tensor(-1.0)), "a negative tensor step", (ValueError,))


@_named
def _step_per_unknown(case: PriorCase) -> bool | None:
    if case.prior.dims is None:
        return False
    x = case.draw(9, batch=(3,))
    steps = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    u = case.prior.prox(x, steps.reshape(3, *(1,) * len(case.shape)))
    for i, step in enumerate(steps.tolist()):
        _close(u[i], case.prior.prox(x[i], step), case.tolerance, f"step {step} in a batch and alone")
    return None


@_named
def _step_per_entry(case: PriorCase) -> None:
    x = case.draw(10)
    step = torch.linspace(0.1, 2.0, x.numel(), dtype=torch.float64).reshape(x.shape)
    if not case.prior.separable:
        if x.numel() > 1 and case.prior.dims != 0:
            _refused(lambda: case.prior.prox(x, step), "a step per entry of a prior that is not separable",
                     (ValueError,))
        return
    u = case.prior.prox(x, step)
    at = tuple(n // 2 for n in x.shape)
    _close(u[at], case.prior.prox(x, float(step[at]))[at], 1e-9, "an entry with its own step and alone")


@_named
def _real_tensors_embed_in_complex_ones(case: PriorCase) -> bool | None:
    x = case.draw(11)
    if not case.prior.accepts_complex:
        _refused(lambda: case.prior.prox(torch.complex(x, x)), "a complex tensor", (TypeError,))
        return None
    if not _complex_dtype(case):
        return False
    u = case.prior.prox(torch.complex(x, torch.zeros_like(x)))
    _close(u, case.prior.prox(x).to(u.dtype), case.tolerance, "prox of x and of x + 0j")
    return None


@_named
def _precisions_agree(case: PriorCase) -> bool | None:
    if len(case.dtypes) < 2:
        return False
    x = case.draw(12, case.dtypes[1])
    low, high = case.prior.prox(x, 0.9), case.prior.prox(x.to(case.dtypes[0]), 0.9)
    _close(low.to(high.dtype), high, 2e-5 + 2 * case.tolerance, "float32 and float64")
    return None


@_named
def _gradient_matches_finite_differences(case: PriorCase) -> bool | None:
    p = case.prior
    if p.lipschitz is None:
        _refused(lambda: p.grad(case.draw(13)), "grad of a prior without a Lipschitz constant", (TypeError,))
        return None
    x, h = case.draw(13), case.draw(14)
    if p.dims is not None and p.dims < x.ndim:
        return False
    eps = 1e-5
    slope = float((p.value(x + eps * h) - p.value(x - eps * h)) / (2 * eps))
    inner = float((p.grad(x) * h).sum())
    assert abs(slope - inner) <= 1e-5 * (1 + abs(slope)), f"slope {slope:.8g}, <grad, h> = {inner:.8g}"
    change = float((p.grad(x) - p.grad(x + h)).norm())
    assert change <= p.lipschitz * float(h.norm()) * (1 + 1e-9), f"the gradient moves by {change:.6g}"
    return None


@_named
def _autograd_goes_through_the_prox(case: PriorCase) -> bool | None:
    if case.accuracy or case.dtypes[0] != torch.float64:
        return False
    x, h, weight = case.draw(15), case.draw(16), case.draw(17)
    leaf = x.clone().requires_grad_()
    u = case.prior.prox(leaf, 0.6)
    if not u.requires_grad:
        return False
    (grad,) = torch.autograd.grad((u * weight).sum(), leaf)
    eps = 1e-6
    slope = float(((case.prior.prox(x + eps * h, 0.6) - case.prior.prox(x - eps * h, 0.6)) * weight).sum()) / (2 * eps)
    inner = float((grad * h).sum())
    assert abs(slope - inner) <= 1e-4 * (1 + abs(slope)), f"finite difference {slope:.8g}, autograd {inner:.8g}"
    return None


@_named
def _json_round_trip(case: PriorCase) -> None:
    data = json.loads(json.dumps(case.prior.to_dict(), allow_nan=False))
    again = Prior.from_dict(data)
    assert again.to_dict() == case.prior.to_dict(), "to_dict changes on the way through JSON"
    x = case.draw(18)
    assert torch.equal(again.prox(x), case.prior.prox(x)), "the prior read back has another prox"


@_named
def _same_bits_twice(case: PriorCase) -> None:
    x = case.draw(19)
    assert torch.equal(case.prior.prox(x), case.prior.prox(x)), "two calls give different bits"


@_named
def _warm_start_gives_the_prox(case: PriorCase) -> None:
    x = case.draw(20)
    first, state = case.prior.warm_prox(x, 0.8, None)
    _close(first, case.prior.prox(x, 0.8), case.tolerance, "a cold warm_prox and prox")
    near = x + 0.01 * case.draw(21)
    _close(case.prior.warm_prox(near, 0.8, state)[0], case.prior.prox(near, 0.8), case.tolerance, "warm and cold prox")
