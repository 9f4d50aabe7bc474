"""What a user sends and what a server makes of it: private second moments, and private gradients round by round.

A mechanism runs at the user's; a server sees messages alone. ``total`` draws the sum of many users' messages from its
law at once, for simulations in which all data lie in one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import Cardinality, L2Ball
from sparsepriors.regression.mechanisms import (
    GaussianMechanism,
    L2BallRandomiser,
    PrivacyReport,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    pack_symmetric,
    unpack_symmetric,
)

MAX_DIM = 4096
"""Most features of private second moments: one message then holds eight million numbers."""
NOISES = ("exact", "published")
_CHUNK = 8192  # users whose rows fit in a processor's cache


@dataclass(frozen=True)
class Message:
    """Private moments of one user, or their sum over several.

    Attributes
    ----------
    cross
        ``(dim,)``: x y with noise.
    second
        x x^T with noise, packed by `pack_symmetric`; ``None`` where the server knows the covariance.
    users
        How many are summed.
    """

    cross: Tensor
    second: Tensor | None
    users: int = 1


@dataclass(frozen=True)
class MomentMechanism:
    """Send x y and, if asked, x x^T once, clipped and with Gaussian noise.

    Parameters
    ----------
    dim
        Features, at most 4096 where x x^T is sent.
    epsilon, delta
        For both messages of a user together.
    radius
        x is shortened to this l2 norm for x x^T.
    tau_y
        y is clipped to ``[-tau_y, tau_y]``.
    tau_x
        The entries of x are clipped to this size for x y; ``None`` takes the x of ``radius`` instead. Its product with
        y moves less, and less where x x^T moves most, which the exact noise makes use of.
    covariance
        Whether x x^T is sent.
    noise
        ``"exact"``: both messages as one Gaussian mechanism, calibrated exactly, on the isometric packing of the
        matrix, whose sensitivity is ``sqrt(2) radius^2``. ``"published"``: half of epsilon and delta for each, the
        classic formula, equal noise on the upper triangle for a sensitivity of ``2 radius^2``.
    bound
        Of ``||theta||_2``; it shares exact noise between the messages so that their errors in theta are in balance.

    Raises
    ------
    TypeError, ValueError
        If a parameter is out of range, or the classic formula does not keep the promise.

    References
    ----------
    Zhu et al. (2024), Improved analysis of sparse linear regression in local differential privacy model, Algorithms 1
    and 2.
    """

    dim: int
    epsilon: float
    delta: float
    radius: float
    tau_y: float
    tau_x: float | None = None
    covariance: bool = True
    noise: str = "exact"
    bound: float = 1.0

    def __post_init__(self) -> None:
        _checks.count("dim", self.dim, low=1)
        if self.covariance and self.dim > MAX_DIM:
            raise ValueError(f"dim must be at most {MAX_DIM} where x x^T is sent, got {self.dim}; with public features "
                             "for the covariance, or in rounds, there is no such limit")
        for name in ("radius", "tau_y", "bound"):
            _checks.positive(name, getattr(self, name))
        if self.tau_x is not None:
            _checks.positive("tau_x", self.tau_x)
        _checks.one_of("noise", self.noise, NOISES)
        if self.noise == "published" and self.tau_x is None:
            raise ValueError("tau_x must be given for noise='published', which clips entries, got None")
        _ = self.report  # bad epsilon and delta are refused here, not at the first message

    @property
    def cross_sensitivity(self) -> float:
        """``2 tau_y`` times the largest norm of the x that meets y."""
        return 2 * self.tau_y * (self.radius if self.tau_x is None else math.sqrt(self.dim) * self.tau_x)

    @property
    def second_sensitivity(self) -> float:
        """Of the packed matrix: ``sqrt(2) radius^2``, reached by two orthogonal x; 0 if it is not sent."""
        return math.sqrt(2) * self.radius**2 if self.covariance else 0.0

    @cached_property
    def scales(self) -> tuple[float, float]:
        """Standard deviations of the noise on x y and on x x^T (its diagonal; 0 if it is not sent)."""
        cross, second = self.cross_sensitivity, self.second_sensitivity
        if self.noise == "published":
            parts = 2 if self.covariance else 1
            sizes = (cross, 2 * self.radius**2) if self.covariance else (cross,)
            found = [GaussianMechanism(s, self.epsilon / parts, self.delta / parts, "classic").scale for s in sizes]
            return found[0], found[1] if self.covariance else 0.0
        mu = gaussian_mu(self.epsilon, self.delta)
        if not self.covariance:
            return cross / mu, 0.0
        # The variance of an entry of theta is cross^2 / b + weight / a, where b and a are the squared sensitivities in
        # units of the noise; `_mu` says which b and a together cost mu.
        weight = (second * self.bound)**2 / 2
        if self.tau_x is not None:
            share = math.sqrt(weight) / (math.sqrt(weight) + cross)
            a, b = share, 1 - share
        else:
            q = min(4.0, (math.sqrt(cross**4 / 16 + 2 * weight * cross**2) - cross**2 / 4) / weight)
            a = (1 + q / 4)**-2
            b = q * a
        return cross / (mu * math.sqrt(b)), second / (mu * math.sqrt(a))

    def _mu(self, of_cross: float, of_second: float) -> float:
        """The largest distance of two users' messages, in units of their noise.

        Where entries are clipped, x y and x x^T can move most at once. Where both are made of one x of norm r, two
        users whose x have the cosine c and whose y are opposite lie ``a (1 - c^2) + b (1 + c) / 2`` apart, squared,
        most at ``c = b / 4a``; shorter x lie no further apart.
        """
        b = (self.cross_sensitivity / of_cross)**2
        if not self.covariance:
            return math.sqrt(b)
        a = (self.second_sensitivity / of_second)**2
        if self.tau_x is not None:
            return math.sqrt(a + b)
        return math.sqrt(a) * (1 + b / (4 * a)) if b < 4 * a else math.sqrt(b)

    @cached_property
    def report(self) -> PrivacyReport:
        """What the messages of one user cost, both together."""
        of_cross, of_second = self.scales
        scales, sensitivities = {"x y": of_cross}, {"x y": self.cross_sensitivity}
        if self.covariance:
            scales["x x^T"], sensitivities["x x^T"] = of_second, self.second_sensitivity
        mu = self._mu(of_cross, of_second)
        return PrivacyReport(self.epsilon, self.delta, False, scales, sensitivities,
                             gaussian_epsilon(mu, self.delta), gaussian_delta(mu, self.epsilon))

    def noise_in_theta(self) -> float:
        """Standard deviation of the noise in an entry of ``x y - (x x^T) theta`` of one user, ``||theta|| = bound``."""
        of_cross, of_second = self.scales
        off_diagonal = of_second if self.noise == "published" else of_second / math.sqrt(2)
        return math.hypot(of_cross, off_diagonal * self.bound)

    def randomise(self, x: Float[Tensor, " dim"], y: float, generator: torch.Generator) -> Message:
        """The message of one user.

        Raises
        ------
        TypeError, ValueError
            If x or y is not finite or x has another length.
        """
        _checks.trailing_shape("x", _checks.inexact("x", x), (self.dim,))
        return self.total(x[None], torch.tensor([y], dtype=x.dtype), generator)

    def total(self, X: Float[Tensor, "n dim"], y: Float[Tensor, " n"], generator: torch.Generator) -> Message:
        """The sum of the messages of n users, by one draw from its law: their noises add up to normal noise."""
        return self.noised(self.clean(X, y), generator)

    def noised(self, clean: Message, generator: torch.Generator) -> Message:
        """What `total` makes of `clean` sums: for simulations that draw noise for the same users again and again."""
        of_cross, of_second = (s * math.sqrt(clean.users) for s in self.scales)
        cross = clean.cross + of_cross * torch.randn(self.dim, generator=generator, dtype=torch.float64)
        if clean.second is None:
            return Message(cross, None, clean.users)
        noise = torch.randn(self.dim * (self.dim + 1) // 2, generator=generator, dtype=torch.float64)
        if self.noise == "published":  # equal noise on the triangle is sqrt 2 times as much on the packed entries
            rows, columns = torch.triu_indices(self.dim, self.dim).unbind()
            noise = noise * torch.where(rows == columns, 1.0, math.sqrt(2))
        return Message(cross, clean.second + of_second * noise, clean.users)

    def clean(self, X: Float[Tensor, "n dim"], y: Float[Tensor, " n"]) -> Message:
        """Clipped sums **without** noise, in float64: these must not leave the users."""
        _check_users(X, y, self.dim)
        cross = torch.zeros(self.dim, dtype=torch.float64)
        second = torch.zeros(self.dim, self.dim, dtype=torch.float64) if self.covariance else None
        ball = L2Ball(self.radius, dims=1)
        for rows, responses in zip(X.split(_CHUNK), y.split(_CHUNK), strict=True):
            short = ball.project(rows) if self.covariance or self.tau_x is None else rows
            if second is not None:
                second += short.mT @ short
            flat = short if self.tau_x is None else rows.clamp(-self.tau_x, self.tau_x)
            cross += flat.mT @ responses.clamp(-self.tau_y, self.tau_y)
        return Message(cross, None if second is None else pack_symmetric(second), len(X))


class MomentServer:
    """Adds up private moments; holds no user's data.

    Parameters
    ----------
    dim
        Features.

    Attributes
    ----------
    users
        Heard so far.
    """

    def __init__(self, dim: int) -> None:
        self.dim = _checks.count("dim", dim, low=1)
        self.users = 0
        self._cross = torch.zeros(dim, dtype=torch.float64)
        self._second: Tensor | None = None

    def aggregate(self, messages: Message | Iterable[Message]) -> None:
        """Add one message or several; each user's must come once.

        Raises
        ------
        ValueError
            If a message has other lengths, or some bring x x^T and others do not.
        """
        for message in (messages,) if isinstance(messages, Message) else messages:
            _checks.trailing_shape("message.cross", message.cross, (self.dim,))
            if self.users and (message.second is None) != (self._second is None):
                raise ValueError("messages must all bring x x^T or none of them, got both kinds")
            if message.second is not None:
                _checks.trailing_shape("message.second", message.second, (self.dim * (self.dim + 1) // 2,))
                self._second = message.second if self._second is None else self._second + message.second
            self._cross = self._cross + message.cross
            self.users += message.users

    @property
    def total(self) -> Message:
        """The sum of all messages, as one; `ValueError` before the first."""
        self._heard()
        return Message(self._cross, self._second, self.users)

    @property
    def cross(self) -> Float[Tensor, " dim"]:
        """The mean of x y; `ValueError` before the first message."""
        self._heard()
        return self._cross / self.users

    @property
    def covariance(self) -> Float[Tensor, "dim dim"] | None:
        """The mean of x x^T, symmetric but perhaps indefinite; ``None`` if it was not sent."""
        self._heard()
        return None if self._second is None else unpack_symmetric(self._second / self.users)

    def _heard(self) -> None:
        if not self.users:
            raise ValueError("the server must have heard a user, got no message yet")


@dataclass(frozen=True)
class GradientMechanism:
    """Send the gradient ``x (x.theta - y)`` at the server's theta as a random point of a sphere; purely private.

    Parameters
    ----------
    dim, epsilon
        As in `L2BallRandomiser`.
    radius
        The gradient is shortened to this l2 norm. Where the noise of y is symmetric this leaves theta's equation as it
        is, so that a small radius costs little but speed.
    tau_x, tau_y
        Entries of x, and y, are clipped to these sizes first; ``None`` for no clipping.

    References
    ----------
    Zhu et al. (2024), Algorithm 3.
    """

    dim: int
    epsilon: float
    radius: float
    tau_x: float | None = None
    tau_y: float | None = None

    def __post_init__(self) -> None:
        _ = self.randomiser
        for name in ("tau_x", "tau_y"):
            if getattr(self, name) is not None:
                _checks.positive(name, getattr(self, name))

    @cached_property
    def randomiser(self) -> L2BallRandomiser:
        """The law of a message given a gradient."""
        return L2BallRandomiser(self.dim, self.radius, self.epsilon)

    @property
    def report(self) -> PrivacyReport:
        """What the one message of a user costs."""
        return PrivacyReport(self.epsilon, 0.0, True, {"gradient": self.randomiser.norm},
                             {"gradient": 2 * self.radius}, self.epsilon, 0.0)

    def randomise(self, x: Float[Tensor, " dim"], y: float, coef: Float[Tensor, " dim"],
                  generator: torch.Generator) -> Float[Tensor, " dim"]:
        """The message of one user at the server's coefficients."""
        _checks.trailing_shape("x", _checks.inexact("x", x), (self.dim,))
        return self.total(x[None], torch.tensor([y], dtype=x.dtype), coef, generator)

    def total(self, X: Float[Tensor, "n dim"], y: Float[Tensor, " n"], coef: Float[Tensor, " dim"],
              generator: torch.Generator) -> Float[Tensor, " dim"]:
        """The sum of the messages of n users, each drawn for itself."""
        _check_users(X, y, self.dim)
        _checks.trailing_shape("coef", _checks.inexact("coef", coef), (self.dim,))
        ball, result = L2Ball(self.radius, dims=1), torch.zeros(self.dim, dtype=torch.float64)
        for rows, responses in zip(X.split(_CHUNK), y.split(_CHUNK), strict=True):
            x = rows if self.tau_x is None else rows.clamp(-self.tau_x, self.tau_x)
            t = responses if self.tau_y is None else responses.clamp(-self.tau_y, self.tau_y)
            gradients = ball.project(x * (x @ coef.to(x.dtype) - t)[:, None])
            result += self.randomiser._randomise(gradients, generator).sum(0)
        return result


class ThresholdingServer:
    """Iterative hard thresholding on private gradients; each round hears users that were not heard before.

    Parameters
    ----------
    dim
        Features.
    k
        Coefficients that are kept after a round.
    step
        Of gradient descent.
    bound
        The coefficients are projected on the l2 ball of this radius.

    Attributes
    ----------
    coef
        ``(dim,)``, zero at first: what the users of the next round are told.
    rounds
        Made so far.
    """

    def __init__(self, dim: int, k: int, *, step: float = 0.5, bound: float = 1.0) -> None:
        self.dim = _checks.count("dim", dim, low=1)
        self.k = _checks.count("k", k, low=1, high=dim)
        _checks.positive("step", step)
        _checks.positive("bound", bound)
        self.step, self.bound = step, bound
        self.coef = torch.zeros(dim, dtype=torch.float64)
        self.rounds = 0

    def aggregate(self, total: Float[Tensor, " dim"], users: int) -> None:
        """One round: the sum of the messages of so many users."""
        _checks.trailing_shape("total", _checks.inexact("total", total), (self.dim,))
        _checks.count("users", users, low=1)
        moved = self.coef - self.step * total / users
        self.coef = L2Ball(self.bound).project(Cardinality(self.k).project(moved))
        self.rounds += 1


def _check_users(X: Tensor, y: Tensor, dim: int) -> None:
    _checks.trailing_shape("X", _checks.inexact("X", X), (dim,))
    _checks.trailing_shape("y", _checks.inexact("y", y), (len(X),))
    if X.ndim != 2 or y.ndim != 1 or not len(X):
        raise ValueError(f"X and y must hold at least one user, got shapes {tuple(X.shape)} and {tuple(y.shape)}")
