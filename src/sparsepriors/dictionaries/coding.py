"""Sparse codes of many signals in one dictionary, by proximal gradient; strengths that give a stated activity."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import gram_ista
from sparsepriors.kernels.dispatch import native_for
from sparsepriors.priors import CEL0, L1, Prior
from sparsepriors.priors.penalties import Weighted
from sparsepriors.regression.forms import separable

_FLOOR = 1e-2        # added to the length of a code where its relative change is judged
_NORM_ERROR = 1e-3   # by which CEL0's norms may differ from those of the atoms
_TRIALS = 60         # strengths that a calibration tries
_GATHERED = 2**22    # entries of the Gram matrices that a refit holds at once


@dataclass(frozen=True)
class Codes:
    """Sparse codes and how they were reached.

    Attributes
    ----------
    codes
        ``(n, units)``.
    steps
        Steps that each code took.
    converged
        Which of them stood still before ``max_iter``.
    """

    codes: Float[Tensor, "n units"]
    steps: Int64[Tensor, " n"]
    converged: Bool[Tensor, " n"]

    @property
    def active(self) -> float:
        """Mean number of nonzeros in a code."""
        return float((self.codes != 0).sum(dim=1).double().mean())


@torch.no_grad()
def sparse_codes(X: Float[Tensor, "n features"], dictionary: Float[Tensor, "units features"], prior: Prior, *,
                 step: float | None = None, tol: float = 1e-4, max_iter: int = 5000,
                 start: Float[Tensor, "n units"] | None = None) -> Codes:
    """Minimise ``1/2 ||x - r D||^2 + prior(r)`` over the code r of every signal x, D holding an atom in each row.

    Proximal gradient, ``r <- prox(r - step (r D - x) D^T, step)``: a global minimiser for a convex prior, for others a
    stationary point that depends on the start and on the step. On the CPU a compiled kernel runs all steps of a code
    at once, at the cost of its nonzeros.

    Parameters
    ----------
    X
        Signals, float32 or float64.
    dictionary
        Atoms.
    prior
        Separable, of one code: what it says of an entry holds for that unit in every signal.
    step
        Positive and below 2 / L, L the largest eigenvalue of ``D D^T``; 1 / L by default.
    tol
        A code is ready when a step moves it by at most ``tol * (0.01 + its length)``.
    max_iter
        Most steps.
    start
        Where the iteration begins; at zero by default.

    Raises
    ------
    TypeError, ValueError
        If shapes and dtypes do not belong together, entries are not finite, the prior is not separable, the step is
        too long, or `CEL0` was told other norms than the atoms have.

    References
    ----------
    Daubechies, Defrise, De Mol (2004), An iterative thresholding algorithm for linear inverse problems with a sparsity
    constraint; Attouch, Bolte, Svaiter (2013) for nonconvex priors.
    """
    step = _door(X, dictionary, prior, step, tol, max_iter)
    if start is not None:
        _checks.inexact("start", start)
        _checks.same_dtype("start", start, X.dtype)
        if start.shape != (X.shape[0], dictionary.shape[0]):
            raise ValueError(f"start must have shape {(X.shape[0], dictionary.shape[0])}, got {tuple(start.shape)}")
    return iterate(X, dictionary, prior, step, tol, max_iter, start)


def iterate(X: Tensor, dictionary: Tensor, prior: Prior, step: float, tol: float, max_iter: int,
            start: Tensor | None = None) -> Codes:
    """`sparse_codes` without its checks."""
    units, features = dictionary.shape
    linear = X @ dictionary.mT
    x = torch.zeros_like(linear) if start is None else start
    if native_for(linear, dictionary) is not None:
        try:
            form = separable(prior, units)
        except TypeError:
            pass  # a prior of the user's own, whose prox is called
        else:
            codes, steps = gram_ista(linear, dictionary @ dictionary.mT, x, form.kind, form.weight, form.second,
                                     form.factor, step, tol, _FLOOR, max_iter)
            return Codes(codes, steps, _stood_still(steps, max_iter))
    gram = dictionary @ dictionary.mT if units <= 2 * features else None
    codes, steps = x.clone(), torch.full((len(X),), max_iter, dtype=torch.int64, device=X.device)
    left, here, b = torch.arange(len(X), device=X.device), x, linear
    for k in range(1, max_iter + 1):
        if not len(left):
            break
        image = here @ gram if gram is not None else (here @ dictionary) @ dictionary.mT
        new = prior._prox(here + step * (b - image), step)
        ready = (new - here).norm(dim=1) <= tol * (_FLOOR + here.norm(dim=1))
        codes[left] = new
        steps[left[ready]] = k
        left, here, b = left[~ready], new[~ready], b[~ready]
    return Codes(codes, steps, _stood_still(steps, max_iter))


def _stood_still(steps: Tensor, max_iter: int) -> Tensor:
    return steps < max_iter


def curvature(dictionary: Tensor) -> float:
    """The largest eigenvalue of ``D D^T``."""
    units, features = dictionary.shape
    if not dictionary.numel():
        return 0.0
    gram = dictionary @ dictionary.mT if units <= features else dictionary.mT @ dictionary
    return float(torch.linalg.eigvalsh(gram)[-1])


@torch.no_grad()
def calibrate_weight(X: Float[Tensor, "n features"], dictionary: Float[Tensor, "units features"], prior: Weighted,
                     active: float, *, rtol: float = 0.01, step: float | None = None, tol: float = 1e-4,
                     max_iter: int = 5000) -> Weighted:
    """The prior with that ``weight`` at which codes of these signals have ``active`` nonzeros on average.

    Penalties can be compared at equal activity only: at equal weight they mean different things.

    Parameters
    ----------
    X, dictionary, step, tol, max_iter
        As in `sparse_codes`.
    prior
        One with a ``weight`` (`L1`, `L0`, `Lq`, `CEL0`, `MCP`, ...); the search begins there.
    active
        Mean number of nonzeros, between 0 and the number of units.
    rtol
        Relative error of the activity that is accepted.

    Raises
    ------
    TypeError
        If the prior has no weight.
    ValueError
        If ``active`` is out of range, no weight gives it to within ``rtol`` (codes of few signals change by jumps), or
        `sparse_codes` refuses its arguments.
    """
    if not isinstance(prior, Weighted):
        raise TypeError(f"prior must have a weight to calibrate, got {type(prior).__name__}")
    step = _door(X, dictionary, prior, step, tol, max_iter)
    active = _checks.positive_number("active", active)
    if not active < len(dictionary):
        raise ValueError(f"active must be below the number of units, {len(dictionary)}, got {active:g}")
    _checks.positive("rtol", rtol)
    if not bool(torch.as_tensor(prior.weight).gt(0).all()):
        raise ValueError("the weight of prior must be positive, to be multiplied")
    low: tuple[float, float] | None = None   # logarithms of a factor that is too small and of the activity there
    high: tuple[float, float] | None = None
    at, found = 0.0, math.nan
    for trial in range(_TRIALS):
        scaled = replace(prior, weight=prior.weight * math.exp(at))
        found = iterate(X, dictionary, scaled, step, tol, max_iter).active
        if abs(found - active) <= rtol * active:
            return scaled
        point = (at, math.log(max(found, 0.25 * active) / active))
        low, high = (point, high) if found > active else (low, point)
        if low is None or high is None:
            at += 2.0 ** min(trial, 5) * 0.7 * (1 if high is None else -1)
        else:
            # Regula falsi, kept off the ends so that the bracket shrinks at least by a tenth.
            share = low[1] / (low[1] - high[1])
            at = low[0] + min(max(share, 0.1), 0.9) * (high[0] - low[0])
    raise ValueError(f"no weight gives {active:g} active units to within {100 * rtol:g} %, the nearest found gives "
                     f"{found:g}; take more signals or a larger rtol")


@torch.no_grad()
def refit(X: Float[Tensor, "n features"], dictionary: Float[Tensor, "units features"],
          codes: Float[Tensor, "n units"]) -> Float[Tensor, "n units"]:
    """The least-squares codes on the supports of ``codes``: what is left of the error when nothing shrinks.

    Raises
    ------
    TypeError, ValueError
        If shapes and dtypes do not belong together or entries are not finite.
    """
    _pair(X, dictionary)
    _checks.inexact("codes", codes)
    _checks.same_dtype("codes", codes, X.dtype)
    if codes.shape != (X.shape[0], dictionary.shape[0]):
        raise ValueError(f"codes must have shape {(X.shape[0], dictionary.shape[0])}, got {tuple(codes.shape)}")
    most = int((codes != 0).sum(dim=1).amax()) if codes.numel() else 0
    if not most:
        return torch.zeros_like(codes)
    # In double precision, with a ridge that only atoms that are (nearly) multiples of one another feel.
    atoms = dictionary.double()
    gram, linear, out = atoms @ atoms.mT, X.double() @ atoms.mT, torch.zeros_like(codes)
    some = max(1, _GATHERED // most**2)
    for first in range(0, len(X), some):
        rows = slice(first, first + some)
        used, index = (codes[rows] != 0).to(torch.uint8).topk(most, dim=1)
        used = used.bool()
        both = used[:, :, None] & used[:, None, :]
        part = torch.where(both, gram[index[:, :, None], index[:, None, :]], 0.0)
        part.diagonal(dim1=1, dim2=2).add_(torch.where(used, 1e-10, 1.0))
        right = torch.where(used, linear[rows].gather(1, index), 0.0)
        out[rows] = out[rows].scatter(1, index, torch.linalg.solve(part, right).to(out.dtype))
    return out


def _door(X: Tensor, dictionary: Tensor, prior: Prior, step: float | None, tol: float, max_iter: int) -> float:
    """Check what codes are made of; returns the step to take."""
    _pair(X, dictionary)
    _suits(prior, dictionary)
    _checks.nonnegative("tol", tol)
    _checks.count("max_iter", max_iter, low=1)
    largest = curvature(dictionary)
    if step is None:
        return 1 / largest if largest > 0 else 1.0
    step = _checks.positive_number("step", step)
    if step * largest >= 2:
        raise ValueError(f"step must be below 2 / L = {2 / largest:.4g}, the L of this dictionary, got {step:g}")
    return step


def _pair(X: object, dictionary: object) -> None:
    for name, value in (("X", X), ("dictionary", dictionary)):
        tensor = _checks.inexact(name, value)
        if tensor.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")
        if tensor.ndim != 2:
            raise ValueError(f"{name} must have two axes, got shape {tuple(tensor.shape)}")
    assert isinstance(X, Tensor)
    assert isinstance(dictionary, Tensor)
    _checks.same_dtype("dictionary", dictionary, X.dtype)
    if X.shape[1] != dictionary.shape[1]:
        raise ValueError(f"the atoms of dictionary must be as long as the signals, {X.shape[1]}, got "
                         f"{dictionary.shape[1]}")


def _suits(prior: object, dictionary: Tensor) -> None:
    suits_a_code(prior)
    if isinstance(prior, CEL0):
        norms = dictionary.norm(dim=1)
        told = torch.as_tensor(prior.norm, dtype=norms.dtype, device=norms.device)
        if bool(((norms - told).abs() > _NORM_ERROR * told).any()):
            raise ValueError(f"CEL0's norm must be the norms of the atoms, from {float(norms.min()):.4g} to "
                             f"{float(norms.max()):.4g}, got {prior.norm if told.ndim == 0 else 'others'}: normalise "
                             f"the dictionary or give norm=dictionary.norm(dim=1)")


def suits_a_code(prior: object) -> Prior:
    """Return a separable prior of real vectors, else raise `TypeError`."""
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
    if not prior.separable:
        raise TypeError(f"prior must be separable, such as {L1.__name__}; {type(prior).__name__} is not")
    return prior
