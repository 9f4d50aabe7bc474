"""A Gaussian prior whose variances are unknown and form a Kronecker product: what to believe, and how to fit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described

RULES = ("alternating", "svd", "sweep")


@dataclass(frozen=True)
class KroneckerVariances(Described):
    """x ~ N(0, diag(g_1 (x) g_2 (x) ...)), the nonnegative factors g_i unknown.

    A hierarchical prior: what is believed of x is a Gaussian, and of its variances that they are a product of one
    factor per axis; where an entry of a factor is zero, a whole slice of x is. Given the second moments
    d = E|x|^2 of a posterior, `fit` looks for the factors that minimise

        sum_n  log gamma_n + d_n / gamma_n,    gamma = g_1 (x) g_2 (x) ...,

    the step of EM that follows the posterior. The product has one free scale: the last factor carries it, and the
    others have unit norm.

    Parameters
    ----------
    rule
        ``"alternating"``: each factor's exact minimiser in turn, until they stay (AM-KroSBL); the sum never rises.
        ``"sweep"``: one such round (the earlier KSBL). ``"svd"``: not the minimiser but the best product in the
        Frobenius norm, axis by axis (SVD-KroSBL), which needs no rounds and follows large moments.
    coupling
        For each axis a number b >= 0, or ``None`` for none: its factor is then (I + b (shift + shift^T)) a with a >= 0,
        so that neighbours are large together (PC-KroSBL). Only with the rules of rounds.
    inner_tol, inner_max
        The rounds end when the factors change by less than this share of their norms, or after so many.
    floor
        Added to a coupled factor, which may otherwise vanish.

    Notes
    -----
    He and Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery, IEEE Transactions on Signal
    Processing, 2024 (arXiv 2307.14719).

    Examples
    --------
    >>> import torch
    >>> from sparsepriors.priors import KroneckerVariances
    >>> a, b = torch.tensor([3.0, 0.0]), torch.tensor([1.0, 2.0])
    >>> g = KroneckerVariances("svd").fit(torch.outer(a, b))
    >>> torch.outer(*g)
    tensor([[3., 6.],
            [0., 0.]])
    """

    rule: str = "alternating"
    coupling: tuple[float, ...] | None = None
    inner_tol: float = 1e-5
    inner_max: int = 1000
    floor: float = 1e-5

    def __post_init__(self) -> None:
        _checks.one_of("rule", self.rule, RULES)
        _checks.positive("inner_tol", self.inner_tol)
        _checks.count("inner_max", self.inner_max, low=1)
        _checks.nonnegative("floor", self.floor)
        if self.coupling is not None:
            if not isinstance(self.coupling, tuple) or not self.coupling:
                raise TypeError(f"coupling must be a tuple with a number for each axis, got {self.coupling!r}")
            for i, b in enumerate(self.coupling):
                _checks.nonnegative(f"coupling[{i}]", b)
            if self.rule == "svd":
                raise ValueError("coupling must be None for the rule 'svd', which has no step for one axis")

    def start(self, shape: Sequence[int], batch: tuple[int, ...] = ()) -> tuple[Float[Tensor, "..."], ...]:
        """Factors for unknowns of this shape whose variances are all one, or coupled as all ones are; float64.

        Raises
        ------
        ValueError
            If an axis is empty, or ``coupling`` has another number of axes.
        """
        shape = _checks.shape("shape", tuple(shape))
        self._fits(shape)
        factors = [torch.ones(*batch, n, dtype=torch.float64) for n in shape]
        if self.coupling is not None:
            factors = [f + b * _neighbours(f) for f, b in zip(factors, self.coupling, strict=True)]
        return tuple(normalise(factors))

    def fit(self, moments: Float[Tensor, "..."], factors: Sequence[Float[Tensor, "..."]] | None = None
            ) -> tuple[Float[Tensor, "..."], ...]:
        """The factors for these second moments.

        Parameters
        ----------
        moments
            ``(*batch, n_1, ..., n_I)``, nonnegative.
        factors
            One ``(*batch, n_i)`` per axis, from which the rounds start; entries that are zero stay zero. Without them
            there is no batch, and the rounds start from `start`.

        Raises
        ------
        TypeError, ValueError
            If the moments are not real, finite and nonnegative, or the factors do not fit them.
        """
        _checks.nonnegative("moments", _checks.inexact("moments", moments))
        if factors is None:
            start = [f.to(moments) for f in self.start(moments.shape)]
            return tuple(f[0] for f in self._fit(moments[None], [f[None] for f in start]))
        axes = len(factors)
        if not 0 < axes <= moments.ndim:
            raise ValueError(f"factors must have one entry per axis of moments {tuple(moments.shape)}, got {axes}")
        batch, shape = moments.shape[:moments.ndim - axes], moments.shape[moments.ndim - axes:]
        self._fits(tuple(shape))
        for i, (f, n) in enumerate(zip(factors, shape, strict=True)):
            _checks.nonnegative(f"factors[{i}]", f)
            if tuple(f.shape) != (*batch, n):
                raise ValueError(f"factors[{i}] must have shape {(*batch, n)}, got {tuple(f.shape)}")
        flat = self._fit(moments.reshape(-1, *shape), [f.reshape(-1, f.shape[-1]) for f in factors])
        return tuple(f.reshape(*batch, -1) for f in flat)

    def _fits(self, shape: tuple[int, ...]) -> None:
        if not shape or 0 in shape:
            raise ValueError(f"shape must have at least one axis and no empty one, got {shape}")
        if self.coupling is not None and len(self.coupling) != len(shape):
            raise ValueError(f"coupling must have one number for each of {len(shape)} axes, got {len(self.coupling)}")

    def _fit(self, moments: Tensor, factors: list[Tensor]) -> list[Tensor]:
        """`fit` for one batch axis."""
        if self.rule == "svd":
            return _nested_svd(moments)
        counts = [(f > 0).sum(-1, keepdim=True).to(f.dtype).clamp(min=1) for f in factors]
        if self.rule == "sweep":
            return normalise(self._round(moments, factors, counts))
        found = [f.clone() for f in factors]
        rows = torch.arange(moments.shape[0], device=moments.device)
        for _ in range(self.inner_max):
            new = normalise(self._round(moments, factors, counts))
            change = sum(_change(a, b) for a, b in zip(new, factors, strict=True))
            assert isinstance(change, Tensor)
            for kept, f in zip(found, new, strict=True):
                kept[rows] = f
            going = change > self.inner_tol
            if not bool(going.any()):
                break
            if not bool(going.all()):
                rows, moments = rows[going], moments[going]
                new, counts = [f[going] for f in new], [c[going] for c in counts]
            factors = new
        return found

    def _round(self, moments: Tensor, factors: list[Tensor], counts: list[Tensor]) -> list[Tensor]:
        """Each factor's minimiser in turn, the others held; a coupled one's least squares fit to it."""
        inverse = [_inverse(f) for f in factors]
        total = prod(counts[1:], start=counts[0])
        new: list[Tensor] = []
        left = moments
        for i, f in enumerate(factors):
            left = left.reshape(len(left), f.shape[-1], -1)
            right = inverse[i + 1:i + 2] or [left.new_ones(len(left), 1)]
            for g in inverse[i + 2:]:
                right = [(right[0][:, :, None] * g[:, None, :]).flatten(1)]
            target = torch.where(f > 0, (left @ right[0][:, :, None])[..., 0] * (counts[i] / total), 0)
            if self.coupling is not None and self.coupling[i]:
                target = self._couple(target, f > 0, self.coupling[i])
            new.append(target)
            left = (_inverse(target)[:, None, :] @ left)[:, 0]
        return new

    def _couple(self, target: Tensor, alive: Tensor, b: float) -> Tensor:
        from scipy.optimize import nnls

        out = torch.zeros_like(target)
        n = target.shape[-1]
        ones = torch.ones(n - 1, dtype=torch.float64)
        mixing = (torch.eye(n, dtype=torch.float64) + b * (torch.diag(ones, 1) + torch.diag(ones, -1))).numpy()
        for row, t, keep in zip(out, target.double().cpu().numpy(), alive.cpu().numpy(), strict=True):
            if keep.any():
                part = mixing[keep][:, keep]
                row[torch.from_numpy(keep)] = torch.from_numpy(self.floor + part @ nnls(part, t[keep])[0]).to(row)
        return out


def normalise(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same product with all factors but the last of unit norm."""
    *heads, last = factors
    norms = [f.norm(dim=-1, keepdim=True) for f in heads]
    return [torch.where(n > 0, f / n, f) for f, n in zip(heads, norms, strict=True)] + [prod(norms, start=last)]


def product(factors: Sequence[Tensor]) -> Tensor:
    """The variances themselves: ``(*batch, n_1, ..., n_I)``."""
    full = factors[0]
    for f in factors[1:]:
        full = full[..., None] * f.reshape(*f.shape[:-1], *(1,) * (full.ndim - f.ndim + 1), f.shape[-1])
    return full


def _inverse(factor: Tensor) -> Tensor:
    """1 / g, and zero where a slice is pruned."""
    return torch.where(factor > 0, 1 / factor.clamp(min=torch.finfo(factor.dtype).tiny), 0)


def _neighbours(x: Tensor) -> Tensor:
    """The sum of the two neighbours along the last axis, which ends in zeros."""
    out = torch.zeros_like(x)
    out[..., 1:] += x[..., :-1]
    out[..., :-1] += x[..., 1:]
    return out


def _change(new: Tensor, old: Tensor) -> Tensor:
    """Relative change of a factor, per item."""
    return (new - old).norm(dim=-1) / old.norm(dim=-1).clamp(min=torch.finfo(old.dtype).tiny)


def _nested_svd(moments: Tensor) -> list[Tensor]:
    """Leading singular vectors of the first axis against the rest, then within the rest; all nonnegative."""
    factors: list[Tensor] = []
    rest = moments
    while rest.ndim > 2:
        rows = rest.flatten(2)
        lead = torch.linalg.eigh(rows @ rows.mT).eigenvectors[..., -1].abs()
        # One power step in nonnegative numbers: small entries, which the eigenvectors know to an absolute accuracy
        # only, then have a relative one, and slices of zeros are exact zeros.
        lead = (rows @ (rows.mT @ lead[..., None]))[..., 0]
        norm = lead.norm(dim=-1, keepdim=True)
        lead = torch.where(norm > 0, lead / norm, lead)
        factors.append(lead)
        rest = (lead[:, None, :] @ rows)[:, 0].reshape(len(rest), *rest.shape[2:])
    return [*factors, rest]
