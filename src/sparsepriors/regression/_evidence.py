"""The evidence of a linear Gaussian model and the posterior behind it, by whichever Cholesky factor is smaller."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparsepriors import _checks


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


@dataclass(frozen=True)
class Evidence:
    """Matrix and measurements, turned so that there are no more rows than columns.

    Attributes
    ----------
    A, Y
        ``(r, n)`` and ``(r, L)``, r = min(m, n).
    rows
        m, how many measurements a vector has; with weights, their sum.
    outside
        ``||.||^2`` of the part of Y that no column reaches, over all vectors.
    power
        Mean of |Y|^2 over all measurements.
    """

    A: Tensor
    Y: Tensor
    rows: float
    outside: float
    power: float

    @classmethod
    def of(cls, A: Tensor, Y: Tensor, rows: float | None = None) -> Evidence:
        """From ``(m, n)`` and ``(m, L)`` of one double precision dtype."""
        rows = float(A.shape[0]) if rows is None else rows
        power = float(Y.abs().square().sum()) / (rows * Y.shape[1])
        if A.shape[0] <= A.shape[1]:
            return cls(A, Y, rows, 0.0, power)
        Q, R = torch.linalg.qr(A)
        inside = Q.mH @ Y
        return cls(R, inside, rows, float((Y - Q @ inside).abs().square().sum()), power)

    @property
    def columns(self) -> int:
        """How many coefficients a vector has."""
        return self.A.shape[1]

    @cached_property
    def squared_norms(self) -> Tensor:
        """Of the columns."""
        return self.A.abs().square().sum(0)

    def equal_variances(self) -> Tensor:
        """The same variance for every coefficient, such that the prior has the power of the data."""
        total = float(self.squared_norms.sum())
        return torch.full((self.columns,), self.rows * self.power / total if total and self.power else 1.0,
                          dtype=torch.float64)

    def posterior(self, gamma: Tensor, noise: float) -> At:
        """Mean and variances of the coefficients, and the objective."""
        kept = gamma.nonzero()[:, 0]
        A, roots = self.A[:, kept], gamma[kept].sqrt()
        scaled = A * roots
        if len(kept) <= len(A):
            gram = scaled.mH @ scaled / noise
            factor = _factor(gram)
            inverse = torch.cholesky_inverse(factor)
            mean = roots[:, None] * torch.cholesky_solve(scaled.mH @ self.Y / noise, factor)
            # The diagonal of 1 - (1 + gram)^-1, which as a difference would lose what little is determined.
            spread, share = inverse.diagonal().real, (inverse * gram.mT).sum(1).real
        else:
            factor = _factor(scaled @ scaled.mH / noise)
            both = _solve(factor, torch.cat((scaled, self.Y), 1) / noise**0.5)
            inner, half = both[:, :len(kept)], both[:, len(kept):]
            mean = roots[:, None] * (inner.mH @ half)
            share = inner.abs().square().sum(0)
            spread = (1 - share).clamp(min=0)
        misfit = float((self.Y - A @ mean).abs().square().sum()) + self.outside
        vectors = self.Y.shape[1]
        log_det = self.rows * torch.tensor(noise, dtype=torch.float64).log() + 2 * factor.diagonal().real.log().sum()
        explained = (mean.abs().square().sum(1) / gamma[kept]).sum()
        full = torch.zeros(self.columns, vectors, dtype=A.dtype)
        full[kept] = mean
        variances, determined = torch.zeros_like(gamma), torch.zeros_like(gamma)
        variances[kept], determined[kept] = gamma[kept] * spread, share
        # Y^H S^-1 Y is taken apart into misfit and prior, two sums of squares, where a difference would cancel.
        return At(full, variances, determined.clamp(min=0), misfit / vectors,
                  float(vectors * log_det + misfit / noise + explained))

    def covariance(self, gamma: Tensor, noise: float, kept: Tensor) -> Tensor:
        """Of the kept coefficients: ``(k, k)``."""
        scaled = self.A[:, kept] * gamma[kept].sqrt()
        if len(kept) <= len(scaled):
            whole = torch.cholesky_inverse(_factor(scaled.mH @ scaled / noise))
        else:
            inner = _solve(_factor(scaled @ scaled.mH / noise), scaled / noise**0.5)
            whole = torch.eye(len(kept), dtype=scaled.dtype) - inner.mH @ inner
        roots = gamma[kept].sqrt()
        return roots[:, None] * whole * roots


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
