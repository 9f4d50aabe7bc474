"""A change of coordinates in which most small supports are cheap for the Lasso, learnt from the design alone.

In coordinates ``w = S u`` the Lasso's slow rate is ``sigma ||u||_1 sqrt(log d / n)``, the columns of ``X S / sqrt(n)``
having norm 1. Columns that are nearly dependent make some w with a small ``X w`` costly in every diagonal S. On random
supports that happens only if many columns lie near the span of a few of them; subtracting what those few explain, from
all of them at once, and rescaling makes the supports cheap, in a number of rounds that is bounded by the logarithm of
the condition number.

Chandrasekaran, Meka, Stavropoulos (2025), Sparse linear regression is easy on random supports, arXiv:2511.06211, state
that such coordinates can be found for every design; how they are found here is a reconstruction from that statement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import Diagonal, Elimination, LinearOperator

_EVERY = 5            # rounds between two looks at the cost
_PATIENCE = 15        # draws in a row without enough near columns, after which more distant ones are taken
_WIDER, _WIDEST = 1.4, 0.7
_HOPELESS = 10        # looks in a row that see nothing better, after which the search ends
_REDUNDANT = 1e-9     # residual at which a column is explained completely
_NEGLIGIBLE = 1e-10   # singular value, relative to the largest, of directions that are rounding


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """The coordinates u of w = S u, S a diagonal and then eliminations.

    Attributes
    ----------
    X
        ``(n, d)``, the design.
    scale
        ``(d,)``: norms of its columns over the root of n; zero columns take no part.
    eliminations
        One for each round.
    atoms
        ``(n, d)``: X S over the root of n; norms 1, or 0 for columns that others explain completely.
    k, target, failing
        Size of the supports, the cost that they should not exceed, and the share of random ones that did at the last
        look.
    converged
        Whether that share was small enough.
    """

    X: Float[Tensor, "n d"]
    scale: Float[Tensor, " d"]
    eliminations: tuple[Elimination, ...]
    atoms: Float[Tensor, "n d"]
    k: int
    target: float
    failing: float
    converged: bool

    @property
    def alive(self) -> Bool[Tensor, " d"]:
        """Which columns are neither zero nor explained completely by others."""
        return torch.linalg.vector_norm(self.atoms, dim=0) > 0

    @property
    def operator(self) -> LinearOperator:
        """S, as a product that is never multiplied out."""
        operator: LinearOperator = Diagonal(torch.where(self.scale > 0, 1 / self.scale.clamp_min(1e-300), 0.0))
        for elimination in self.eliminations:
            operator = operator @ elimination
        return operator

    def apply(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """S u."""
        return self.operator(u)

    def inverse(self, w: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """S^-1 w: coordinates with the same ``X w``, those of redundant columns being zero."""
        _checks.inexact("w", w)
        _checks.trailing_shape("w", w, tuple(self.scale.shape))
        u = self.scale * w
        for elimination in self.eliminations:
            u = elimination.solve(u)
        return u

    def cost(self, supports: Int[Tensor, "trials k"]) -> Float[Tensor, " trials"]:
        """The largest ``||S^-1 w||_1`` of the principal signals of each support, those with ``||X w||^2 = n``.

        Any signal of that norm on the support then costs at most the root of k times as much.

        Raises
        ------
        ValueError
            If an index is out of range or a support has more columns than there are rows.
        """
        n, d = self.X.shape
        if supports.ndim != 2 or not 1 <= supports.shape[1] <= min(n, d):
            raise ValueError(f"supports must have shape (trials, k) with k from 1 to {min(n, d)}, got "
                             f"{tuple(supports.shape)}")
        if supports.numel() and not (int(supports.min()) >= 0 and int(supports.max()) < d):
            raise ValueError(f"supports must hold numbers between 0 and {d - 1}")
        trials, k = supports.shape
        triangle = torch.linalg.qr(self.X.mT[supports].mT / math.sqrt(n), mode="r").R
        _, s, vh = torch.linalg.svd(triangle)
        some = s > _NEGLIGIBLE * s[:, :1]
        signals = torch.where(some[..., None], vh / torch.where(some, s, 1.0)[..., None], 0.0)
        w = self.X.new_zeros(trials, k, d).scatter(-1, supports[:, None].expand(trials, k, k), signals)
        return self.inverse(w).abs().sum(dim=-1).amax(dim=-1)

    def report(self) -> dict[str, float]:
        """What was done, in numbers."""
        return {"rounds": len(self.eliminations), "eliminations": sum(e.columns.numel() for e in self.eliminations),
                "redundant": int((~self.alive).sum()), "failing": self.failing, "converged": float(self.converged)}


@torch.no_grad()
def find_preconditioner(X: Float[Tensor, "n d"], k: int, *, target: float | None = None, delta: float = 0.02,
                        tau: float = 0.2, rho: float | None = None, trials: int = 100, max_rounds: int = 400,
                        generator: torch.Generator | None = None) -> Preconditioner:
    """Look for coordinates in which all but a share ``delta`` of the random supports cost at most ``target``.

    A round draws k columns, keeps those that stand away from one another by ``tau`` or more (pivoted QR), and, where at
    least a share ``rho`` of all columns lies within ``tau`` of their span, eliminates them from all of these at once.

    Parameters
    ----------
    X
        The design, float64; centre its columns first if there will be an intercept. Unlabelled rows are welcome.
    k
        Size of the supports.
    target
        Of `Preconditioner.cost`; 4 k by default.
    delta, trials
        Share of random supports that may cost more, and how many are drawn to see it, every fifth round.
    tau
        Distance, of columns of norm 1, up to which a column counts as near; it grows when too few are.
    rho
        By default ``delta / k``.
    max_rounds
        Most eliminations.
    generator
        Source of the supports; by default a new one with seed 0.

    Returns
    -------
    Preconditioner
        The best that was seen, also where the target was not reached.

    Raises
    ------
    TypeError, ValueError
        If X is not a finite float64 matrix of at least two rows, k exceeds a side of it, or a parameter is out of
        range.
    """
    _checks.inexact("X", X)
    if X.ndim != 2 or X.dtype != torch.float64 or X.shape[0] < 2:
        raise ValueError(f"X must be a float64 matrix of at least two rows, got {X.dtype} of shape {tuple(X.shape)}")
    n, d = X.shape
    _checks.count("k", k, low=1, high=min(n, d))
    target = 4.0 * k if target is None else target
    _checks.positive("target", target)
    _checks.nonnegative("delta", delta)
    rho = delta / k if rho is None else rho
    _checks.nonnegative("rho", rho)
    if not 0 < tau <= _WIDEST:
        raise ValueError(f"tau must lie between 0 and {_WIDEST}, got {tau}")
    _checks.count("trials", trials, low=1)
    _checks.count("max_rounds", max_rounds)
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    scale = torch.linalg.vector_norm(X, dim=0) / math.sqrt(n)
    atoms = torch.where(scale > 0, X / (math.sqrt(n) * scale.clamp_min(1e-300)), 0.0)
    rounds: list[Elimination] = []
    best: Preconditioner | None = None
    rejected, worse, due = 0, 0, True
    while True:
        last = len(rounds) >= max_rounds or int((atoms != 0).any(dim=0).sum()) < k
        if due or last:
            new = _judged(Preconditioner(X, scale, tuple(rounds), atoms, k, target, 1.0, False), delta, trials,
                          generator)
            better = best is None or new.failing < best.failing
            best, worse, due = (new, 0, False) if better else (best, worse + 1, False)
        assert best is not None
        if best.converged or last or worse == _HOPELESS:
            return best
        found = _round(atoms, k, tau, generator)
        if found is not None and found[0].columns.numel() >= rho * d:
            elimination, atoms = found
            rounds.append(elimination)
            rejected, due = 0, len(rounds) % _EVERY == 0
            continue
        rejected += 1
        if rejected == _PATIENCE:
            if tau >= _WIDEST:
                max_rounds = len(rounds)
            rejected, tau = 0, min(_WIDER * tau, _WIDEST)


def random_supports(columns: Tensor, k: int, trials: int, generator: torch.Generator) -> Tensor:
    """``(trials, k)``: k different ones of these columns, uniformly."""
    keys = torch.rand(trials, columns.numel(), generator=generator)
    return columns[torch.topk(keys, k, dim=-1).indices]


def _judged(found: Preconditioner, delta: float, trials: int, generator: torch.Generator) -> Preconditioner:
    """The same with the share of random supports that cost too much."""
    columns = (found.scale > 0).nonzero()[:, 0]
    failing = 0.0
    if columns.numel() >= found.k:
        cost = found.cost(random_supports(columns, found.k, trials, generator))
        failing = float((cost > found.target).double().mean())
    return replace(found, failing=failing, converged=failing <= delta)


def _round(atoms: Tensor, k: int, tau: float, generator: torch.Generator) -> tuple[Elimination, Tensor] | None:
    """Eliminate some of k random columns from all that are near their span; None where there is none."""
    import scipy.linalg

    alive = (atoms != 0).any(dim=0).nonzero()[:, 0]
    drawn = random_supports(alive, k, 1, generator)[0]
    factors: Any = scipy.linalg.qr(atoms[:, drawn].numpy(), mode="r", pivoting=True)
    triangle, order = factors
    away = torch.from_numpy(triangle).diagonal().abs() > tau
    pivots = drawn[torch.from_numpy(order).long()[:int(away.long().cumprod(dim=0).sum())]]
    q, upper = torch.linalg.qr(atoms[:, pivots])
    along = q.mT @ atoms
    rest = atoms - q @ along
    again = q.mT @ rest
    rest, along = rest - q @ again, along + again
    distance = torch.linalg.vector_norm(rest, dim=0)
    near = distance <= tau
    near[pivots] = False
    columns = alive[near[alive]]
    if not columns.numel():
        return None
    residuals = distance[columns]
    residuals = torch.where(residuals < _REDUNDANT, 0.0, residuals)
    coefficients = torch.linalg.solve_triangular(upper, along[:, columns], upper=True)
    new = torch.where(residuals > 0, rest[:, columns] / torch.where(residuals > 0, residuals, 1.0), 0.0)
    return (Elimination(atoms.shape[1], columns, pivots, coefficients, residuals), atoms.index_copy(1, columns, new))
