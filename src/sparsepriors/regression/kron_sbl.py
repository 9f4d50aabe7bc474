"""Sparse Bayesian learning for Kronecker products of matrices: EM that works on the factors, many problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors.variances import KroneckerVariances, normalise, product
from sparsepriors.regression._modes import along_modes, check_factors
from sparsepriors.solvers import Callback, Solution, State

FIRST_NOISE = 0.1
"""Share of the variance of y that is taken for noise before anything is learnt."""

_LEAST_NOISE = 1e-12
"""Learnt noise stays above this share of the mean power of y: beyond it, rounding is what would be learnt."""


@torch.no_grad()
def kron_sbl(y: Inexact[Tensor, "..."], factors: Sequence[Inexact[Tensor, "..."]],
             prior: KroneckerVariances | None = None, *, noise_var: float | Tensor | None = None,
             prune: float | Sequence[float] = 0.0, prune_below: float = 0.0,
             start: Sequence[Float[Tensor, "..."]] | None = None, max_iter: int = 150, tol: float = 1e-4,
             callback: Callback | None = None) -> Solution:
    """Recover x from ``y = (A_1 (x) A_2 (x) ...) x + noise``, x Gaussian with variances that are a Kronecker product.

    The posterior comes from an eigendecomposition for each axis; neither the product of the matrices nor a covariance
    is formed, so that memory is that of x, y and the factors. With the rules of rounds the objective never rises.

    Parameters
    ----------
    y
        ``(*batch, m_1, ..., m_I)``, or ``(*batch, m_1 ... m_I)`` flattened in the order of ``numpy.kron``; real or
        complex, noise white (of a complex y circular). The items of a batch are problems of their own.
    factors
        I >= 1 matrices ``(m_i, n_i)``, or ``(*batch, m_i, n_i)`` to give every item its own.
    prior
        How the variances are fitted; `KroneckerVariances` with its defaults if ``None``.
    noise_var
        Variance of the noise (of a complex number, not of its parts), one or ``(*batch)``; ``None`` to learn it.
    prune
        Before every iteration, slices of x whose factor is below this share of its largest are given up for good: one
        share, or one per axis. The largest always stays.
    prune_below
        The same for entries of a factor below this number, with all factors but the last of unit norm.
    start
        Factors of the variances to start from, ``(*batch, n_i)`` each; by default those of `KroneckerVariances.start`.
    max_iter, tol
        An item stops when its variances change by less than ``tol`` of their norm (the certificate).

    Returns
    -------
    Solution
        ``x`` is the posterior mean, ``(*batch, n_1, ..., n_I)``. Trace: ``objective``, the sum over the batch of
        ``log det S + y^H S^-1 y`` for ``S = noise_var I + A diag(gamma) A^H`` before each step, which is minus the
        logarithm of the evidence of a complex y, and minus twice that of a real one, up to a constant; and
        ``certificate``. Extras: ``gamma_1, ...`` (the factors), ``noise_var``, ``variances`` (of the posterior, shape
        of x) and ``iterations``, per item.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, an axis is empty, something is NaN, or a number is out of its range.
    FloatingPointError
        If the iterate is not finite any more.

    Notes
    -----
    He and Joseph (2024), arXiv 2307.14719. All is computed in float64 and returned in the precision of the arguments.
    """
    prior = KroneckerVariances() if prior is None else prior
    if not isinstance(prior, KroneckerVariances):
        raise TypeError(f"prior must be KroneckerVariances, got {type(prior).__name__}")
    problem = check_factors(y, factors)
    shares = _shares(prune, problem.axes)
    _checks.nonnegative("prune_below", prune_below)
    _checks.count("max_iter", max_iter, low=1)
    tol = _checks.positive_number("tol", tol)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    noise, floor = _first_noise(problem.y, noise_var, problem.batch)
    gamma = _start(prior, start, problem.columns, problem.batch)

    data = (problem.y, *problem.factors)
    rows = torch.arange(len(problem.y))
    kept_gamma, kept_noise = [g.clone() for g in gamma], noise.clone()
    iterations = torch.zeros(len(rows), dtype=torch.int64)
    certificate = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    costs = torch.zeros(len(rows), dtype=torch.float64)
    x = problem.y.new_zeros(len(rows), *problem.columns)
    trace: dict[str, list[float]] = {"objective": [], "certificate": []}
    stopped = not len(rows)
    iteration = 0
    while iteration < max_iter and not stopped:
        iteration += 1
        before = product(gamma)
        gamma = _pruned(gamma, shares, prune_below)
        found = posterior(data[0], list(data[1:]), gamma, noise)
        costs[rows], x[rows] = found.cost, found.mean
        if noise_var is None:
            noise = torch.maximum(found.next_noise(data[0], list(data[1:]), gamma, noise), floor)
        gamma = prior._fit(found.moments, gamma)
        after = product(gamma)
        sizes = before.flatten(1).norm(dim=1)
        change = (after - before).flatten(1).norm(dim=1) / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)
        if not _checks.all_finite(change):
            raise FloatingPointError(f"the iterate is not finite any more at iteration {iteration}: the entries of y "
                                     f"or of the factors are too large for float64")
        certificate[rows], kept_noise[rows] = change, noise
        for kept, g in zip(kept_gamma, gamma, strict=True):
            kept[rows] = g
        iterations[rows] += 1
        trace["objective"].append(float(costs.sum()))
        trace["certificate"].append(float(certificate.max()))
        stopped = callback is not None and callback(State(iteration, problem.items(x), {
            name: values[-1] for name, values in trace.items()})) is True
        going = change > tol
        if not bool(going.any()):
            break
        if not bool(going.all()):
            rows, noise, floor = rows[going], noise[going], floor[going]
            gamma, data = [g[going] for g in gamma], tuple(d[going] for d in data)
    if len(kept_noise):
        found = posterior(problem.y, problem.factors, kept_gamma, kept_noise)
        x, variances = found.mean, found.variances
    else:
        variances = x.real
    worst = float(certificate.max()) if len(certificate) else 0.0
    real = problem.dtype.to_real()
    extras = {f"gamma_{i}": problem.items(g) for i, g in enumerate(kept_gamma, 1)}
    extras |= {"noise_var": problem.items(kept_noise), "variances": problem.items(variances)}
    return Solution(problem.items(x).to(problem.dtype), trace, iteration, worst <= tol, worst,
                    {name: value.to(real) for name, value in extras.items()}
                    | {"iterations": problem.items(iterations)})


@torch.no_grad()
def kron_sbl_cost(y: Inexact[Tensor, "..."], factors: Sequence[Inexact[Tensor, "..."]],
                  gammas: Sequence[Float[Tensor, "..."]], noise_var: float | Tensor) -> Float[Tensor, "..."]:
    """``log det S + y^H S^-1 y``, ``S = noise_var I + A diag(g_1 (x) g_2 (x) ...) A^H``, without forming S.

    The arguments are those of `kron_sbl`, with ``gammas`` one nonnegative ``(*batch, n_i)`` for each axis.

    Raises
    ------
    TypeError, ValueError
        As `kron_sbl`.
    """
    problem = check_factors(y, factors)
    noise, _ = _first_noise(problem.y, noise_var, problem.batch)
    gamma = _given("gammas", gammas, problem.columns, problem.batch)
    return problem.items(posterior(problem.y, problem.factors, gamma, noise).cost)


@dataclass(frozen=True)
class Posterior:
    """What EM needs of the posterior of x given y; one batch axis leads."""

    mean: Tensor
    variances: Tensor
    cost: Tensor
    """``log det S + y^H S^-1 y``."""

    @property
    def moments(self) -> Tensor:
        """E|x|^2."""
        return self.variances + self.mean.abs().square()

    def next_noise(self, y: Tensor, factors: list[Tensor], gamma: list[Tensor], noise: Tensor) -> Tensor:
        """The variance of the noise that EM takes next."""
        residual = (y - along_modes(self.mean, factors)).abs().square().flatten(1).sum(1)
        full = product(gamma)
        ratio = torch.where(full > 0, 1 - self.variances / full.clamp(min=torch.finfo(full.dtype).tiny), 0)
        return (residual + noise * ratio.flatten(1).sum(1)) / y[0].numel()


def posterior(y: Tensor, factors: list[Tensor], gamma: list[Tensor], noise: Tensor) -> Posterior:
    """Mean and variances by one eigendecomposition per axis.

    With A_i diag(g_i) A_i^H = U_i diag(p_i) U_i^H the covariance of y has the eigenvectors U_1 (x) U_2 (x) ... and the
    eigenvalues ``noise + p_1 (x) p_2 (x) ...``.
    """
    spectra, bases, back = [], [], []
    for a, g in zip(factors, gamma, strict=True):
        scaled = a * g[:, None, :]
        p, u = torch.linalg.eigh(scaled @ a.mH)
        spectra.append(p.clamp(min=0))
        bases.append(u.mH)
        back.append(scaled.mH @ u)
    s = noise.reshape(-1, *(1,) * len(gamma)) + product(spectra)
    rotated = along_modes(y, bases)
    mean = along_modes(rotated / s, back)
    shrinkage = along_modes(1 / s, [b.abs().square() for b in back])
    cost = (s.log() + rotated.abs().square() / s).flatten(1).sum(1)
    return Posterior(mean, (product(gamma) - shrinkage).clamp(min=0), cost)


def _pruned(gamma: list[Tensor], shares: tuple[float, ...], below: float) -> list[Tensor]:
    """Entries that are too small become zero; the largest of each factor stays."""
    if not below and not any(shares):
        return gamma
    kept = []
    for g, share in zip(normalise(gamma), shares, strict=True):
        top = g.amax(-1, keepdim=True)
        kept.append(torch.where((g >= torch.clamp(share * top, min=below)) | (g == top), g, 0))
    return kept


def _shares(prune: float | Sequence[float], axes: int) -> tuple[float, ...]:
    shares = (prune,) * axes if isinstance(prune, int | float) else tuple(prune)
    if len(shares) != axes:
        raise ValueError(f"prune must be one share or one for each of {axes} axes, got {prune}")
    for share in shares:
        _checks.nonnegative("prune", share)
        if share >= 1:
            raise ValueError(f"prune must be below 1, got {share}")
    return shares


def _first_noise(y: Tensor, noise_var: float | Tensor | None, batch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The noise to start with and the least that may be learnt, per item."""
    flat = y.flatten(1)
    power = flat.abs().square().mean(1)
    floor = _LEAST_NOISE * torch.where(power > 0, power, 1)
    if noise_var is None:
        spread = (flat - flat.mean(1, keepdim=True)).abs().square().mean(1)
        return torch.maximum(FIRST_NOISE * spread, floor), floor
    _checks.positive("noise_var", noise_var)
    given = torch.as_tensor(noise_var, dtype=torch.float64)
    if tuple(given.shape) not in ((), batch):
        raise ValueError(f"noise_var must be a number or have the batch shape {batch}, got {tuple(given.shape)}")
    return given.expand(batch).reshape(-1).clone(), floor


def _start(prior: KroneckerVariances, start: Sequence[Tensor] | None, columns: tuple[int, ...],
           batch: tuple[int, ...]) -> list[Tensor]:
    prior._fits(columns)
    if start is None:
        return [g.reshape(-1, g.shape[-1]).clone() for g in prior.start(columns, batch)]
    return normalise(_given("start", start, columns, batch))


def _given(name: str, gammas: Sequence[Tensor], columns: tuple[int, ...], batch: tuple[int, ...]) -> list[Tensor]:
    if len(gammas) != len(columns):
        raise ValueError(f"{name} must have one entry for each of {len(columns)} axes, got {len(gammas)}")
    flat = []
    for i, (g, n) in enumerate(zip(gammas, columns, strict=True)):
        _checks.nonnegative(f"{name}[{i}]", _checks.inexact(f"{name}[{i}]", g))
        if tuple(g.shape) not in ((n,), (*batch, n)):
            raise ValueError(f"{name}[{i}] must have shape {(n,)} or {(*batch, n)}, got {tuple(g.shape)}")
        flat.append(g.to(torch.float64).expand(*batch, n).reshape(-1, n))
    return flat
