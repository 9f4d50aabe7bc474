"""scikit-learn estimators of sparse regression under local differential privacy.

Each row of X with its y is one user. ``fit`` plays all users and the server: what the estimator keeps is a function of
private messages alone. Clipping is set by what is known without the data: their number, their length and declared
scales. There is no intercept, because centring would be one more private mean; centre by public means beforehand.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import L1
from sparsepriors.regression._linear import DenseLinear
from sparsepriors.regression.mechanisms import PrivacyReport
from sparsepriors.regression.messages import GradientMechanism, MomentMechanism, MomentServer, ThresholdingServer

try:
    from sklearn.utils import check_array, check_random_state
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e

PSD_FIXES = ("none", "clip")
_GRADIENT = 1.5  # "auto": a typical gradient at theta = 0 has norm x_scale y_scale sqrt(d)


class NotPositiveDefinite(UserWarning):
    """The noise has made the covariance indefinite: the coefficients say little."""


@dataclass(frozen=True)
class PublicCovariance:
    """What a server knows of the features from public data: ``X^T X / rows`` and of how many rows.

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric and positive definite.
    """

    matrix: Float[Tensor, "d d"]
    rows: int

    def __post_init__(self) -> None:
        S = _checks.inexact("matrix", self.matrix)
        _checks.count("rows", self.rows, low=1)
        if S.ndim != 2 or S.shape[0] != S.shape[1] or not torch.allclose(S, S.mT):
            raise ValueError(f"matrix must be square and symmetric, got shape {tuple(S.shape)}")
        values = torch.linalg.eigvalsh(S.double())
        if values[0] <= len(S) * torch.finfo(torch.float64).eps * values[-1]:
            raise ValueError(f"public data must determine the covariance of {len(S)} features, got {self.rows} rows of "
                             "lower rank")

    @classmethod
    def of(cls, X: Any) -> PublicCovariance:
        """Of ``(rows, d)`` public features."""
        Z: Any = check_array(X, dtype="float64")
        return cls(torch.from_numpy(Z.T @ Z) / len(Z), len(Z))


class _Private(DenseLinear):
    """Clipping by public knowledge, and the random numbers."""

    epsilon: float
    x_scale: float
    y_scale: float
    tau_x: float | str | None
    tau_y: float | str | None
    random_state: Any
    privacy_report_: PrivacyReport

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31 - 1)))

    def _clip(self, name: str, n: int) -> float | None:
        """The size to which entries are clipped; ``"auto"``: normal entries pass it once in sqrt(n) users."""
        from scipy.special import ndtri

        value = getattr(self, name)
        if isinstance(value, str):
            _checks.one_of(name, value, ("auto",))
            scale = self.x_scale if name == "tau_x" else self.y_scale
            return -scale * float(ndtri(_tail(n) / 2))
        if value is not None:
            _checks.positive(name, value)
        return value

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True   # a few hundred users say nothing under local privacy
        return tags


class NonInteractiveLDP(_Private):
    """Sparse regression from one private message of each user: noisy moments, solved and soft-thresholded.

    Parameters
    ----------
    epsilon, delta
        For all that a user sends.
    x_scale, y_scale
        Declared standard deviations of an entry of x, and of y: public knowledge, never taken from the data.
    radius
        x is shortened to this l2 norm in x x^T; ``"auto"``: normal x pass it once in sqrt(n) users.
    tau_x, tau_y
        Entries of x, and y, are clipped to these sizes in x y; ``"auto"`` likewise. ``tau_x=None`` takes the shortened
        x there, too, which needs less noise.
    threshold
        Of the coefficients; ``"auto"``: ``sqrt(2 log d)`` standard deviations of the error in them, from the noise that
        was added, the declared scales, the number of public features and the private (or public) covariance.
    noise
        ``"exact"`` or ``"published"``; see `MomentMechanism`.
    bound
        Of ``||theta||_2``, for the balance of the noises and the threshold; coefficients are not forced into it.
    psd_fix
        What happens to a covariance whose eigenvalues are not all above ``floor * x_scale^2``: ``"none"`` warns if it
        is indefinite and inverts it as it is, ``"clip"`` raises the eigenvalues to that floor and warns as well.
    floor
        See there.
    random_state
        Seed of the noise.

    Attributes
    ----------
    coef_
        ``(d,)``.
    raw_coef_
        ``(d,)``: before thresholding.
    covariance_
        ``(d, d)`` that was inverted.
    threshold_, radius_, tau_x_, tau_y_
        That were used.
    privacy_report_
        What each user's message cost.

    References
    ----------
    Zhu et al. (2024), Algorithm 1; with public features, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import NonInteractiveLDP
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200_000, 6))
    >>> y = X[:, 0] + 0.5 * rng.standard_normal(200_000)
    >>> model = NonInteractiveLDP(epsilon=4, delta=1e-4, random_state=0).fit(X, y)
    >>> model.coef_.nonzero()[0]
    array([0])
    >>> round(model.privacy_report_.exact_epsilon, 6)
    4.0
    """

    def __init__(self, epsilon: float = 1.0, delta: float = 1e-6, *, x_scale: float = 1.0, y_scale: float = 1.0,
                 radius: float | str = "auto", tau_x: float | str | None = "auto", tau_y: float | str = "auto",
                 threshold: float | str = "auto", noise: str = "exact", bound: float = 1.0, psd_fix: str = "none",
                 floor: float = 0.1, random_state: Any = None) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.radius = radius
        self.tau_x = tau_x
        self.tau_y = tau_y
        self.threshold = threshold
        self.noise = noise
        self.bound = bound
        self.psd_fix = psd_fix
        self.floor = floor
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_public: Any = None) -> Self:
        """Fit to ``(n, d)`` X and ``(n,)`` y of n users; ``(m, d)`` public features give the covariance, if there are.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit; if public features are too few for an inverse.

        Warns
        -----
        NotPositiveDefinite
            If noise has made the covariance indefinite.
        """
        A, b = self._data(X, y)
        mechanism = self.mechanism(*A.shape, covariance=X_public is None)
        public = None if X_public is None else self._fitting(PublicCovariance.of(X_public), A.shape[1])
        server = MomentServer(A.shape[1])
        server.aggregate(mechanism.total(A, b, self._generator()))
        self.radius_, self.tau_x_, self.tau_y_ = mechanism.radius, mechanism.tau_x, mechanism.tau_y
        self.privacy_report_ = mechanism.report
        self._solve(mechanism, server, public, A.numpy().dtype)
        return self

    def mechanism(self, n: int, d: int, *, covariance: bool = True) -> MomentMechanism:
        """What each of n users with d features runs; ``covariance=False`` where there are public features.

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of range.
        """
        from scipy.stats import chi2

        _checks.count("n", n, low=1)
        for name in ("x_scale", "y_scale"):
            _checks.positive(name, getattr(self, name))
        radius = self.radius
        if isinstance(radius, str):
            _checks.one_of("radius", radius, ("auto",))
            radius = self.x_scale * math.sqrt(float(chi2.isf(_tail(n), d)))
        tau_y = self._clip("tau_y", n)
        if tau_y is None:
            raise TypeError("tau_y must be a number or 'auto', got None: without a bound of y no noise is enough")
        return MomentMechanism(d, self.epsilon, self.delta, radius, tau_y, self._clip("tau_x", n), covariance,
                               self.noise, self.bound)

    def estimate(self, mechanism: MomentMechanism, server: MomentServer,
                 public: PublicCovariance | None = None) -> Self:
        """Coefficients from a server that has heard real users of `mechanism`.

        Raises
        ------
        ValueError
            If the server has heard no user, or neither it nor ``public`` knows the covariance.
        """
        if public is None and server.covariance is None:
            raise ValueError("public must be given, because the messages bring no covariance; got None")
        if public is not None:
            self._fitting(public, mechanism.dim)
        self.n_features_in_ = mechanism.dim
        self.radius_, self.tau_x_, self.tau_y_ = mechanism.radius, mechanism.tau_x, mechanism.tau_y
        self.privacy_report_ = mechanism.report
        self._solve(mechanism, server, public, np.float64)
        return self

    @staticmethod
    def _fitting(public: PublicCovariance, d: int) -> PublicCovariance:
        if len(public.matrix) != d:
            raise ValueError(f"public data must have {d} features, as X has, got {len(public.matrix)}")
        return public

    def _solve(self, mechanism: MomentMechanism, server: MomentServer, public: PublicCovariance | None,
               dtype: Any) -> None:
        _checks.one_of("psd_fix", self.psd_fix, PSD_FIXES)
        _checks.positive("floor", self.floor)
        S = server.covariance if public is None else public.matrix.double()
        assert S is not None
        values, vectors = torch.linalg.eigh(S)
        least, clip = float(values[0]), self.psd_fix == "clip" and public is None
        low = self.floor * self.x_scale**2 if clip else 0.0
        if least <= low:
            warnings.warn(f"the private covariance must have eigenvalues above {low:g} to be inverted, got "
                          f"{least:.3g}, which is {'raised to that' if clip else 'left as it is'}; more users or a "
                          "larger epsilon would help", NotPositiveDefinite, stacklevel=3)
            values = values.clamp(min=low) if clip else values
        inverse = (vectors / values) @ vectors.mT
        raw = inverse @ server.cross
        self.threshold_ = self._threshold(mechanism, inverse, server.users, public)
        self.covariance_ = ((vectors * values) @ vectors.mT).numpy()
        self.raw_coef_ = raw.numpy().astype(dtype)
        self.coef_ = L1(self.threshold_).prox(raw).numpy().astype(dtype)
        self.intercept_ = 0.0

    def _threshold(self, mechanism: MomentMechanism, inverse: Tensor, users: int,
                   public: PublicCovariance | None) -> float:
        if not isinstance(self.threshold, str):
            _checks.nonnegative("threshold", self.threshold)
            return float(self.threshold)
        _checks.one_of("threshold", self.threshold, ("auto",))
        error = math.hypot(mechanism.noise_in_theta(), self.x_scale * self.y_scale) / math.sqrt(users)
        if public is not None:  # their covariance misses that of the users
            error = math.hypot(error, self.x_scale**2 * mechanism.bound / math.sqrt(public.rows))
        widest = float(torch.linalg.vector_norm(inverse, dim=1).max())
        return math.sqrt(2 * math.log(max(mechanism.dim, 2))) * error * widest


class LDPIHT(_Private):
    """Sparse regression in rounds: hard thresholding on private gradients, every user heard in one round.

    Parameters
    ----------
    epsilon
        Of the one message of each user; there is no delta.
    k
        Coefficients that are kept, at most d.
    rounds
        ``"auto"``: half of log2(n), at least 1, after which a step of 1/2 has reduced what remains to 1/sqrt(n).
    step
        Of gradient descent; below 2 over the largest eigenvalue of the covariance.
    x_scale, y_scale
        Declared standard deviations of an entry of x, and of y: public knowledge, never taken from the data.
    radius
        Gradients are shortened to this l2 norm: a number; ``"auto"``, ``1.5 x_scale y_scale sqrt(d)``; or
        ``"published"``, the bound ``sqrt(d) tau_x (sqrt(k) tau_x bound + tau_y)`` that no clipped gradient passes.
    tau_x, tau_y
        Entries of x, and y, are clipped to these sizes; ``"auto"``: normal ones pass them once in sqrt(n) users; None
        for no clipping.
    bound
        Of ``||theta||_2``: coefficients are projected on this ball.
    random_state
        Seed of the messages. Users are heard in the order of their rows.

    Attributes
    ----------
    coef_
        ``(d,)``.
    n_iter_, radius_, tau_x_, tau_y_
        That were used.
    privacy_report_
        What each user's message cost.

    References
    ----------
    Zhu et al. (2024), Algorithm 3, which keeps 8 k coefficients and more where k are expected.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import LDPIHT
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((20_000, 30))
    >>> y = 0.8 * X[:, 3] - 0.6 * X[:, 7] + 0.5 * rng.standard_normal(20_000)
    >>> LDPIHT(epsilon=4, k=2, random_state=0).fit(X, y).coef_.nonzero()[0]
    array([3, 7])
    """

    def __init__(self, epsilon: float = 1.0, k: int = 1, *, rounds: int | str = "auto", step: float = 0.5,
                 x_scale: float = 1.0, y_scale: float = 1.0, radius: float | str = "auto",
                 tau_x: float | str | None = "auto", tau_y: float | str | None = "auto", bound: float = 1.0,
                 random_state: Any = None) -> None:
        self.epsilon = epsilon
        self.k = k
        self.rounds = rounds
        self.step = step
        self.x_scale = x_scale
        self.y_scale = y_scale
        self.radius = radius
        self.tau_x = tau_x
        self.tau_y = tau_y
        self.bound = bound
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to ``(n, d)`` X and ``(n,)`` y of n users.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit; if there are fewer users than rounds.
        """
        A, b = self._data(X, y)
        n, d = A.shape
        rounds = self._rounds(n)
        mechanism = self.mechanism(n, d)
        server = ThresholdingServer(d, _checks.count("k", self.k, low=1, high=d), step=self.step, bound=self.bound)
        generator = self._generator()
        edges = [i * n // rounds for i in range(rounds + 1)]
        for first, last in pairwise(edges):
            total = mechanism.total(A[first:last], b[first:last], server.coef, generator)
            server.aggregate(total, last - first)
        self.coef_ = server.coef.numpy().astype(A.numpy().dtype)
        self.intercept_ = 0.0
        self.n_iter_ = rounds
        self.radius_, self.tau_x_, self.tau_y_ = mechanism.radius, mechanism.tau_x, mechanism.tau_y
        self.privacy_report_ = mechanism.report
        return self

    def mechanism(self, n: int, d: int) -> GradientMechanism:
        """What each of n users with d features runs.

        Raises
        ------
        TypeError, ValueError
            If a parameter is out of range.
        """
        _checks.count("n", n, low=1)
        for name in ("x_scale", "y_scale", "bound"):
            _checks.positive(name, getattr(self, name))
        tau_x, tau_y = self._clip("tau_x", n), self._clip("tau_y", n)
        radius = self.radius
        if isinstance(radius, str):
            _checks.one_of("radius", radius, ("auto", "published"))
            if radius == "auto":
                radius = _GRADIENT * self.x_scale * self.y_scale * math.sqrt(d)
            elif tau_x is None or tau_y is None:
                raise ValueError("tau_x and tau_y must be given for radius='published', got None")
            else:
                radius = math.sqrt(d) * tau_x * (math.sqrt(self.k) * tau_x * self.bound + tau_y)
        return GradientMechanism(d, self.epsilon, radius, tau_x, tau_y)

    def _rounds(self, n: int) -> int:
        if isinstance(self.rounds, str):
            _checks.one_of("rounds", self.rounds, ("auto",))
            return max(1, math.ceil(math.log2(n) / 2))
        rounds = _checks.count("rounds", self.rounds, low=1)
        if n < rounds:
            raise ValueError(f"X must have a user for each of the {rounds} rounds, got n_samples = {n}")
        return rounds


def _tail(n: int) -> float:
    """The share of users whose clipping is accepted: its bias stays below the error of a mean of n."""
    return 1 / (1 + math.sqrt(n))
