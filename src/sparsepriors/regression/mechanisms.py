"""Randomisers of local differential privacy and what they cost: Gaussian noise, exactly calibrated, and directions.

A mechanism M is (epsilon, delta)-locally private if P(M(v) in E) <= e^epsilon P(M(v') in E) + delta for any two inputs
v, v' and every event E. The numbers here come from an ordinary pseudo-random generator in floating point: they serve
experiments; a deployment needs a cryptographic generator and noise on a grid (Mironov, 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

CALIBRATIONS = ("analytic", "classic")
_MU_RANGE = (1e-9, 1e6)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The exact delta at ``epsilon`` of Gaussian noise whose standard deviation is the sensitivity over ``mu``.

    Several independent Gaussian messages of one user are one with ``mu = sqrt(mu_1^2 + mu_2^2 + ...)``.

    Source: Balle and Wang (2018), Theorem 5; Dong, Roth and Su (2022) for the composition.
    """
    from scipy.special import log_ndtr, ndtr

    _checks.positive("mu", mu)
    _checks.nonnegative("epsilon", epsilon)
    return max(0.0, float(ndtr(mu / 2 - epsilon / mu)) - math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon at which Gaussian noise of this ``mu`` is (epsilon, delta)-private."""
    from scipy.optimize import brentq

    _checks.positive("mu", mu)
    _between("delta", delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # P(loss > high) <= delta
    found: Any = brentq(lambda e: gaussian_delta(mu, e) - delta, 0.0, high, xtol=1e-12)
    return float(found)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest ``mu`` whose Gaussian noise is (epsilon, delta)-private: the analytic calibration.

    Source: Balle and Wang (2018), Improving the Gaussian mechanism for differential privacy.
    """
    from scipy.optimize import brentq

    _checks.positive("epsilon", epsilon)
    _between("delta", delta)
    low, high = map(math.log, _MU_RANGE)
    if gaussian_delta(math.exp(high), epsilon) <= delta:
        raise ValueError(f"epsilon must leave noise to calibrate (mu below {_MU_RANGE[1]:g}), got {epsilon}")
    found: Any = brentq(lambda t: gaussian_delta(math.exp(t), epsilon) - delta, low, high, xtol=1e-13)
    return math.exp(float(found)) * (1 - 1e-12)  # the root's rounding must not fall to the side of too little noise


@dataclass(frozen=True)
class GaussianMechanism:
    """Add independent normal noise to a vector whose l2 sensitivity is bounded.

    Parameters
    ----------
    sensitivity
        The largest ``||f(a) - f(b)||_2`` over two inputs; the caller's clipping has to ensure it.
    epsilon, delta
        What the noise pays for.
    calibration
        ``"analytic"``, the least noise that is enough, or ``"classic"``, ``sensitivity sqrt(2 log(1.25/delta)) /
        epsilon``, which is proven for ``epsilon <= 1`` and refused where it gives too little.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range, or the classic formula does not keep the promise.
    """

    sensitivity: float
    epsilon: float
    delta: float
    calibration: str = "analytic"

    def __post_init__(self) -> None:
        _checks.positive("sensitivity", self.sensitivity)
        _checks.positive("epsilon", self.epsilon)
        _between("delta", self.delta)
        _checks.one_of("calibration", self.calibration, CALIBRATIONS)
        spent = gaussian_delta(self.mu, self.epsilon)
        if spent > self.delta:
            raise ValueError(f"calibration must keep delta = {self.delta:g} at epsilon = {self.epsilon:g}, got "
                             f"'classic', whose noise has delta = {spent:.3g} there; take 'analytic'")

    @property
    def mu(self) -> float:
        """Sensitivity over standard deviation."""
        if self.calibration == "classic":
            return self.epsilon / math.sqrt(2 * math.log(1.25 / self.delta))
        return gaussian_mu(self.epsilon, self.delta)

    @property
    def scale(self) -> float:
        """Standard deviation of the noise."""
        return self.sensitivity / self.mu

    def randomise(self, v: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
        """``v`` with noise in every entry."""
        _checks.inexact("v", v)
        return v + self.scale * torch.randn(v.shape, generator=generator, dtype=v.dtype)


@dataclass(frozen=True)
class L2BallRandomiser:
    """Send a vector of the l2 ball as a random point of a sphere whose mean is the vector; purely epsilon-private.

    A point is drawn uniformly on the sphere and turned to the side of ``v`` with probability
    ``1/2 + tanh(epsilon / 2) / 2 * ||v|| / radius``, else to the other side.

    Source: Duchi, Jordan and Wainwright (2018), Minimax optimal procedures for locally private estimation, section 4.2.

    Parameters
    ----------
    dim
        Length of the vectors.
    radius
        Of the ball that holds them.
    epsilon
        The log of the largest ratio of two densities.
    """

    dim: int
    radius: float
    epsilon: float

    def __post_init__(self) -> None:
        _checks.count("dim", self.dim, low=1)
        _checks.positive("radius", self.radius)
        _checks.positive("epsilon", self.epsilon)

    @property
    def norm(self) -> float:
        """The norm of every message: ``radius / tanh(epsilon / 2) sqrt(pi) Gamma((dim + 1) / 2) / Gamma(dim / 2)``."""
        gammas = math.exp(math.lgamma((self.dim + 1) / 2) - math.lgamma(self.dim / 2))
        return self.radius / math.tanh(self.epsilon / 2) * math.sqrt(math.pi) * gammas

    def randomise(self, v: Float[Tensor, "*batch dim"], generator: torch.Generator) -> Float[Tensor, "*batch dim"]:
        """One message for each vector.

        Raises
        ------
        ValueError
            If a vector has another length or lies outside the ball (by more than rounding).
        """
        self._check("v", v)
        return self._randomise(v, generator)

    def _randomise(self, v: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(v.shape, generator=generator, dtype=v.dtype)
        coins = torch.rand(v.shape[:-1], generator=generator, dtype=torch.float64)
        toward = coins < 0.5 + self._lean(v)
        same = (z * v).sum(-1) >= 0
        sizes = self.norm / torch.linalg.vector_norm(z, dim=-1)
        return z.mul_(torch.where(same == toward, sizes, -sizes)[..., None])

    def log_density(self, z: Float[Tensor, "*batch dim"], v: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """The log density of a message ``z`` sent for ``v``, relative to the uniform law on the sphere."""
        self._check("v", v)
        _checks.trailing_shape("z", _checks.inexact("z", z), (self.dim,))
        lean = self._lean(v)
        return torch.log1p(2 * torch.where((z * v).sum(-1) >= 0, lean, -lean))

    def _lean(self, v: Tensor) -> Tensor:
        """How far the probability of the side of v is from 1/2."""
        share = torch.linalg.vector_norm(v.double(), dim=-1).div(self.radius).clamp(max=1.0)
        return share * (math.tanh(self.epsilon / 2) / 2)

    def _check(self, name: str, v: Tensor) -> None:
        _checks.trailing_shape(name, _checks.inexact(name, v), (self.dim,))
        largest = float(torch.linalg.vector_norm(v.double(), dim=-1).max()) if v.numel() else 0.0
        if largest > self.radius * (1 + 1e-6):
            raise ValueError(f"{name} must lie in the ball of radius {self.radius:g}, got a norm of {largest:g}")


def pack_symmetric(matrix: Float[Tensor, "*batch dim dim"]) -> Float[Tensor, "*batch packed"]:
    """The upper triangle as a vector, off-diagonal entries times sqrt 2, so that its l2 norm is Frobenius' norm."""
    rows, columns = torch.triu_indices(matrix.shape[-1], matrix.shape[-1]).unbind()
    return matrix[..., rows, columns] * _isometry(rows, columns, matrix)


def unpack_symmetric(packed: Float[Tensor, "*batch packed"]) -> Float[Tensor, "*batch dim dim"]:
    """The symmetric matrix of `pack_symmetric`; `ValueError` if no matrix has so many entries."""
    dim = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2
    if dim * (dim + 1) // 2 != packed.shape[-1]:
        raise ValueError(f"packed must have dim (dim + 1) / 2 entries, got {packed.shape[-1]}")
    rows, columns = torch.triu_indices(dim, dim).unbind()
    matrix = packed.new_zeros(*packed.shape[:-1], dim, dim)
    values = packed / _isometry(rows, columns, packed)
    matrix[..., rows, columns] = values
    matrix[..., columns, rows] = values
    return matrix


def _isometry(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    return torch.where(rows == columns, 1.0, math.sqrt(2)).to(like.dtype)


@dataclass(frozen=True)
class PrivacyReport:
    """What one user's messages cost.

    Attributes
    ----------
    epsilon, delta
        What was promised.
    interactive
        Whether a mechanism depends on earlier users' messages (each user still speaks once).
    scales
        Standard deviations of Gaussian noise, or norms of messages on a sphere, by what is sent.
    sensitivities
        The l2 distances that these hide, by what is sent.
    exact_epsilon, exact_delta
        The least epsilon at the promised delta, and the least delta at the promised epsilon, of all messages together.
    """

    epsilon: float
    delta: float
    interactive: bool
    scales: dict[str, float]
    sensitivities: dict[str, float]
    exact_epsilon: float
    exact_delta: float


def _between(name: str, value: float) -> None:
    if _checks.positive_number(name, value) >= 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
