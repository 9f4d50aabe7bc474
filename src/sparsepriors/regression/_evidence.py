"""The evidence of a linear Gaussian model and the posterior behind it, by whichever Cholesky factor is smaller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.regression._modes import along_modes


@dataclass(frozen=True)
class At:
    """The posterior at some variances and some noise.

    Attributes
    ----------
    mean
        ``(n, L)``.
    variances
        ``(n,)``.
    determined
        ``(n,)``: 1 - variance / gamma, the share of a coefficient that the data determine; zero without prior variance.
    residual
        ``||Y - A mean||^2 / L`` with what lies outside the range of A.
    cost
        ``L log det S + tr(Y^H S^-1 Y)``.
    """

    mean: Tensor
    variances: Tensor
    determined: Tensor
    residual: float
    cost: float


class Evidence(ABC):
    """A linear model and its measurements: what the posterior needs, whatever form the matrix has.

    Attributes
    ----------
    Y
        ``(r, L)``, measurements, turned so that r is at most the number of columns where the matrix is at hand.
    rows
        m, how many measurements a vector has; with weights, their sum.
    outside
        ``||.||^2`` of the part of the measurements that no column reaches, over all vectors.
    power
        Mean of their squared moduli.
    squared_norms
        Of the columns, ``(n,)``.
    """

    Y: Tensor
    rows: float
    outside: float
    power: float
    squared_norms: Tensor

    @staticmethod
    def of(A: Tensor, Y: Tensor, rows: float | None = None) -> MatrixEvidence:
        """From ``(m, n)`` and ``(m, L)`` of one double precision dtype."""
        return MatrixEvidence(A, Y, rows)

    @abstractmethod
    def matrix(self) -> Tensor:
        """``(r, n)``."""

    @abstractmethod
    def _some(self, kept: Tensor) -> Tensor:
        """These columns."""

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """``(r, L)`` of coefficients ``(n, L)``."""

    @abstractmethod
    def _many(self, gamma: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """For many columns: the Cholesky factor of the covariance of Y over the noise, the mean, ``determined``."""

    @property
    def columns(self) -> int:
        """How many coefficients a vector has."""
        return len(self.squared_norms)

    def equal_variances(self) -> Tensor:
        """The same variance for every coefficient, such that the prior has the power of the data."""
        total = float(self.squared_norms.sum())
        return torch.full((self.columns,), self.rows * self.power / total if total and self.power else 1.0,
                          dtype=torch.float64)

    def posterior(self, gamma: Tensor, noise: float) -> At:
        """Mean and variances of the coefficients, and the objective."""
        kept = gamma.nonzero()[:, 0]
        variances, determined = torch.zeros_like(gamma), torch.zeros_like(gamma)
        if len(kept) <= len(self.Y):
            A, roots = self._some(kept), gamma[kept].sqrt()
            scaled = A * roots
            gram = scaled.mH @ scaled / noise
            factor = _factor(gram)
            inverse = torch.cholesky_inverse(factor)
            some = roots[:, None] * torch.cholesky_solve(scaled.mH @ self.Y / noise, factor)
            mean = torch.zeros(self.columns, self.Y.shape[1], dtype=some.dtype).index_copy(0, kept, some)
            # The diagonal of 1 - (1 + gram)^-1, which as a difference would lose what little is determined.
            determined[kept] = (inverse * gram.mT).sum(1).real
            variances[kept] = gamma[kept] * inverse.diagonal().real
            fitted = A @ some
        else:
            factor, mean, determined = self._many(gamma, noise)
            variances = gamma * (1 - determined).clamp(min=0)
            fitted = self._apply(mean)
        misfit = float((self.Y - fitted).abs().square().sum()) + self.outside
        vectors = self.Y.shape[1]
        log_det = self.rows * torch.tensor(noise, dtype=torch.float64).log() + 2 * factor.diagonal().real.log().sum()
        explained = (mean[kept].abs().square().sum(1) / gamma[kept]).sum()
        # Y^H S^-1 Y is taken apart into misfit and prior, two sums of squares, where a difference would cancel.
        return At(mean, variances, determined.clamp(min=0), misfit / vectors,
                  float(vectors * log_det + misfit / noise + explained))

    def covariance(self, gamma: Tensor, noise: float, kept: Tensor) -> Tensor:
        """Of the kept coefficients: ``(k, k)``."""
        roots = gamma[kept].sqrt()
        scaled = self._some(kept) * roots
        if len(kept) <= len(scaled):
            whole = torch.cholesky_inverse(_factor(scaled.mH @ scaled / noise))
        else:
            inner = _solve(_factor(scaled @ scaled.mH / noise), scaled / noise**0.5)
            whole = torch.eye(len(kept), dtype=scaled.dtype) - inner.mH @ inner
        return roots[:, None] * whole * roots


class MatrixEvidence(Evidence):
    """Matrix and measurements, turned so that there are no more rows than columns."""

    def __init__(self, A: Tensor, Y: Tensor, rows: float | None = None) -> None:
        self.rows = float(A.shape[0]) if rows is None else rows
        self.power = float(Y.abs().square().sum()) / (self.rows * Y.shape[1])
        self.A, self.Y, self.outside = A, Y, 0.0
        if A.shape[0] > A.shape[1]:
            Q, self.A = torch.linalg.qr(A)
            self.Y = Q.mH @ Y
            self.outside = float((Y - Q @ self.Y).abs().square().sum())
        self.squared_norms = self.A.abs().square().sum(0)

    def matrix(self) -> Tensor:
        return self.A

    def _some(self, kept: Tensor) -> Tensor:
        return self.A[:, kept]

    def _apply(self, x: Tensor) -> Tensor:
        return self.A @ x

    def _many(self, gamma: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        roots = gamma.sqrt()
        scaled = self.A * roots
        factor = _factor(scaled @ scaled.mH / noise)
        both = _solve(factor, torch.cat((scaled, self.Y), 1) / noise**0.5)
        inner, half = both[:, :self.columns], both[:, self.columns:]
        return factor, roots[:, None] * (inner.mH @ half), inner.abs().square().sum(0)


class KroneckerEvidence(Evidence):
    """A Kronecker product of matrices, whose columns are formed only where few are left.

    With S the covariance of the measurements, entries of ``A diag(gamma) A^H`` and the numbers ``a_n^H S^-1 a_n`` are
    products along one axis at a time of tensors that are no larger than S: what remains is a Cholesky factor of S.
    """

    def __init__(self, factors: Sequence[Tensor], Y: Tensor) -> None:
        self.factors = [a[None] for a in factors]
        self.shape = tuple(a.shape[1] for a in factors)
        self.rows, self.outside, self.Y = float(len(Y)), 0.0, Y
        self.power = float(Y.abs().square().mean())
        self.squared_norms = reduce(torch.kron, [a.abs().square().sum(0) for a in factors])
        self._pairs = [(a[:, None, :] * a.conj()[None]).flatten(0, 1)[None] for a in factors]

    def matrix(self) -> Tensor:
        return reduce(torch.kron, [a[0] for a in self.factors])

    def _some(self, kept: Tensor) -> Tensor:
        columns = self.Y.new_ones(1, len(kept))
        for a, index in zip(self.factors, torch.unravel_index(kept, self.shape), strict=True):
            columns = (columns[:, None] * a[0][:, index]).flatten(0, 1)
        return columns

    def _apply(self, x: Tensor) -> Tensor:
        return along_modes(x.mT.reshape(-1, *self.shape), self.factors).flatten(1).mT

    def _many(self, gamma: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        size, axes = len(self.Y), len(self.shape)
        # S has the axes (m_1, ..., m_I, m_1', ..., m_I'); along one mode its pair (m_i, m_i') is one axis.
        sides = [a.shape[1] for a in self.factors]
        together = [part for i in range(axes) for part in (i, axes + i)]
        gram = along_modes(gamma.to(self.Y.dtype).reshape(1, *self.shape), self._pairs)
        gram = gram.reshape([side for side in sides for _ in range(2)])
        gram = gram.permute([2 * i for i in range(axes)] + [2 * i + 1 for i in range(axes)]).reshape(size, size)
        factor = _factor(gram / noise)
        inverse = torch.cholesky_inverse(factor)
        paired = inverse.reshape(*sides, *sides).permute(together).reshape(1, *(side**2 for side in sides))
        share = along_modes(paired, [p.mH for p in self._pairs]).real.flatten()
        back = along_modes((inverse @ self.Y).mT.reshape(-1, *sides), [a.mH for a in self.factors]).flatten(1).mT
        return factor, gamma[:, None] * back / noise, gamma * share / noise


def whitened(A: Tensor, Y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The same model with noise of variance one, from ``(m,)`` variances or an ``(m, m)`` covariance.

    Raises
    ------
    TypeError, ValueError
        If the noise has another shape, or is not finite and positive definite.
    """
    m = A.shape[0]
    _checks.inexact("noise", noise)
    if tuple(noise.shape) == (m,):
        _checks.positive("noise", noise)
        roots = noise.double().sqrt()
        return A / roots[:, None], Y / (roots if Y.ndim == 1 else roots[:, None])
    if tuple(noise.shape) != (m, m):
        raise ValueError(f"noise must be a number, ({m},) variances or an ({m}, {m}) covariance, "
                         f"got shape {tuple(noise.shape)}")
    dtype = torch.promote_types(A.dtype, noise.dtype)
    covariance = noise.to(dtype)
    if not torch.allclose(covariance, covariance.mH, rtol=1e-6, atol=1e-9 * float(covariance.abs().max())):
        raise ValueError("noise must be a Hermitian covariance, got a matrix that differs from its adjoint")
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        least = float(torch.linalg.eigvalsh(covariance)[0])
        raise ValueError(f"noise must be positive definite, got a covariance with the eigenvalue {least:.3g}")
    whole = torch.cat((A, Y.reshape(m, -1)), 1).to(dtype)
    out = torch.linalg.solve_triangular(factor, whole, upper=False)
    return out[:, :A.shape[1]], out[:, A.shape[1]:].reshape(Y.shape)


def _factor(gram: Tensor) -> Tensor:
    """The Cholesky factor of ``I + gram``."""
    return torch.linalg.cholesky(gram + torch.eye(len(gram), dtype=gram.dtype))


def _solve(factor: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, b, upper=False)
